//! A native Envoy: found, checked, started with a rendered bootstrap, watched,
//! reloaded through ECDS files, and taken down again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};

use super::envoy_admin::{Admin, Discovery};
use super::envoy_binary::Binary;
use super::envoy_config::{bootstrap, filter, module_name};
use super::{Addresses, Direction, Filter, Harness, Kind, Level, Proof, ProxyStatus, Stats, Topology};
use crate::error::{Error, Result};
use crate::logs::{EnvoyLines, LogHub};
use crate::state::{private_dir, write_private};

/// Envoy answers `LIVE` in well under a second; a loaded machine gets more.
const START: Duration = Duration::from_secs(30);
/// A file change is seen at once; compiling a module in V8 takes the time.
const RELOAD: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// A line may be followed by its continuation; after this it will not be.
const LINE_PAUSE: Duration = Duration::from_millis(30);

/// A running Envoy.
pub struct Envoy {
    pid: u32,
    version: String,
    admin: Admin,
    addresses: Addresses,
    directory: PathBuf,
    logs: LogHub,
    current: Mutex<Vec<Placed>>,
    version_counter: AtomicU64,
    /// The exit status, once it has ended.
    exited: watch::Receiver<Option<String>>,
}

/// A filter and the number of the writing that Envoy serves.
struct Placed {
    filter: Filter,
    version: u64,
}

impl Envoy {
    /// Starts Envoy in `directory` and waits until it serves every filter.
    pub async fn start(binary: Binary, topology: Topology, directory: PathBuf, logs: LogHub) -> Result<Self> {
        let ecds = directory.join("ecds");
        for dir in [&directory, &ecds] {
            private_dir(dir).map_err(|source| Error::StateDir { path: dir.clone(), source })?;
        }
        for item in &topology.filters {
            place(&directory, item, 1)?;
        }
        write_private(&directory.join("bootstrap.yaml"), bootstrap(&topology, &ecds)?.as_bytes())?;
        let admin_file = directory.join("admin-address");
        let mut child = Command::new(&binary.path)
            .arg("-c")
            .arg(directory.join("bootstrap.yaml"))
            .arg("--admin-address-path")
            .arg(&admin_file)
            .args(["--use-dynamic-base-id", "--log-format", EnvoyLines::format(), "--log-level", "info"])
            .args(["--component-log-level", &format!("wasm:{}", topology.log_level.name())])
            .args(["--concurrency", &topology.workers.to_string(), "--drain-time-s", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|e| Error::EnvoyUnfit { path: binary.path.clone(), reason: format!("it does not start: {e}") })?;
        let plugins: Vec<_> =
            topology.filters.iter().map(|f| (f.plugin.clone(), f.root_id.clone(), f.vm_id.clone())).collect();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(read_log(stderr, EnvoyLines::new("envoy", &plugins), logs.clone()));
        }
        let pid = child.id().unwrap_or_default();
        let exited = watch_exit(child, logs.clone());
        let starting = Starting { topology: &topology, admin_file: &admin_file, logs: &logs, exited: &exited };
        let (admin, addresses) = match starting.wait().await {
            Ok(up) => up,
            Err(error) => {
                end(pid, &exited, Duration::ZERO).await;
                return Err(error);
            }
        };
        Ok(Self {
            pid,
            version: binary.version,
            admin,
            addresses,
            directory,
            logs,
            current: Mutex::new(topology.filters.into_iter().map(|filter| Placed { filter, version: 1 }).collect()),
            version_counter: AtomicU64::new(1),
            exited,
        })
    }

    /// The process, for whoever has to clean up after a crash.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What identifies this Envoy's command line, for the same.
    pub fn marker(&self) -> String {
        self.directory.display().to_string()
    }

