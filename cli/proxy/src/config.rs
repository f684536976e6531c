//! What a proxy is made of: listeners, routes, clusters, filters.
//!
//! Plain values with Envoy's defaults. Nothing here is checked; [`crate::Proxy::start`]
//! is what refuses.

mod cluster;
mod listener;
mod matching;
mod retry;
mod route;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use spctl_host::trace::Sink;
use spctl_host::{Level, Limits, LogSink, Node, PluginConfig};

pub use cluster::{Cluster, UpstreamProtocol, UpstreamTls};
pub use listener::{Codec, DownstreamTls, EscapedSlashes, Listener, PathRules, ServerHeader};
pub use matching::{HeaderMatch, QueryMatch, RouteMatch, TextMatch};
pub use retry::{RetryOn, RetryPolicy};
pub use route::{
    Answer, HeaderAction, HeaderChanges, HeaderToAdd, HostRewrite, PathRewrite, Redirect, Route, RouteUpgrade,
    VirtualHost,
};

/// A whole proxy.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Worker threads (`--concurrency`); 0 counts as 1.
    pub workers: usize,
    pub node: Node,
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
    /// Where the admin interface listens; none: nowhere.
    pub admin: Option<SocketAddr>,
    /// The plugins: filters where listeners name them in their chains, else services.
    pub filters: Vec<FilterSpec>,
    pub limits: Limits,
    /// Directory of compiled modules; none: compile at every start.
    pub module_cache: Option<PathBuf>,
    /// Level of the `wasm` logger at the start.
    pub log_level: Level,
    pub log: LogSink,
    /// Who is told of every call between plugins and host.
    pub trace: Option<Sink>,
}

impl ProxyConfig {
    /// One worker, nothing to listen on, Envoy's defaults.
    pub fn new(log: LogSink) -> Self {
        Self {
            workers: 1,
            node: Node::default(),
            listeners: Vec::new(),
            clusters: Vec::new(),
            admin: None,
            filters: Vec::new(),
            limits: Limits::default(),
            module_cache: None,
            log_level: Level::Info,
            log,
            trace: None,
        }
    }
}

/// Where a plugin has its VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Threads {
    /// On the main thread and on every worker.
    #[default]
    All,
    /// On the main thread alone, as Envoy's `WasmService` with `singleton`.
    /// Not for filters: it stands in no chain.
    Main,
}

/// A plugin to run: as a filter where a listener names it, else as a service.
#[derive(Debug, Clone)]
pub struct FilterSpec {
    /// What listeners and [`crate::Proxy::reload`] call it.
    pub name: String,
    pub threads: Threads,
    pub wasm: Arc<[u8]>,
    pub plugin: PluginConfig,
}
