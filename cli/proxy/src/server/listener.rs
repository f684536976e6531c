//! What a worker has ready for a listener: its chain, its routes, its counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use spctl_host::{HeaderList, ListenerInfo, Number, Registry, RouteInfo, RouteTable, WorkerFilter};
use tokio_rustls::TlsAcceptor;

use super::tls;
use crate::config::{Listener, Route, RouteMatch};
use crate::error::StartError;

/// What is counted under `http.<stat_prefix>.`.
pub(crate) struct HttpStats {
    pub(crate) cx_total: Arc<Number>,
    pub(crate) cx_active: Arc<Number>,
    pub(crate) rq_total: Arc<Number>,
    pub(crate) rq_active: Arc<Number>,
    pub(crate) rq_completed: Arc<Number>,
    pub(crate) rq_by_class: [Arc<Number>; 5],
    pub(crate) rq_too_large: Arc<Number>,
    pub(crate) rs_too_large: Arc<Number>,
    pub(crate) rq_rx_reset: Arc<Number>,
    pub(crate) cx_protocol_error: Arc<Number>,
    pub(crate) no_route: Arc<Number>,
}

impl HttpStats {
    fn new(prefix: &str, stats: &Registry) -> Self {
        let counter = |suffix: &str| stats.counter(&format!("http.{prefix}.{suffix}"));
        let gauge = |suffix: &str| stats.gauge(&format!("http.{prefix}.{suffix}"));
        Self {
            cx_total: counter("downstream_cx_total"),
            cx_active: gauge("downstream_cx_active"),
            rq_total: counter("downstream_rq_total"),
            rq_active: gauge("downstream_rq_active"),
            rq_completed: counter("downstream_rq_completed"),
            rq_by_class: [1, 2, 3, 4, 5].map(|class| counter(&format!("downstream_rq_{class}xx"))),
            rq_too_large: counter("downstream_rq_too_large"),
            rs_too_large: counter("rs_too_large"),
            rq_rx_reset: counter("downstream_rq_rx_reset"),
            cx_protocol_error: counter("downstream_cx_protocol_error"),
            no_route: counter("no_route"),
        }
    }
}

/// A listener for all threads.
pub(crate) struct SharedListener {
    pub(crate) config: Listener,
    pub(crate) info: Arc<ListenerInfo>,
    pub(crate) stats: HttpStats,
    routes: Vec<Arc<RouteInfo>>,
    pub(super) tls: Option<TlsAcceptor>,
    /// Places of its filters among the proxy's.
    pub(crate) filters: Vec<usize>,
}

impl SharedListener {
    pub(crate) fn new(
        config: Listener,
        filters: Vec<usize>,
        cluster: impl Fn(&str) -> (spctl_host::Metadata, u64),
        stats: &Registry,
    ) -> Result<Arc<Self>, StartError> {
        let routes = config.routes.iter().enumerate().map(|(tag, route)| {
            let (cluster_metadata, cluster_endpoints) = cluster(&route.cluster);
            Arc::new(RouteInfo {
                name: route.name.clone(),
                virtual_host: config.virtual_host.clone(),
                cluster: Some(route.cluster.clone()),
                metadata: route.metadata.clone(),
                cluster_metadata,
                cluster_endpoints,
                tag,
            })
        });
        let info = ListenerInfo {
            name: config.name.clone(),
            direction: config.direction,
            metadata: config.metadata.clone(),
            filter_chain: String::new(),
        };
        Ok(Arc::new(Self {
            tls: config.tls.as_ref().map(|tls| tls::acceptor(&config.name, tls)).transpose()?,
            routes: routes.collect(),
            info: Arc::new(info),
            stats: HttpStats::new(&config.stat_prefix, stats),
            filters,
            config,
        }))
    }

    pub(crate) fn route_config(&self, info: &RouteInfo) -> Option<&Route> {
        self.config.routes.get(info.tag)
    }
}

/// A listener on one worker.
pub(crate) struct LocalListener {
    pub(crate) shared: Arc<SharedListener>,
    pub(crate) routes: Rc<dyn RouteTable>,
    /// The chain that new streams get; a reload changes it.
    pub(crate) chain: RefCell<Rc<[Rc<WorkerFilter>]>>,
}

struct Routes(Arc<SharedListener>);

impl RouteTable for Routes {
    fn route(&self, headers: &HeaderList) -> Option<Arc<RouteInfo>> {
        let path = headers.get(b":path")?;
        // Envoy matches nothing where a filter has removed this.
        headers.get(b"x-forwarded-proto")?;
        let without_query = path.split(|byte| *byte == b'?').next().unwrap_or(path);
        let matches = |route: &Route| match &route.matches {
            // `OPTIONS *` begins with no prefix that begins with a slash.
            RouteMatch::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            RouteMatch::Path(exact) => without_query == exact.as_bytes(),
        };
        let at = self.0.config.routes.iter().position(matches)?;
        self.0.routes.get(at).cloned()
    }
}

impl LocalListener {
    pub(crate) fn new(shared: &Arc<SharedListener>) -> Rc<Self> {
        Rc::new(Self {
            shared: Arc::clone(shared),
            routes: Rc::new(Routes(Arc::clone(shared))),
            chain: RefCell::new(Rc::new([])),
        })
    }

    /// Puts the filters as they are now in the way of new streams.
    pub(crate) fn set_filters(&self, filters: &[Rc<WorkerFilter>]) {
        let chain = self.shared.filters.iter().filter_map(|at| filters.get(*at).cloned()).collect();
        self.chain.replace(chain);
    }
}