    async fn replace(&self, filters: Vec<Filter>) -> Result<Vec<Proof>> {
        let mut current = self.current.lock().await;
        let version = self.next_version();
        let mut before = Vec::new();
        for item in &filters {
            before.push(self.admin.discovery(&item.name).await?);
        }
        for item in &filters {
            place(&self.directory, item, version)?;
        }
        for (item, before) in filters.iter().zip(&before) {
            if let Err(error) = self.applied(item, version, *before).await {
                let restored = self.next_version();
                for old in current.iter_mut().filter(|old| filters.iter().any(|new| new.name == old.filter.name)) {
                    place(&self.directory, &old.filter, restored)?;
                    old.version = restored;
                }
                return Err(error);
            }
        }
        let proofs = filters.first().map(|item| Proof {
            name: "envoy".into(),
            plugin_digest: item.module.digest.clone(),
            image_digest: None,
            proof: format!("/config_dump names {} and config_reload counted it", module_name(item, version)),
        });
        for item in filters {
            if let Some(slot) = current.iter_mut().find(|old| old.filter.name == item.name) {
                let old = std::mem::replace(slot, Placed { filter: item, version });
                // Envoy has read it long ago; a left-over file only costs space.
                let _ = std::fs::remove_file(self.directory.join(module_name(&old.filter, old.version)));
            }
        }
        Ok(proofs.into_iter().collect())
    }

    fn next_version(&self) -> u64 {
        self.version_counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until the proxy itself says that it serves `item`.
    async fn applied(&self, item: &Filter, version: u64, before: Discovery) -> Result<()> {
        let wanted = module_name(item, version);
        let deadline = Instant::now() + RELOAD;
        loop {
            if let Some(status) = self.exited.borrow().clone() {
                return Err(self.failed(format!("Envoy ended during the reload ({status})")));
            }
            let discovery = self.admin.discovery(&item.name).await?;
            let shown = self.admin.modules().await?.get(&item.name).is_some_and(|path| path.ends_with(&wanted));
            if discovery.reloads > before.reloads && shown {
                return Ok(());
            }
            if discovery.failures > before.failures {
                return Err(self
                    .failed(format!("Envoy refused the new configuration of `{}`; the old one serves", item.plugin)));
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!(
                    "Envoy did not take up the new `{}` within {} s; the old one serves",
                    item.plugin,
                    RELOAD.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn failed(&self, reason: String) -> Error {
        Error::Harness { harness: "envoy", reason, log: self.logs.last_problems(6) }
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
        Kind::Envoy
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
            let name = format!("envoy-{}", self.version);
            if let Some(status) = ended {
                return Ok(vec![ProxyStatus { name, state: format!("ended ({status})"), plugins: Vec::new() }]);
            }
            let current = self.current.lock().await;
            let plugins = self
                .admin
                .served(|filter| current.iter().find(|p| p.filter.name == filter).map(|p| p.filter.plugin.clone()))
                .await?;
            Ok(vec![ProxyStatus { name, state: "serving".into(), plugins }])
        })
    }

    fn set_log_level(&self, level: Level) -> BoxFuture<'_, Result<Level>> {
        Box::pin(self.admin.set_log_level(level))
    }

    fn drain(&self, deadline: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.drained(deadline))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            end(self.pid, &self.exited, Duration::from_secs(3)).await;
        })
    }
}

/// What is waited for until Envoy serves.
struct Starting<'a> {
    topology: &'a Topology,
    admin_file: &'a Path,
    logs: &'a LogHub,
    exited: &'a watch::Receiver<Option<String>>,
}

