//! The embedded proxy behind the seam: topology in, values out. The only
//! module that translates `spctl_proxy` types.

mod metadata;
mod own;
mod reader;
mod routes;
mod trace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use spctl_proxy::{
    FilterError, FilterSpec, HostRewrite, Proxy, ProxyConfig, ReloadError, Route, StartError, Threads, UpstreamTls,
};

use super::{
    Addresses, Cluster, Direction, FailurePolicy, Filter, Harness, Kind, Level, Own, Proof, ProxyStatus, Role,
    ServedPlugin, Stats, Topology,
};
use crate::error::{Error, PluginProblem, Result};
use crate::logs::{Line, LogHub};

/// Filter name → plugin name, for each filter.
type Names = Vec<(String, String)>;

/// A running embedded proxy.
pub struct Embedded {
    proxy: Arc<Proxy>,
    addresses: Addresses,
    /// Filter name → plugin name.
    plugins: Names,
    current: Arc<Mutex<Vec<FilterSpec>>>,
    teller: Option<trace::Teller>,
}

impl Embedded {
    /// Loads, configures and starts serving; compiled modules are kept in `cache`.
    pub async fn start(mut topology: Topology, cache: PathBuf, logs: LogHub) -> Result<Self> {
        let plugins: Names = topology.filters.iter().map(|f| (f.name.clone(), f.plugin.clone())).collect();
        let traced = topology.trace.take().map(trace::start).transpose()?;
        let mut config = config(topology, cache, logs)?;
        let (sink, teller) = traced.unzip();
        config.trace = sink;
        let first = config.listeners.first().map(|listener| listener.name.clone());
        let current = Arc::new(Mutex::new(config.filters.clone()));
        let proxy = blocking(move || Proxy::start(config)).await?.map_err(|e| start_error(e, &plugins))?;
        let mut addresses = Addresses { admin: proxy.admin_address(), ..Addresses::default() };
        for (name, address) in proxy.addresses() {
            // Of a user's own listeners the first is the one to tell of.
            if name == Direction::Outbound.name() {
                addresses.outbound = Some(address);
            } else if Some(name) == first {
                addresses.inbound = Some(address);
            }
        }
        Ok(Self { proxy: Arc::new(proxy), addresses, plugins, current, teller })
    }

    /// Loads and configures filters off to the side, serving nothing: what
    /// another harness does before anything live changes.
    pub async fn check(filters: Vec<Filter>, like: &Topology, cache: PathBuf, logs: LogHub) -> Result<()> {
        let mut aside = Topology { filters, listeners: Vec::new(), own: None, workers: 1, trace: None, ..like.clone() };
        // A plugin that calls out as it starts finds the user's clusters, and nobody there.
        let theirs = like.own.iter().flat_map(|own| own.cluster_names());
        aside.clusters.extend(theirs.map(|name| Cluster {
            name,
            host: "127.0.0.1".into(),
            port: 9,
            tls: false,
            http2: false,
        }));
        Self::start(aside, cache, logs).await.map(|_| ())
    }

    /// Keys of a user's bootstrap that do nothing on this harness.
    pub fn unheeded(own: &Own) -> Vec<String> {
        own::read(&own.document).map(|read| read.unheeded).unwrap_or_default()
    }

    fn plugin_of(&self, filter: &str) -> String {
        plugin_of(&self.plugins, filter)
    }
}

impl Harness for Embedded {
    fn kind(&self) -> Kind {
        Kind::Embedded
    }

    fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    fn reload(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Vec<Proof>>> {
        Box::pin(async move {
            let proxy = self.proxy.clone();
            let digest = filters.first().map(|f| f.module.digest.clone()).unwrap_or_default();
            let names: Vec<String> = filters.iter().map(|f| f.name.clone()).collect();
            let current = self.current.clone();
            let specs = filters.into_iter().map(spec).collect();
            blocking(move || replace_all(&proxy, &current, specs))
                .await?
                .map_err(|e| reload_error(e, &self.plugins))?;
            let served = self.proxy.served_digests();
            let serving: Vec<_> = served.iter().filter(|s| names.contains(&s.filter) && s.digest == digest).collect();
            let proof = match serving.as_slice() {
                [only] if only.worker.is_none() => "the main thread runs it".to_owned(),
                all => format!("{} workers serve it", all.len() / names.len().max(1)),
            };
            Ok(vec![Proof { name: "embedded".into(), plugin_digest: digest, image_digest: None, proof }])
        })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats>> {
        Box::pin(async {
            let numbers = self.proxy.stats().into_iter().filter_map(|stat| match stat.value {
                spctl_host::StatValue::Counter(n) | spctl_host::StatValue::Gauge(n) => Some((stat.name, n)),
                spctl_host::StatValue::Histogram(_) => None,
            });
            Ok(numbers.collect())
        })
    }

    fn proxies(&self) -> BoxFuture<'_, Result<Vec<ProxyStatus>>> {
        Box::pin(async {
            let mut plugins: Vec<ServedPlugin> = Vec::new();
            let mut state = "serving".to_owned();
            for served in self.proxy.served_digests() {
                if served.state == spctl_proxy::ServedState::Failed {
                    let thread = served.worker.map_or("the main thread".into(), |worker| format!("worker {worker}"));
                    state = format!("`{}` failed on {thread}", self.plugin_of(&served.filter));
                }
                let plugin = ServedPlugin {
                    name: self.plugin_of(&served.filter),
                    plugin_digest: served.digest,
                    image_digest: None,
                };
                if !plugins.contains(&plugin) {
                    plugins.push(plugin);
                }
            }
            Ok(vec![ProxyStatus { name: "embedded".into(), state, plugins }])
        })
    }

    fn set_log_level(&self, level: Level) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.proxy.set_log_level(to_host(level));
            Ok(())
        })
    }

    fn drain(&self, deadline: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let proxy = self.proxy.clone();
            blocking(move || proxy.drain(deadline)).await.map(|_| ())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        // Draining has ended every stream and root; dropping the proxy ends its threads.
        Box::pin(async {
            if let Some(teller) = &self.teller {
                teller.finish().await;
            }
        })
    }
}

