//! Where routes and callouts send to.

use std::path::PathBuf;
use std::time::Duration;

use spctl_host::Metadata;

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
