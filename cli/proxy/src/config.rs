//! What a proxy is made of: listeners, routes, clusters, filters.
//!
//! Plain values with Envoy's defaults. Nothing here is checked; [`crate::Proxy::start`]
//! is what refuses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spctl_host::{Direction, Level, Limits, LogSink, Metadata, Node, PluginConfig};

/// A whole proxy.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Worker threads (`--concurrency`); 0 counts as 1.
    pub workers: usize,
    pub node: Node,
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
    /// The filters that listeners name in their chains.
    pub filters: Vec<FilterSpec>,
    pub limits: Limits,
    /// Directory of compiled modules; none: compile at every start.
    pub module_cache: Option<PathBuf>,
    /// Level of the `wasm` logger at the start.
    pub log_level: Level,
    pub log: LogSink,
}

impl ProxyConfig {
    /// One worker, nothing to listen on, Envoy's defaults.
    pub fn new(log: LogSink) -> Self {
        Self {
            workers: 1,
            node: Node::default(),
            listeners: Vec::new(),
            clusters: Vec::new(),
            filters: Vec::new(),
            limits: Limits::default(),
            module_cache: None,
            log_level: Level::Info,
            log,
        }
    }
}

/// What becomes of the `server` header of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerHeader {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// What clients may speak (`codec_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// What TLS agreed on, or what the first bytes look like.
    #[default]
    Auto,
    Http1,
    Http2,
}

/// TLS towards clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownstreamTls {
    /// PEM, the listener's own certificate first.
    pub certificate_chain: PathBuf,
    /// PEM.
    pub private_key: PathBuf,
    /// What may be agreed on, best first; empty: HTTP/1.1 without asking.
    pub alpn_protocols: Vec<String>,
}

/// An address to serve, the chain its requests pass, and where they go.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    /// Port 0 takes a free one; [`crate::Proxy::addresses`] tells which.
    pub address: SocketAddr,
    pub direction: Direction,
    pub metadata: Metadata,
    /// Names into [`ProxyConfig::filters`], in chain order.
    pub filters: Vec<String>,
    /// First match wins; none: 404.
    pub routes: Vec<Route>,
    pub virtual_host: String,
    pub codec: Codec,
    pub tls: Option<DownstreamTls>,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: usize,
    pub stat_prefix: String,
    pub generate_request_id: bool,
    /// Remove or leave out `x-envoy-*` headers.
    pub suppress_envoy_headers: bool,
    pub server_name: String,
    pub server_header: ServerHeader,
    /// Pass HTTP/1 trailers on (`http_protocol_options.enable_trailers`).
    pub enable_trailers: bool,
    /// Trust the peer's address rather than `x-forwarded-for`, and append it.
    pub use_remote_address: bool,
}

impl Listener {
    /// A listener with Envoy's defaults and no chain.
    pub fn new(name: impl Into<String>, address: SocketAddr, routes: Vec<Route>) -> Self {
        let name = name.into();
        Self {
            stat_prefix: name.clone(),
            name,
            address,
            direction: Direction::Unspecified,
            metadata: Metadata::new(),
            filters: Vec::new(),
            routes,
            virtual_host: "all".to_owned(),
            codec: Codec::Auto,
            tls: None,
            buffer_limit: 1 << 20,
            generate_request_id: true,
            suppress_envoy_headers: false,
            server_name: "envoy".to_owned(),
            server_header: ServerHeader::Overwrite,
            enable_trailers: false,
            use_remote_address: false,
        }
    }
}

/// Which requests a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMatch {
    /// Path and query begin with this.
    Prefix(String),
    /// The path without its query is this.
    Path(String),
}

/// What the upstream sees as its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostRewrite {
    /// What the client sent.
    #[default]
    Keep,
    /// This (`host_rewrite_literal`).
    Literal(String),
    /// The chosen endpoint's name (`auto_host_rewrite`).
    Auto,
}

/// Requests to a cluster.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    pub matches: RouteMatch,
    pub cluster: String,
    /// Zero: none.
    pub timeout: Duration,
    pub prefix_rewrite: Option<String>,
    pub host_rewrite: HostRewrite,
    pub metadata: Metadata,
}

impl Route {
    /// Everything below `prefix` to `cluster`, within Envoy's default 15 s.
    pub fn new(prefix: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            matches: RouteMatch::Prefix(prefix.into()),
            cluster: cluster.into(),
            timeout: Duration::from_secs(15),
            prefix_rewrite: None,
            host_rewrite: HostRewrite::Keep,
            metadata: Metadata::new(),
        }
    }
}

/// TLS towards a cluster's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// None: the endpoint's own host name.
    pub sni: Option<String>,
    /// Certificates to trust; none: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// What endpoints of a cluster speak (`explicit_http_config`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// Without asking, or by ALPN.
    Http2,
}

/// Named endpoints, used in turn, by routes and by callouts of plugins.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: String,
    /// `host:port` each; names are resolved when connecting.
    pub endpoints: Vec<String>,
    pub tls: Option<UpstreamTls>,
    pub protocol: UpstreamProtocol,
    pub connect_timeout: Duration,
    /// Pass HTTP/1 trailers on (`http_protocol_options.enable_trailers`).
    pub enable_trailers: bool,
    pub metadata: Metadata,
}

impl Cluster {
    /// A plaintext cluster with Envoy's default connect timeout.
    pub fn new(name: impl Into<String>, endpoints: Vec<String>) -> Self {
        Self {
            name: name.into(),
            endpoints,
            tls: None,
            protocol: UpstreamProtocol::Http1,
            connect_timeout: Duration::from_secs(5),
            enable_trailers: false,
            metadata: Metadata::new(),
        }
    }
}

/// A plugin to run as a filter.
#[derive(Debug, Clone)]
pub struct FilterSpec {
    /// What listeners and [`crate::Proxy::reload`] call it.
    pub name: String,
    pub wasm: Arc<[u8]>,
    pub plugin: PluginConfig,
}