/// Reloads one filter after the other; when one is refused, those before it
/// go back to what they were.
fn replace_all(
    proxy: &Proxy,
    current: &Mutex<Vec<FilterSpec>>,
    new: Vec<FilterSpec>,
) -> std::result::Result<(), ReloadError> {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    let mut replaced: Vec<FilterSpec> = Vec::new();
    for spec in &new {
        if let Err(error) = proxy.reload(spec.clone()) {
            for old in replaced {
                proxy.reload(old)?;
            }
            return Err(error);
        }
        replaced.extend(current.iter().find(|old| old.name == spec.name).cloned());
    }
    for spec in new {
        if let Some(slot) = current.iter_mut().find(|old| old.name == spec.name) {
            *slot = spec;
        }
    }
    Ok(())
}

fn config(topology: Topology, cache: PathBuf, logs: LogHub) -> Result<ProxyConfig> {
    let sink = Arc::new(move |line: &spctl_host::LogLine| logs.push(to_line(line)));
    let mut config = ProxyConfig::new(sink);
    config.workers = topology.workers;
    config.node.id = format!("spctl-{}", topology.instance);
    config.node.cluster = "spctl".into();
    config.limits = spctl_host::Limits {
        memory: topology.limits.memory_bytes,
        deadline: Duration::from_millis(topology.limits.deadline_ms),
    };
    if !topology.listeners.is_empty() {
        config.admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    }
    config.module_cache = Some(cache);
    config.log_level = to_host(topology.log_level);
    config.filters = topology.filters.into_iter().map(spec).collect();
    config.clusters = topology
        .clusters
        .into_iter()
        .map(|cluster| {
            let mut out = spctl_proxy::Cluster::new(cluster.name, vec![authority(&cluster.host, cluster.port)]);
            out.tls = cluster.tls.then(UpstreamTls::default);
            out.enable_trailers = true;
            if cluster.http2 {
                out.protocol = spctl_proxy::UpstreamProtocol::Http2;
            }
            out
        })
        .collect();
    config.listeners = topology
        .listeners
        .into_iter()
        .map(|listener| {
            let mut route = Route::new("/", listener.cluster);
            // As in templates/envoy/bootstrap.yaml.
            route.timeout = Duration::ZERO;
            if listener.rewrite_host {
                route.host_rewrite = HostRewrite::Auto;
            }
            let mut out = spctl_proxy::Listener::new(listener.direction.name(), listener.address, vec![route]);
            out.direction = match listener.direction {
                Direction::Inbound => spctl_host::Direction::Inbound,
                Direction::Outbound => spctl_host::Direction::Outbound,
            };
            out.filters = listener.filters;
            out.enable_trailers = true;
            out.upgrades = vec!["websocket".into()];
            out.stream_idle_timeout = Duration::ZERO;
            if let Some(limit) = listener.buffer_limit {
                out.buffer_limit = limit as usize;
            }
            out
        })
        .collect();
    if let Some(own) = topology.own {
        let read = own::read(&own.document).map_err(|(key, reason)| Error::ConfigRejected {
            place: "your bootstrap".into(),
            key,
            reason,
        })?;
        config.listeners.extend(read.listeners);
        let ours = std::mem::replace(&mut config.clusters, read.clusters);
        let missing = ours.into_iter().filter(|our| !config.clusters.iter().any(|c| c.name == our.name));
        let missing: Vec<_> = missing.collect();
        config.clusters.extend(missing);
        config.admin = read.admin.or(config.admin);
        if let Some(node) = read.node {
            // What the user left out of it is ours, as on Envoy.
            let ours = std::mem::replace(&mut config.node, node);
            for (given, default) in [(&mut config.node.id, ours.id), (&mut config.node.cluster, ours.cluster)] {
                if given.is_empty() {
                    *given = default;
                }
            }
        }
    }
    Ok(config)
}

