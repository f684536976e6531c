//! What a worker has ready for a listener: its chain, its routes, its counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use spctl_host::{HeaderList, ListenerInfo, Number, Registry, RouteInfo, RouteTable, WorkerFilter};
use tokio_rustls::TlsAcceptor;

use super::{id, tls};
use crate::config::Listener;
use crate::error::StartError;
use crate::routing::{Compiled, Table};

/// What is counted under `http.<stat_prefix>.`.
pub(crate) struct HttpStats {
    pub(crate) cx_total: Arc<Number>,
    pub(crate) cx_active: Arc<Number>,
    pub(crate) rq_total: Arc<Number>,
    pub(crate) rq_active: Arc<Number>,
    pub(crate) rq_completed: Arc<Number>,
    pub(crate) rq_by_class: [Arc<Number>; 5],
    pub(crate) rq_too_large: Arc<Number>,
    pub(crate) rq_idle_timeout: Arc<Number>,
    pub(crate) rq_timeout: Arc<Number>,
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
            rq_idle_timeout: counter("downstream_rq_idle_timeout"),
            rq_timeout: counter("downstream_rq_timeout"),
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
    routes: Table,
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
        let refused = |why| StartError::BadRoute { listener: config.name.clone(), why };
        let routes = Table::new(&config, cluster).map_err(refused)?;
        let info = ListenerInfo {
            name: config.name.clone(),
            direction: config.direction,
            metadata: config.metadata.clone(),
            filter_chain: String::new(),
        };
        Ok(Arc::new(Self {
            tls: config.tls.as_ref().map(|tls| tls::acceptor(&config.name, tls)).transpose()?,
            routes,
            info: Arc::new(info),
            stats: HttpStats::new(&config.stat_prefix, stats),
            filters,
            config,
        }))
    }

    pub(super) fn compiled(&self, info: &RouteInfo) -> Option<&Compiled> {
        self.routes.compiled(info)
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
        self.0.routes.find(headers, id::random)
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
    pub(crate) fn set_filters(&self, filters: &[Option<Rc<WorkerFilter>>]) {
        let chain = self.shared.filters.iter().filter_map(|at| filters.get(*at).cloned().flatten()).collect();
        self.chain.replace(chain);
    }
}
