//! Clusters: where requests and callouts go, and connections kept to them.

mod connect;
mod exchange;
mod http1;
mod http2;
mod pool;
mod session;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use spctl_host::{ClusterState, ClusterTable, Number, Registry};
use tokio_rustls::TlsConnector;

use crate::config::Cluster;
use crate::error::StartError;

pub(crate) use connect::{Conn, ConnectError};
pub(crate) use exchange::{Failure, HIGH_WATERMARK, UpstreamEvent, UpstreamExchange};
pub(crate) use pool::{Lease, Local, Pool};
pub(crate) use session::Session;

/// One `host:port` of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Endpoint {
    /// Where it is, if that needs no resolving.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port))
    }
}

/// A cluster, checked; shared by all threads.
pub(crate) struct Target {
    pub(crate) config: Cluster,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) stats: TargetStats,
}

/// What is counted under `cluster.<name>.`.
pub(crate) struct TargetStats {
    pub(crate) rq_total: Arc<Number>,
    pub(crate) rq_active: Arc<Number>,
    pub(crate) rq_completed: Arc<Number>,
    pub(crate) rq_timeout: Arc<Number>,
    pub(crate) rq_by_class: [Arc<Number>; 5],
    pub(crate) cx_total: Arc<Number>,
    pub(crate) cx_connect_fail: Arc<Number>,
    pub(crate) cx_connect_timeout: Arc<Number>,
    pub(crate) cx_none_healthy: Arc<Number>,
}

impl TargetStats {
    fn new(name: &str, stats: &Registry) -> Self {
        let counter = |suffix: &str| stats.counter(&format!("cluster.{name}.{suffix}"));
        Self {
            rq_total: counter("upstream_rq_total"),
            rq_active: stats.gauge(&format!("cluster.{name}.upstream_rq_active")),
            rq_completed: counter("upstream_rq_completed"),
            rq_timeout: counter("upstream_rq_timeout"),
            rq_by_class: [1, 2, 3, 4, 5].map(|class| counter(&format!("upstream_rq_{class}xx"))),
            cx_total: counter("upstream_cx_total"),
            cx_connect_fail: counter("upstream_cx_connect_fail"),
            cx_connect_timeout: counter("upstream_cx_connect_timeout"),
            cx_none_healthy: counter("upstream_cx_none_healthy"),
        }
    }

    /// Counts a response by its class.
    pub(crate) fn count_response(&self, code: u16) {
        self.rq_completed.inc();
        if let Some(class) = self.rq_by_class.get(usize::from(code / 100).wrapping_sub(1)) {
            class.inc();
        }
    }
}

/// All clusters by name. Known before statistics are, so these come later.
pub(crate) struct ClusterNames(HashMap<String, bool>);

impl ClusterNames {
    pub(crate) fn new(clusters: &[Cluster]) -> Self {
        Self(clusters.iter().map(|cluster| (cluster.name.clone(), !cluster.endpoints.is_empty())).collect())
    }
}

impl ClusterTable for ClusterNames {
    fn state(&self, name: &str) -> ClusterState {
        match self.0.get(name) {
            None => ClusterState::Unknown,
            Some(false) => ClusterState::NoHost,
            Some(true) => ClusterState::Usable,
        }
    }
}

/// Checks a cluster and reads its certificates.
pub(crate) fn target(cluster: &Cluster, stats: &Registry) -> Result<Arc<Target>, StartError> {
    let endpoints = cluster.endpoints.iter().map(|text| {
        parse_endpoint(text)
            .ok_or_else(|| StartError::BadEndpoint { cluster: cluster.name.clone(), endpoint: text.clone() })
    });
    Ok(Arc::new(Target {
        endpoints: endpoints.collect::<Result<_, _>>()?,
        tls: cluster.tls.as_ref().map(|tls| tls::connector(cluster, tls)).transpose()?,
        stats: TargetStats::new(&cluster.name, stats),
        config: cluster.clone(),
    }))
}

fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    Some(Endpoint { host: host.to_owned(), port: port.parse().ok()? })
}
