//! Runs scenarios on harnesses, through the same seam that spctl uses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use spctl::harness::{
    Cluster, Direction, Embedded, Envoy, EnvoyBinary, Filter, Harness, Limits, Listener, Role, Topology, find_envoy,
};
use spctl::logs::{Level, Line, LogHub};

use super::format::{Plugin, Scenario};
use super::guests::{self, Guests};
use super::observe::Observed;
use super::servers::Server;
use super::{ask, compare};

/// No new line for so long: the scenario is over.
const QUIET: Duration = Duration::from_millis(150);
/// A scenario that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Runner {
    guests: Guests,
    envoys: Vec<EnvoyBinary>,
    runtime: tokio::runtime::Runtime,
    scratch: tempfile::TempDir,
}

impl Runner {
    pub fn new(guests: Guests, envoys: &[PathBuf]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let envoys = envoys.iter().map(|path| runtime.block_on(find_envoy(Some(path))).unwrap()).collect();
        Self { guests, envoys, runtime, scratch: tempfile::tempdir().unwrap() }
    }

    /// The releases compared with, as scenarios name them: `1.40`.
    pub fn versions(&self) -> Vec<String> {
        self.envoys.iter().map(release).collect()
    }

    /// It cannot run here.
    pub fn lacks_tools(&self, scenario: &Scenario) -> bool {
        scenario.plugins.iter().any(guests::lacks_go)
    }

    /// What is wrong with each, `at_once` of them under way.
    pub fn all<'a>(&self, scenarios: impl IntoIterator<Item = &'a Scenario>, at_once: usize) -> Vec<Vec<String>> {
        let judged = scenarios.into_iter().map(|scenario| self.judge(scenario));
        self.runtime.block_on(futures_util::stream::iter(judged).buffered(at_once).collect())
    }

    /// The scenario on the embedded host and on each Envoy.
    async fn judge(&self, scenario: &Scenario) -> Vec<String> {
        let embedded = self.run(scenario, None).await;
        let mut problems = Vec::new();
        for (n, binary) in self.envoys.iter().enumerate() {
            let envoy = self.run(scenario, Some(binary)).await;
            let version = release(binary);
            if n == 0 {
                let unmet = compare::unmet(&envoy, &scenario.expect);
                problems.extend(unmet.into_iter().map(|p| format!("Envoy {version}: {p}")));
            }
            problems.extend(compare::unexplained(scenario, &version, &envoy, &embedded));
        }
        if self.envoys.is_empty() && scenario.differs.is_empty() {
            problems.extend(compare::unmet(&embedded, &scenario.expect));
        }
        problems
    }

    async fn run(&self, scenario: &Scenario, envoy: Option<&EnvoyBinary>) -> Observed {
        let upstream = Server::start(scenario.upstream.clone()).await;
        let mut clusters = BTreeMap::new();
        for (name, answer) in &scenario.clusters {
            clusters.insert(name.clone(), Server::start(answer.clone()).await);
        }
        let logs = LogHub::default();
        let topology = self.topology(scenario, upstream.address, &clusters);
        let started: spctl::error::Result<Box<dyn Harness>> = match envoy {
            Some(binary) => {
                let directory = tempfile::tempdir_in(self.scratch.path()).unwrap().keep();
                let envoy = Envoy::start(binary.clone(), topology, directory, logs.clone()).await;
                envoy.map(|envoy| Box::new(envoy) as Box<dyn Harness>)
            }
            None => Embedded::start(topology, self.scratch.path().join("modules"), logs.clone())
                .await
                .map(|embedded| Box::new(embedded) as Box<dyn Harness>),
        };
        let mut observed = Observed::default();
        match started {
            Ok(harness) => {
                self.drive(scenario, harness.as_ref(), &logs, &mut observed).await;
                harness.stop().await;
            }
            Err(error) => {
                observed.refused = true;
                if !scenario.expect.refused {
                    eprintln!("{}: {error}: {:?}", scenario.name, error.causes());
                }
                settle(&logs, scenario.wait_for.as_deref()).await;
            }
        }
        observed.upstream = upstream.seen();
        observed.callouts = clusters.iter().map(|(name, server)| (name.clone(), server.seen())).collect();
        if observed.logs.is_empty() {
            observed.logs = plugin_lines(&logs);
        }
        observed.normalise(scenario.logs, scenario.together);
        observed
    }

    async fn drive(&self, scenario: &Scenario, harness: &dyn Harness, logs: &LogHub, observed: &mut Observed) {
        let proxy = harness.addresses().inbound.unwrap();
        observed.answers = ask::all(proxy, &scenario.requests, scenario.together).await;
        if let Some(reload) = &scenario.reload {
            settle(logs, None).await;
            for (n, plugin) in reload.plugins.iter().enumerate() {
                if let Err(error) = harness.reload(vec![self.filter(n, plugin)]).await {
                    observed.refused = true;
                    if !scenario.expect.refused {
                        eprintln!("{}: {error}: {:?}", scenario.name, error.causes());
                    }
                }
            }
            observed.answers.extend(ask::all(proxy, &reload.requests, false).await);
        }
        settle(logs, scenario.wait_for.as_deref()).await;
        let stats = harness.stats().await.unwrap_or_else(|error| {
            eprintln!("{}: {} died: {error}", scenario.name, harness.kind().name());
            BTreeMap::new()
        });
        // What a plugin says while its proxy ends is a race with that end.
        observed.logs = plugin_lines(logs);
        for (name, value) in stats {
            if let Some(name) = name.strip_prefix("wasmcustom.") {
                observed.metrics.insert(name.to_owned(), value);
            } else if scenario.stats.contains(&name) {
                observed.stats.insert(name, value);
            }
        }
    }

    fn topology(&self, scenario: &Scenario, upstream: SocketAddr, servers: &BTreeMap<String, Server>) -> Topology {
        let cluster = |name: &str, address: SocketAddr, http2: bool| Cluster {
            name: name.to_owned(),
            host: address.ip().to_string(),
            port: address.port(),
            tls: false,
            http2,
        };
        let mut clusters = vec![cluster("upstream", upstream, false)];
        let callouts = servers.iter().map(|(name, server)| (name, server, scenario.clusters[name].grpc.is_some()));
        clusters.extend(callouts.map(|(name, server, http2)| cluster(name, server.address, http2)));
        let filters: Vec<Filter> = scenario.plugins.iter().enumerate().map(|(n, p)| self.filter(n, p)).collect();
        Topology {
            trace: None,
            own: None,
            instance: "scenario".into(),
            listeners: vec![Listener {
                direction: Direction::Inbound,
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
                filters: filters.iter().filter(|f| f.role == Role::Filter).map(|f| f.name.clone()).collect(),
                cluster: "upstream".into(),
                rewrite_host: false,
                buffer_limit: scenario.buffer_limit,
            }],
            clusters,
            filters,
            workers: scenario.workers,
            log_level: Level::Info,
            limits: Limits::default(),
        }
    }

    /// The plugin in the place `n` of the chain.
    fn filter(&self, n: usize, plugin: &Plugin) -> Filter {
        let configuration = match &plugin.config {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        Filter {
            name: format!("filter-{n}"),
            role: plugin.role,
            plugin: plugin.name.clone(),
            seen_as: plugin.name.clone(),
            module: self.guests.of(plugin),
            configuration,
            vm_configuration: plugin.vm_config.clone().into_bytes(),
            allow_on_headers_stop_iteration: plugin.allow_on_headers_stop_iteration,
            root_id: plugin.root_id.clone(),
            vm_id: plugin.vm_id.clone(),
            failure_policy: plugin.fail_policy,
            environment: plugin.environment.clone(),
            capabilities: plugin.capabilities.clone(),
            generation: 0,
        }
    }
}