impl Starting<'_> {
    async fn wait(&self) -> Result<(Admin, Addresses)> {
        let deadline = Instant::now() + START;
        let mut admin = None;
        loop {
            if let Some(status) = self.exited.borrow().clone() {
                return Err(self.why_ended(&status).await);
            }
            if admin.is_none() {
                let text = std::fs::read_to_string(self.admin_file).unwrap_or_default();
                admin = text.trim().parse::<SocketAddr>().ok().map(Admin);
            }
            if let Some(admin) = admin
                && admin.ready().await
            {
                self.listeners_listen(admin).await?;
                self.filters_serve(admin).await?;
                return Ok((admin, self.addresses(admin).await?));
            }
            if let Some(admin) = admin {
                self.listeners_listen(admin).await.or_else(|error| match error {
                    // It may not answer yet.
                    Error::Harness { .. } => Ok(()),
                    other => Err(other),
                })?;
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("Envoy was not ready within {} s", START.as_secs())));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Two processes may bind a port at the same moment; the second fails only
    /// when its workers listen.
    async fn listeners_listen(&self, admin: Admin) -> Result<()> {
        let failed = admin.stats("listener_manager.listener_create_failure").await?;
        match self.topology.listeners.first() {
            Some(first) if failed.values().any(|count| *count > 0) => {
                Err(Error::PortInUse { address: first.address.to_string(), flag: "--listen" })
            }
            _ => Ok(()),
        }
    }

    /// Ready listeners may still lack a filter whose first config was refused.
    async fn filters_serve(&self, admin: Admin) -> Result<()> {
        for filter in &self.topology.filters {
            if admin.discovery(&filter.name).await?.failures > 0 {
                return Err(self.failed(format!("Envoy refused the plugin `{}`", filter.plugin)));
            }
        }
        Ok(())
    }

    async fn addresses(&self, admin: Admin) -> Result<Addresses> {
        let listeners = admin.listeners().await?;
        let of = |direction: Direction| listeners.get(direction.name()).copied();
        Ok(Addresses { inbound: of(Direction::Inbound), outbound: of(Direction::Outbound), admin: Some(admin.0) })
    }

    async fn why_ended(&self, status: &str) -> Error {
        // Its last lines are still on their way through the pipe.
        tokio::time::sleep(LINE_PAUSE * 4).await;
        let log = self.logs.last_problems(6);
        for listener in &self.topology.listeners {
            let address = listener.address.to_string();
            if log.iter().any(|line| line.contains("cannot bind") && line.contains(&address)) {
                return Error::PortInUse { address, flag: "--listen" };
            }
        }
        Error::Harness { harness: "envoy", reason: format!("Envoy ended while starting ({status})"), log }
    }

    fn failed(&self, reason: String) -> Error {
        Error::Harness { harness: "envoy", reason, log: self.logs.last_problems(6) }
    }
}

/// Writes module and ECDS file, the module first; each appears whole.
fn place(directory: &Path, item: &Filter, version: u64) -> Result<()> {
    let module = directory.join(module_name(item, version));
    if !module.exists() {
        write_private(&module, &item.module.bytes)?;
    }
    let file = directory.join("ecds").join(format!("{}.yaml", item.name));
    write_private(&file, filter(item, &module, version)?.as_bytes())
}

async fn read_log(stderr: impl AsyncRead + Unpin, mut lines: EnvoyLines, logs: LogHub) {
    let mut reader = BufReader::new(stderr);
    let mut raw = Vec::new();
    loop {
        let next = tokio::time::timeout(LINE_PAUSE, reader.read_until(b'\n', &mut raw)).await;
        match next {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {
                let text = String::from_utf8_lossy(&raw);
                let done = lines.feed(text.trim_end_matches(['\r', '\n']));
                raw.clear();
                if let Some(line) = done {
                    logs.push(line);
                }
            }
            // A partial read stays in `raw`; what is complete is let go.
            Err(_) => {
                if let Some(line) = lines.flush() {
                    logs.push(line);
                }
            }
        }
    }
    if let Some(line) = lines.flush() {
        logs.push(line);
    }
}

fn watch_exit(mut child: Child, logs: LogHub) -> watch::Receiver<Option<String>> {
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        let status = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        };
        logs.own(Level::Info, format!("envoy has ended: {status}"));
        let _ = tx.send(Some(status));
    });
    rx
}

/// SIGTERM, and SIGKILL when that does not help within `grace`.
async fn end(pid: u32, exited: &watch::Receiver<Option<String>>, grace: Duration) {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let mut exited = exited.clone();
    for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(5))] {
        if exited.borrow().is_some() {
            return;
        }
        // It may end at this very moment.
        let _ = kill_process(pid, signal);
        if tokio::time::timeout(wait, exited.wait_for(Option::is_some)).await.is_ok() {
            return;
        }
    }
}
