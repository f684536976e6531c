//! An Envoy, native or in Docker: started with a rendered bootstrap, watched,
//! reloaded through ECDS files, and taken down again.

mod admin;
mod binary;
mod config;
mod container;
mod log;
mod native;
mod own;
mod reload;
mod start;

pub use binary::{Binary, find_envoy, missing_import};
pub use container::{DEFAULT_IMAGE, LABEL as CONTAINER_LABEL, prepare_image};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, watch};

use self::admin::Admin;
use self::reload::Placed;
use super::{
    Addresses, Direction, Filter, Harness, Kind, Level, Proof, ProxyStatus, Role, ServedPlugin, Stats, Topology,
};
use crate::adapters::docker::Docker;
use crate::error::{Error, Result};
use crate::logs::{EnvoyLines, LogHub};
use crate::state::{Child, private_dir, write_private};

const POLL: Duration = Duration::from_millis(20);
/// A line may be followed by its continuation; after this it will not be.
const LINE_PAUSE: Duration = Duration::from_millis(30);

/// A running Envoy.
pub struct Envoy {
    kind: Kind,
    runner: Box<dyn Runner>,
    version: String,
    admin: Admin,
    addresses: Addresses,
    directory: PathBuf,
    logs: LogHub,
    current: Mutex<Vec<Placed>>,
    version_counter: AtomicU64,
    exited: Exited,
}

/// How it ended, once it has.
type Exited = watch::Receiver<Option<String>>;

/// What runs Envoy: a process or a container.
trait Runner: Send + Sync {
    /// What has to be ended when its supervisor was killed.
    fn child(&self) -> Child;

    /// A file was put into its directory: makes Envoy see it where it would not.
    fn changed<'a>(&'a self, _file: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// SIGTERM, and SIGKILL when that does not help within `grace`.
    fn end(&self, grace: Duration) -> BoxFuture<'_, ()>;
}

/// An Envoy on its way up.
struct Launched {
    kind: Kind,
    runner: Box<dyn Runner>,
    exited: Exited,
    published: Option<Published>,
}

/// Where the ports of an Envoy in a virtual machine are on the host.
#[derive(Clone)]
struct Published {
    admin: SocketAddr,
    listeners: Vec<(Direction, SocketAddr)>,
}

impl Published {
    fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.admin).chain(self.listeners.iter().map(|(_, address)| *address)).map(|a| a.port())
    }
}

impl Envoy {
    /// Starts a native Envoy in `directory` and waits until it serves every filter.
    pub async fn start(binary: Binary, topology: Topology, directory: PathBuf, logs: LogHub) -> Result<Self> {
        prepare(&topology, None, &directory)?;
        let launched = native::launch(&binary, &topology, &directory, &logs)?;
        Self::serve(launched, topology, directory, logs).await
    }

    /// The same in a container of `image`, which must be there.
    pub async fn start_in_docker(image: &str, topology: Topology, directory: PathBuf, logs: LogHub) -> Result<Self> {
        let docker = Docker::connect().await?;
        let (topology, published) = if docker.in_machine {
            let (inside, published) = container::publish(&topology)?;
            (inside, Some(published))
        } else {
            (topology, None)
        };
        prepare(&topology, published.as_ref(), &directory)?;
        let launched = container::launch(docker, image, &topology, published, &directory, &logs).await?;
        Self::serve(launched, topology, directory, logs).await
    }

    async fn serve(launched: Launched, topology: Topology, directory: PathBuf, logs: LogHub) -> Result<Self> {
        let starting = start::Starting::new(&launched, &topology, &directory, &logs);
        let up = starting.wait().await;
        let Launched { kind, runner, exited, .. } = launched;
        let (admin, addresses) = match up {
            Ok(up) => up,
            Err(error) => {
                runner.end(Duration::ZERO).await;
                return Err(error);
            }
        };
        Ok(Self {
            kind,
            runner,
            version: admin.version().await?,
            admin,
            addresses,
            directory,
            logs,
            current: Mutex::new(
                topology.filters.into_iter().map(|filter| Placed { filter, version: config::FIRST }).collect(),
            ),
            version_counter: AtomicU64::new(config::FIRST),
            exited,
        })
    }

    /// What has to be ended when this process was killed.
    pub fn child(&self) -> Child {
        self.runner.child()
    }

    fn failed(&self, reason: String) -> Error {
        Error::Harness { harness: self.kind.name(), reason, log: self.logs.last_problems(6) }
    }