/// `1.40` of `1.40.0`.
fn release(binary: &EnvoyBinary) -> String {
    binary.version.rsplit_once('.').map_or_else(|| binary.version.clone(), |(release, _)| release.to_owned())
}

fn plugin_lines(logs: &LogHub) -> Vec<String> {
    logs.follow().0.iter().filter(|line| is_observed(line)).map(shown).collect()
}

/// Lines of plugins, and the proxy's word that one has trapped or asked for
/// what it may not have. Only some harnesses say whose a load failure is.
fn is_observed(line: &Line) -> bool {
    const SAID_BY_ALL: &[&str] = &["Function: ", "restricted proxy-wasm capability"];
    const SAID_BY_SOME: &[&str] = &["Wasm VM failed", "Plugin ", "Proxy-Wasm plugin in-VM backtrace"];
    SAID_BY_ALL.iter().any(|text| line.message.contains(text))
        || (line.plugin.is_some() && !SAID_BY_SOME.iter().any(|text| line.message.starts_with(text)))
}

fn shown(line: &Line) -> String {
    if line.level == Level::Info { line.message.clone() } else { format!("[{}] {}", line.level.name(), line.message) }
}

async fn settle(logs: &LogHub, wait_for: Option<&str>) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = usize::MAX;
    loop {
        let lines = logs.follow().0;
        let awaited = wait_for.is_none_or(|wanted| lines.iter().any(|line| line.message.contains(wanted)));
        if (awaited && lines.len() == before) || Instant::now() > deadline {
            return;
        }
        before = lines.len();
        tokio::time::sleep(QUIET).await;
    }
}
