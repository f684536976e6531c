//! The data of one HTTP stream, shared by the chain and the guests' contexts.
//!
//! Owns headers, bodies and what is known about the stream; decides nothing.

use std::borrow::Cow;
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::body::Body;
use crate::config::{Direction, Metadata};
use crate::filter_state::FilterState;
use crate::headers::{HeaderKind, HeaderList};

/// Which half of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// One direction of a stream.
#[derive(Default)]
pub(crate) struct Half {
    pub(crate) headers: RefCell<Option<HeaderList>>,
    pub(crate) trailers: RefCell<Option<HeaderList>>,
    /// The chunk that is with a filter right now.
    pub(crate) chunk: RefCell<Body>,
    /// What filters hold back.
    pub(crate) buffer: RefCell<Option<Body>>,
    /// The buffer answers to back-pressure, not to the limit.
    pub(crate) streaming: Cell<bool>,
    /// The sender has ended this direction.
    pub(crate) complete: Cell<bool>,
    /// Body bytes seen.
    pub(crate) bytes: Cell<u64>,
}

impl Half {
    pub(crate) fn has_trailers(&self) -> bool {
        self.trailers.borrow().is_some()
    }

    pub(crate) fn has_buffer(&self) -> bool {
        self.buffer.borrow().is_some()
    }

    pub(crate) fn buffered_len(&self) -> usize {
        self.buffer.borrow().as_ref().map_or(0, Body::len)
    }
}

/// What HTTP a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The listener of a stream, as properties show it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListenerInfo {
    pub name: String,
    pub direction: Direction,
    pub metadata: Metadata,
    pub filter_chain: String,
}

/// The route of a stream, as properties show it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteInfo {
    pub name: String,
    pub virtual_host: String,
    pub cluster: Option<String>,
    pub metadata: Metadata,
    pub cluster_metadata: Metadata,
    /// Hosts of the cluster.
    pub cluster_endpoints: u64,
    /// For whoever resolved the route; the host does not look at it.
    pub tag: usize,
}

/// Resolves the route of a request, again each time a filter clears it.
pub trait RouteTable {
    fn route(&self, headers: &HeaderList) -> Option<Arc<RouteInfo>>;
}

/// The upstream of a stream, once one is chosen.
#[derive(Debug, Clone, Default)]
pub struct UpstreamInfo {
    pub address: Option<SocketAddr>,
    pub local_address: Option<SocketAddr>,
    pub transport_failure: Option<String>,
    /// How long it took until a connection was ready for the request.
    pub ready: Option<Duration>,
}

/// What is known about a stream besides its messages.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub protocol: Protocol,
    pub start: SystemTime,
    /// Set once the stream is complete.
    pub duration: Option<Duration>,
    pub connection_id: u64,
    pub downstream_remote: Option<SocketAddr>,
    pub downstream_local: Option<SocketAddr>,
    pub response_code: Option<u16>,
    pub response_code_details: Option<Cow<'static, str>>,
    /// Envoy's legacy bit mask of response flags.
    pub response_flags: u64,
    pub upstream: Option<UpstreamInfo>,
    /// First upstream byte sent to last upstream byte received.
    pub backend_latency: Option<Duration>,
    pub upstream_attempts: u32,
}

impl Default for StreamInfo {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            start: SystemTime::UNIX_EPOCH,
            duration: None,
            connection_id: 0,
            downstream_remote: None,
            downstream_local: None,
            response_code: None,
            response_code_details: None,
            response_flags: 0,
            upstream: None,
            backend_latency: None,
            upstream_attempts: 0,
        }
    }
}

/// All of one stream's data.
pub struct Exchange {
    pub(crate) request: Half,
    pub(crate) response: Half,
    pub(crate) info: RefCell<StreamInfo>,
    pub(crate) listener: Arc<ListenerInfo>,
    pub(crate) filter_state: RefCell<FilterState>,
    routes: Rc<dyn RouteTable>,
    route: RefCell<Option<Arc<RouteInfo>>>,
    /// The request has changed, or is new, since the route was resolved.
    route_is_stale: Cell<bool>,
    /// What traces call it; 0: nothing yet.
    number: Cell<u64>,
}

impl Exchange {
    pub(crate) fn new(info: StreamInfo, listener: Arc<ListenerInfo>, routes: Rc<dyn RouteTable>) -> Rc<Self> {
        Rc::new(Self {
            request: Half::default(),
            response: Half::default(),
            info: RefCell::new(info),
            listener,
            filter_state: RefCell::default(),
            routes,
            route: RefCell::new(None),
            route_is_stale: Cell::new(true),
            number: Cell::new(0),
        })
    }

    /// Its number in traces, drawn when it is first asked for.
    pub(crate) fn number(&self, next: impl FnOnce() -> u64) -> u64 {
        if self.number.get() == 0 {
            self.number.set(next());
        }
        self.number.get()
    }

    pub(crate) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }

    pub fn info(&self) -> Ref<'_, StreamInfo> {
        self.info.borrow()
    }

    pub fn info_mut(&self) -> RefMut<'_, StreamInfo> {
        self.info.borrow_mut()
    }

    /// The headers of a side, once they have come.
    pub fn headers(&self, side: Side) -> Option<Ref<'_, HeaderList>> {
        Ref::filter_map(self.half(side).headers.borrow(), Option::as_ref).ok()
    }

    pub fn headers_mut(&self, side: Side) -> Option<RefMut<'_, HeaderList>> {
        RefMut::filter_map(self.half(side).headers.borrow_mut(), Option::as_mut).ok()
    }

    pub fn trailers(&self, side: Side) -> Option<Ref<'_, HeaderList>> {
        Ref::filter_map(self.half(side).trailers.borrow(), Option::as_ref).ok()
    }

    /// The route of the request as its headers stand.
    pub fn route(&self) -> Option<Arc<RouteInfo>> {
        if self.route_is_stale.replace(false) {
            let headers = self.request.headers.borrow();
            let route = headers.as_ref().and_then(|headers| self.routes.route(headers));
            self.route.replace(route);
        }
        self.route.borrow().clone()
    }

    /// The route as it was last resolved: properties show a change of the
    /// request's path only once the request has moved on.
    pub(crate) fn known_route(&self) -> Option<Arc<RouteInfo>> {
        self.route.borrow().clone()
    }

    pub(crate) fn clear_route(&self) {
        self.route_is_stale.set(true);
    }

    /// Creates trailers where a guest may add them at the end of a body.
    pub(crate) fn create_trailers(&self, side: Side) {
        let kind = match side {
            Side::Request => HeaderKind::RequestTrailers,
            Side::Response => HeaderKind::ResponseTrailers,
        };
        self.half(side).trailers.borrow_mut().get_or_insert_with(|| HeaderList::new(kind));
    }
}
