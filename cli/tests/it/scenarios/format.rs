//! The scenario format: plugins, requests with a chunking plan, what upstream
//! and callout clusters answer, and what must come of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// The releases of Envoy that scenarios are compared with, newest first.
pub const VERSIONS: &[&str] = &["1.40", "1.39", "1.37"];

/// One file of `testdata/scenarios`: several scenarios of one subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub scenarios: Vec<Scenario>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// In chain order.
    pub plugins: Vec<Plugin>,
    /// Worker threads.
    #[serde(default = "one")]
    pub workers: usize,
    #[serde(default)]
    pub requests: Vec<Request>,
    /// The requests are under way at once, each begun a little after the last.
    #[serde(default)]
    pub together: bool,
    /// What takes the place of plugins once the requests are answered.
    pub reload: Option<Reload>,
    #[serde(default)]
    pub upstream: Answer,
    /// What named clusters answer to callouts.
    #[serde(default)]
    pub clusters: BTreeMap<String, Answer>,
    /// Bytes that filters may hold back.
    pub buffer_limit: Option<u32>,
    /// The order of log lines of several VMs or streams is nobody's promise.
    #[serde(default)]
    pub logs: LogOrder,
    /// Do not stop looking before a plugin has logged this.
    pub wait_for: Option<String>,
    /// Statistics of the proxy to compare, besides the plugins' own.
    #[serde(default)]
    pub stats: Vec<String>,
    /// Where an Envoy differs from the embedded host, by `envoy-<release>`, or
    /// `envoy` for all: documented, counted, and an error once it no longer does.
    #[serde(default)]
    pub differs: BTreeMap<String, Difference>,
    pub expect: Expect,
}

impl Scenario {
    /// What is documented of this release (`1.40`).
    pub fn difference(&self, version: &str) -> Option<&Difference> {
        self.differs.get(&format!("envoy-{version}")).or_else(|| self.differs.get("envoy"))
    }
}

/// A documented difference.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub why: String,
    /// By path (`answers[0].status`, `logs`): part of what that Envoy shows
    /// there. Everything else must be equal.
    pub shows: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogOrder {
    #[default]
    Ordered,
    /// As a set: how often a timer fires is a race.
    Unique,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// A crate or Go module of `testdata/guests`.
    #[serde(default)]
    pub guest: String,
    /// Instead of `guest`: a module in WebAssembly text.
    pub wat: Option<String>,
    #[serde(default = "default_name")]
    pub name: String,
    /// A `service` or `singleton` stands in no chain.
    #[serde(default)]
    pub role: spctl::harness::Role,
    /// An object is passed as JSON, a string as it is.
    #[serde(default)]
    pub config: Value,
    #[serde(default)]
    pub vm_config: String,
    #[serde(default)]
    pub root_id: String,
    #[serde(default = "default_name")]
    pub vm_id: String,
    #[serde(default = "fail_closed")]
    pub fail_policy: spctl::harness::FailurePolicy,
    #[serde(default)]
    pub allow_on_headers_stop_iteration: bool,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The only ABI functions the plugin may use; none named: all.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

fn one() -> usize {
    1
}

fn default_name() -> String {
    "guest".to_owned()
}

fn fail_closed() -> spctl::harness::FailurePolicy {
    spctl::harness::FailurePolicy::FailClosed
}

/// New plugins in the old ones' places, and what is asked of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    pub plugins: Vec<Plugin>,
    #[serde(default)]
    pub requests: Vec<Request>,
}

type Headers = Vec<(String, String)>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default)]
    pub headers: Headers,
    /// Chunks, each on the wire before the next is written.
    #[serde(default)]
    pub body: Vec<String>,
    #[serde(default)]
    pub trailers: Headers,
    /// Send `content-length` instead of chunks with trailers.
    #[serde(default)]
    pub sized: bool,
    /// Wait before this one.
    #[serde(default)]
    pub after_ms: u64,
    /// Where the client goes away.
    pub cut: Option<Cut>,
    /// Exactly these bytes instead of all the above.
    pub raw: Option<String>,
}

/// Where a client goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Behind the last chunk of its body, which is not the end.
    InBody,
    /// While it waits for the response.
    Waiting,
    /// With the first bytes of the response's body.
    InResponse,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// What a server answers to every request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<String>,
    pub trailers: Headers,
    pub delay_ms: u64,
    /// Close the connection: before the answer, or after its first chunk.
    pub reset: Reset,
    /// Nobody listens.
    pub down: bool,
    /// Speak HTTP/2 and answer with these messages, each framed; `status` and
    /// `trailers` say how it ends.
    pub grpc: Option<Vec<String>>,
    /// End without waiting for the client's end.
    pub early: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    #[default]
    Never,
    BeforeHeaders,
    InBody,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: vec!["upstream body".to_owned()],
            trailers: Vec::new(),
            delay_ms: 0,
            reset: Reset::Never,
            down: false,
            grpc: None,
            early: false,
        }
    }
}

/// What Envoy itself must show, so that a scenario means something.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The plugin is not taken at all.
    pub refused: bool,
    /// One for each request; 0: no response.
    pub status: Vec<u16>,
    /// Body of the first response.
    pub body: Option<String>,
    /// Each is part of some log line, in this order.
    pub logs: Vec<String>,
    /// Requests that reached the upstream.
    pub upstream: Option<usize>,
    /// Body that reached the upstream first.
    pub upstream_body: Option<String>,
    pub metrics: BTreeMap<String, u64>,
    /// Callouts that reached their clusters.
    pub callouts: Option<usize>,
}

/// All scenarios, with their file's name.
pub fn load(dir: &Path) -> Vec<(String, Scenario)> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(path).unwrap();
        let file: File = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        all.extend(file.scenarios.into_iter().map(|scenario| (stem.clone(), scenario)));
    }
    all
}
