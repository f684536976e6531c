//! Why a proxy does not start or a reload is refused: one variant per
//! situation, each with what the plugin itself said last.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use spctl_host::{LoadError, LogLine};

/// A filter that could not be loaded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("filter `{filter}`: {error}")]
pub struct FilterError {
    pub filter: String,
    #[source]
    pub error: LoadError,
    /// The plugin's own last lines, oldest first.
    pub log: Vec<LogLine>,
}

/// Why a proxy did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("listener `{listener}`: {address} is in use")]
    PortInUse { listener: String, address: SocketAddr },
    #[error("listener `{listener}`: cannot listen on {address}")]
    Listen { listener: String, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("listener `{listener}` names the filter `{filter}`, which does not exist")]
    UnknownFilter { listener: String, filter: String },
    #[error("listener `{listener}` routes to the cluster `{cluster}`, which does not exist")]
    UnknownCluster { listener: String, cluster: String },
    #[error("cluster `{cluster}`: `{endpoint}` is not `host:port`")]
    BadEndpoint { cluster: String, endpoint: String },
    #[error("cluster `{cluster}`: cannot read certificates from {}", path.display())]
    Certificates { cluster: String, path: PathBuf, source: io::Error },
    #[error("cluster `{cluster}`: TLS: {why}")]
    Tls { cluster: String, why: String },
    #[error("listener `{listener}`: cannot read {}", path.display())]
    ListenerCertificate { listener: String, path: PathBuf, source: io::Error },
    #[error("listener `{listener}`: TLS: {why}")]
    ListenerTls { listener: String, why: String },
    #[error("two {kind} are called `{name}`")]
    Duplicate { kind: &'static str, name: String },
    #[error(transparent)]
    Engine(LoadError),
    #[error("a worker thread could not be started")]
    Worker(#[source] io::Error),
}

/// Why a reload was refused. What served before still serves.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("no filter is called `{0}`")]
    UnknownFilter(String),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("the proxy is stopping")]
    Stopping,
}
