//! Runs one scenario on one harness, through the same seam that spctl uses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use spctl::harness::{
    Cluster, Direction, Embedded, Envoy, EnvoyBinary, Filter, Harness, Limits, Listener, Topology, find_envoy,
};
use spctl::logs::{Level, Line, LogHub};

use super::format::{Plugin, Request, Scenario};
use super::guests::Guests;
use super::observe::{Answered, Observed};
use super::servers::{Server, expanded, paced, pairs};

/// No new line for so long: the scenario is over.
const QUIET: Duration = Duration::from_millis(150);
/// A scenario that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Runner {
    guests: Guests,
    binary: Option<EnvoyBinary>,
    runtime: tokio::runtime::Runtime,
    scratch: tempfile::TempDir,
}

impl Runner {
    pub fn new(guests: Guests, envoy: Option<&Path>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let binary = envoy.map(|path| runtime.block_on(find_envoy(Some(path))).unwrap());
        Self { guests, binary, runtime, scratch: tempfile::tempdir().unwrap() }
    }

    pub fn embedded(&self, scenario: &Scenario) -> Observed {
        self.runtime.block_on(self.run(scenario, false))
    }

    pub fn envoy(&self, scenario: &Scenario) -> Observed {
        self.runtime.block_on(self.run(scenario, true))
    }

    async fn run(&self, scenario: &Scenario, native: bool) -> Observed {
        let upstream = Server::start(scenario.upstream.clone()).await;
        let mut clusters = BTreeMap::new();
        for (name, answer) in &scenario.clusters {
            clusters.insert(name.clone(), Server::start(answer.clone()).await);
        }
        let logs = LogHub::default();
        let topology = self.topology(scenario, upstream.address, &clusters);
        let harness: Box<dyn Harness> = match &self.binary {
            Some(binary) if native => {
                let directory = tempfile::tempdir_in(self.scratch.path()).unwrap().keep();
                Box::new(
                    Envoy::start(binary.clone(), topology, directory, logs.clone())
                        .await
                        .unwrap_or_else(|e| fail(scenario, &e)),
                )
            }
            _ => Box::new(
                Embedded::start(topology, self.cache(), logs.clone()).await.unwrap_or_else(|e| fail(scenario, &e)),
            ),
        };
        let proxy = harness.addresses().inbound.unwrap();
        let mut answers = Vec::new();
        for request in &scenario.requests {
            answers.push(tokio::time::timeout(PATIENCE, ask(proxy, request)).await.unwrap_or_else(|_| hung()));
        }
        settle(&logs, scenario.wait_for.as_deref()).await;
        let stats = harness.stats().await.unwrap();
        let lines = logs.follow().0;
        harness.stop().await;
        drop(harness);
        let mut observed = Observed {
            answers,
            upstream: upstream.seen(),
            callouts: clusters.iter().map(|(name, server)| (name.clone(), server.seen())).collect(),
            logs: lines.iter().filter(|line| is_plugins(line)).map(shown).collect(),
            metrics: stats
                .into_iter()
                .filter_map(|(name, value)| Some((name.strip_prefix("wasmcustom.")?.to_owned(), value)))
                .collect(),
        };
        observed.normalise(scenario.logs);
        observed
    }

    fn cache(&self) -> PathBuf {
        self.scratch.path().join("modules")
    }

    fn topology(&self, scenario: &Scenario, upstream: SocketAddr, servers: &BTreeMap<String, Server>) -> Topology {
        let cluster = |name: &str, address: SocketAddr| Cluster {
            name: name.to_owned(),
            host: address.ip().to_string(),
            port: address.port(),
            tls: false,
        };
        let mut clusters = vec![cluster("upstream", upstream)];
        clusters.extend(servers.iter().map(|(name, server)| cluster(name, server.address)));
        let names = |n: usize, plugin: &Plugin| format!("{}-{n}", plugin.name);
        Topology {
            own: None,
            instance: "scenario".into(),
            listeners: vec![Listener {
                direction: Direction::Inbound,
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
                filters: scenario.plugins.iter().enumerate().map(|(n, p)| names(n, p)).collect(),
                cluster: "upstream".into(),
                rewrite_host: false,
                buffer_limit: scenario.buffer_limit,
            }],
            clusters,
            filters: scenario.plugins.iter().enumerate().map(|(n, p)| self.filter(names(n, p), p)).collect(),
            workers: 1,
            log_level: Level::Info,
            limits: Limits::default(),
        }
    }

    fn filter(&self, name: String, plugin: &Plugin) -> Filter {
        let configuration = match &plugin.config {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        Filter {
            name,
            plugin: plugin.name.clone(),
            seen_as: plugin.name.clone(),
            environment: Vec::new(),
            module: self.guests.module(&plugin.guest),
            configuration,
            vm_configuration: plugin.vm_config.clone().into_bytes(),
            allow_on_headers_stop_iteration: plugin.allow_on_headers_stop_iteration,
            root_id: plugin.root_id.clone(),
            vm_id: plugin.vm_id.clone(),
            failure_policy: plugin.fail_policy,
            generation: 0,
        }
    }
}

fn fail(scenario: &Scenario, error: &spctl::error::Error) -> ! {
    panic!("{}: {error}: {:?}", scenario.name, error.causes())
}

/// Lines of plugins, and the proxy's word that one has trapped.
fn is_plugins(line: &Line) -> bool {
    line.message.contains("Function: ")
        || (line.plugin.is_some() && !line.message.starts_with("Proxy-Wasm plugin in-VM backtrace"))
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

fn hung() -> Answered {
    Answered {
        status: 0,
        headers: Vec::new(),
        body: "<no answer in time>".into(),
        trailers: Vec::new(),
        complete: false,
    }
}

fn nothing() -> Answered {
    Answered { status: 0, headers: Vec::new(), body: String::new(), trailers: Vec::new(), complete: false }
}

async fn ask(proxy: SocketAddr, request: &Request) -> Answered {
    let stream = tokio::net::TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut message = hyper::Request::builder().method(request.method.as_str()).uri(&request.path);
    if !request.headers.iter().any(|(name, _)| name == "host") {
        message = message.header("host", "scenario.test");
    }
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    let mut frames: Vec<Result<Frame<Bytes>, std::convert::Infallible>> =
        request.body.iter().map(|chunk| Ok(Frame::data(Bytes::from(expanded(chunk))))).collect();
    if request.sized {
        message = message.header("content-length", request.body.iter().map(|c| expanded(c).len()).sum::<usize>());
    }
    if !request.trailers.is_empty() {
        let mut trailers = http::HeaderMap::new();
        for (name, value) in &request.trailers {
            trailers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let names: Vec<&str> = request.trailers.iter().map(|(n, _)| n.as_str()).collect();
        message = message.header("trailer", names.join(", "));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let body = if frames.is_empty() {
        http_body_util::Empty::<Bytes>::new().boxed_unsync()
    } else {
        paced(frames).boxed_unsync()
    };
    match sender.send_request(message.body(body).unwrap()).await {
        Ok(response) => read(response).await,
        Err(_) => nothing(),
    }
}

async fn read(response: hyper::Response<hyper::body::Incoming>) -> Answered {
    let (head, mut body) = response.into_parts();
    let mut answered = Answered { status: head.status.as_u16(), headers: pairs(&head.headers), ..nothing() };
    let mut bytes = Vec::new();
    answered.complete = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_data() => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Ok(frame) => answered.trailers = pairs(&frame.into_trailers().unwrap()),
            Err(_) => {
                answered.complete = false;
                break;
            }
        }
    }
    answered.body = String::from_utf8_lossy(&bytes).into_owned();
    answered
}