/// `host:port`, with brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn spec(filter: Filter) -> FilterSpec {
    FilterSpec {
        name: filter.name,
        threads: match filter.role {
            Role::Filter | Role::Service => Threads::All,
            Role::Singleton => Threads::Main,
        },
        wasm: filter.module.bytes,
        plugin: spctl_host::PluginConfig {
            name: filter.seen_as,
            root_id: filter.root_id,
            vm_id: filter.vm_id,
            configuration: filter.configuration.into(),
            vm_configuration: filter.vm_configuration.into(),
            allow_on_headers_stop_iteration: filter.allow_on_headers_stop_iteration,
            environment: [("SPCTL_GENERATION".into(), filter.generation.to_string())]
                .into_iter()
                .chain(filter.environment)
                .collect(),
            allowed_capabilities: filter.capabilities,
            failure_policy: match filter.failure_policy {
                FailurePolicy::FailClosed => spctl_host::FailurePolicy::FailClosed,
                FailurePolicy::FailOpen => spctl_host::FailurePolicy::FailOpen,
                FailurePolicy::FailReload => spctl_host::FailurePolicy::FailReload,
                FailurePolicy::LegacyFailOpen => spctl_host::FailurePolicy::LegacyFailOpen,
            },
            ..Default::default()
        },
    }
}

fn start_error(error: StartError, names: &Names) -> Error {
    match error {
        StartError::PortInUse { address, .. } => Error::PortInUse { address: address.to_string(), flag: "--listen" },
        StartError::Filter(error) => filter_error(error, names),
        other => Error::Harness { harness: "embedded", reason: other.to_string(), log: Vec::new() },
    }
}

fn reload_error(error: ReloadError, names: &Names) -> Error {
    match error {
        ReloadError::Filter(error) => filter_error(error, names),
        other => Error::Harness { harness: "embedded", reason: other.to_string(), log: Vec::new() },
    }
}

fn plugin_of(names: &Names, filter: &str) -> String {
    names.iter().find(|(name, _)| name == filter).map_or_else(|| filter.to_owned(), |(_, plugin)| plugin.clone())
}

/// A plugin's failure to load, as a situation with its own last lines.
fn filter_error(error: FilterError, names: &Names) -> Error {
    use spctl_host::LoadError as Load;
    let problem = match &error.error {
        Load::NotWasm | Load::Component => PluginProblem::NotWasm,
        Load::Truncated { .. } | Load::Corrupt(_) | Load::Engine(_) => PluginProblem::Corrupt,
        Load::NoAbi => PluginProblem::NoAbi,
        Load::NetworkPlugin { .. } => PluginProblem::Network,
        Load::UnknownImports(_) => PluginProblem::UnknownImports,
        Load::BadSignatures(_) | Load::NoAllocator | Load::NoMemory => PluginProblem::MissingExport,
        Load::Trapped { .. } => PluginProblem::StartTrap,
        Load::Deadline { .. } => PluginProblem::Deadline,
        Load::RefusedToStart | Load::RefusedToConfigure => PluginProblem::Refused,
    };
    let log = error.log.iter().map(|line| format!("{} {}", line.level.name(), line.message)).collect();
    Error::Plugin { plugin: plugin_of(names, &error.filter), problem, reason: error.error.to_string(), log }
}

fn to_line(line: &spctl_host::LogLine) -> Line {
    let nanos = line.time.duration_since(UNIX_EPOCH).map_or(0, |d| i128::try_from(d.as_nanos()).unwrap_or(0));
    Line {
        time: jiff::Timestamp::from_nanosecond(nanos).unwrap_or_default().to_string(),
        source: "embedded".into(),
        level: from_host(line.level),
        message: line.message.clone(),
        plugin: Some(line.origin.plugin.clone()).filter(|name| !name.is_empty()),
    }
}

fn to_host(level: Level) -> spctl_host::Level {
    match level {
        Level::Trace => spctl_host::Level::Trace,
        Level::Debug => spctl_host::Level::Debug,
        Level::Info => spctl_host::Level::Info,
        Level::Warning => spctl_host::Level::Warn,
        Level::Error => spctl_host::Level::Error,
        Level::Critical => spctl_host::Level::Critical,
        Level::Off => spctl_host::Level::Off,
    }
}

fn from_host(level: spctl_host::Level) -> Level {
    match level {
        spctl_host::Level::Trace => Level::Trace,
        spctl_host::Level::Debug => Level::Debug,
        spctl_host::Level::Info => Level::Info,
        spctl_host::Level::Warn => Level::Warning,
        spctl_host::Level::Error => Level::Error,
        spctl_host::Level::Critical => Level::Critical,
        spctl_host::Level::Off => Level::Off,
    }
}

/// The proxy's calls block until its workers have answered.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Harness {
        harness: "embedded",
        reason: e.to_string(),
        log: Vec::new(),
    })
}