    async fn drained(&self, deadline: Duration) -> Result<()> {
        // Listeners close; requests in flight end.
        self.admin.ask("POST", "/drain_listeners").await?;
        let until = Instant::now() + deadline;
        let mut quiet = 0;
        while Instant::now() < until {
            let stats = self.admin.stats("downstream_rq_active|wasmcustom.softprobe").await?;
            let active: u64 = stats
                .iter()
                .filter(|(n, _)| n.ends_with("downstream_rq_active") && !n.contains(".admin."))
                .map(|(_, v)| v)
                .sum();
            let of = |name: &str| stats.get(&format!("wasmcustom.{name}")).copied().unwrap_or(0);
            let dropped: u64 = stats.iter().filter(|(n, _)| n.contains("softprobe.dropped.")).map(|(_, v)| v).sum();
            let settled = of("softprobe.captured") == of("softprobe.exported") + dropped;
            // Counters are flushed on the filter's tick: believe them when they rest.
            quiet = if active == 0 && settled && of("softprobe.queued") == 0 { quiet + 1 } else { 0 };
            if quiet == 5 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        Ok(())
    }
}

impl Harness for Envoy {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    fn reload(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Vec<Proof>>> {
        Box::pin(self.replace(filters))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats>> {
        Box::pin(self.admin.stats(""))
    }

    fn proxies(&self) -> BoxFuture<'_, Result<Vec<ProxyStatus>>> {
        Box::pin(async {
            let ended = self.exited.borrow().clone();
            let name = format!("{}-{}", self.kind.name(), self.version);
            if let Some(status) = ended {
                return Ok(vec![ProxyStatus { name, state: format!("ended ({status})"), plugins: Vec::new() }]);
            }
            let current = self.current.lock().await;
            let has = |service: bool| current.iter().any(|p| (p.filter.role != Role::Filter) == service);
            let mut modules = BTreeMap::new();
            // Envoy answers 404 to a dump of nothing.
            if has(false) {
                modules.extend(self.admin.modules().await?);
            }
            if has(true) {
                modules.extend(self.admin.services().await?);
            }
            let mut plugins: Vec<ServedPlugin> = Vec::new();
            for (place, path) in modules {
                let known = current.iter().find(|p| p.filter.name == place);
                let (Some(known), Some(digest)) = (known, config::digest_of(&path)) else { continue };
                let plugin = known.filter.plugin.clone();
                let served = ServedPlugin { name: plugin, plugin_digest: digest.to_owned(), image_digest: None };
                if !plugins.contains(&served) {
                    plugins.push(served);
                }
            }
            Ok(vec![ProxyStatus { name, state: "serving".into(), plugins }])
        })
    }

    fn set_log_level(&self, level: Level) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.admin.set_log_level(level))
    }

    fn drain(&self, deadline: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.drained(deadline))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.runner.end(Duration::from_secs(3)).await;
        })
    }
}

/// Writes what Envoy reads at its start.
fn prepare(topology: &Topology, published: Option<&Published>, directory: &Path) -> Result<()> {
    for dir in [directory, &directory.join(config::ECDS)] {
        private_dir(dir).map_err(|source| Error::StateDir { path: dir.to_owned(), source })?;
    }
    for item in &topology.filters {
        match item.role {
            Role::Filter => reload::place(directory, item, config::FIRST)?,
            Role::Service | Role::Singleton => reload::place_module(directory, item, config::FIRST)?,
        };
    }
    let admin = published.map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), |published| {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, published.admin.port()))
    });
    write_private(&directory.join("bootstrap.yaml"), config::bootstrap(topology, admin, directory)?.as_bytes())
}

/// Arguments after the program's name, the same for a process and a container.
fn arguments(topology: &Topology, directory: &Path) -> Vec<String> {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut arguments =
        vec!["-c".to_owned(), path("bootstrap.yaml"), "--admin-address-path".into(), path("admin-address")];
    arguments
        .extend(["--use-dynamic-base-id", "--log-format", EnvoyLines::format(), "--log-level", "info"].map(Into::into));
    arguments.extend(["--component-log-level".into(), format!("wasm:{}", topology.log_level.name())]);
    arguments.extend(["--concurrency".into(), topology.workers.to_string(), "--drain-time-s".into(), "1".into()]);
    arguments
}

/// Turns Envoy's stderr into lines that know their plugin.
fn lines(kind: Kind, topology: &Topology) -> EnvoyLines {
    let plugins: Vec<_> =
        topology.filters.iter().map(|f| (f.seen_as.clone(), f.root_id.clone(), f.vm_id.clone())).collect();
    EnvoyLines::new(kind.name(), &plugins)
}
