//! What is served, and how clients are met.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use spctl_host::{Direction, Metadata};

use super::route::{HeaderChanges, Route, VirtualHost};

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

/// How paths are made plain before anything is decided by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathRules {
    /// `normalize_path`: dots and needless escapes.
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of `%2F` and `%5C` (`path_with_escaped_slashes_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
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
    /// None for a request's host: 404.
    pub virtual_hosts: Vec<VirtualHost>,
    /// What becomes of headers whatever the route.
    pub headers: HeaderChanges,
    pub path: PathRules,
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
    /// Protocols that a client may change to, `CONNECT` for tunnels
    /// (`upgrade_configs`).
    pub upgrades: Vec<String>,
    /// How long a connection may be without a request; zero: for ever.
    pub idle_timeout: Duration,
    /// How long nothing may happen on a stream; zero: for ever.
    pub stream_idle_timeout: Duration,
    /// How long the whole of a request may take to arrive; zero: for ever.
    pub request_timeout: Duration,
    /// The same of its head.
    pub request_headers_timeout: Duration,
    /// Trust the peer's address rather than `x-forwarded-for`, and append it.
    pub use_remote_address: bool,
    pub skip_xff_append: bool,
    /// Proxies in front whose word about where a request came from counts.
    pub xff_num_trusted_hops: usize,
    /// Ranges whose requests may give instructions: address and prefix length
    /// (`internal_address_config`).
    pub internal_addresses: Vec<(IpAddr, u8)>,
    pub preserve_external_request_id: bool,
    /// Added to `via` both ways; empty: nothing.
    pub via: String,
}

impl Listener {
    /// A listener with Envoy's defaults and no chain.
    pub fn new(name: impl Into<String>, address: SocketAddr, routes: Vec<Route>) -> Self {
        let name = name.into();
        let all =
            VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes, ..VirtualHost::default() };
        Self {
            stat_prefix: name.clone(),
            name,
            address,
            direction: Direction::Unspecified,
            metadata: Metadata::new(),
            filters: Vec::new(),
            virtual_hosts: vec![all],
            headers: HeaderChanges::default(),
            path: PathRules::default(),
            codec: Codec::Auto,
            tls: None,
            buffer_limit: 1 << 20,
            generate_request_id: true,
            suppress_envoy_headers: false,
            server_name: "envoy".to_owned(),
            server_header: ServerHeader::Overwrite,
            enable_trailers: false,
            upgrades: Vec::new(),
            idle_timeout: Duration::from_secs(3600),
            stream_idle_timeout: Duration::from_secs(300),
            request_timeout: Duration::ZERO,
            request_headers_timeout: Duration::ZERO,
            use_remote_address: false,
            skip_xff_append: false,
            xff_num_trusted_hops: 0,
            internal_addresses: Vec::new(),
            preserve_external_request_id: false,
            via: String::new(),
        }
    }
}
