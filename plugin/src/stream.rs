//! One request and its response: decided once from the request head, copied
//! while it streams through, finished exactly once however it ends.
//!
//! No callback ever holds up, delays or changes the exchange, but for the trace
//! headers of a captured request, and where the backend is asked for an answer
//! (`lookup`).

mod lookup;

use crate::body::BoundedBody;
use crate::config::{Mesh, Propagation, Session, WireKind};
use crate::events;
use crate::exchange::{Direction, Exchange, Head, Message, Peers, Phase};
use crate::export::Item;
use crate::host::{Buffer, Flow, Host, Level, Map};
use crate::inject::Wait;
use crate::metrics::Metric;
use crate::policy::Decision;
use crate::record::Record;
use crate::shared::Shared;
use crate::trace::{self, TraceParent};
use crate::wire;
use lookup::WaitsFor;
use std::rc::Rc;

/// Flags of a trace that starts here: sampled, since its first span is
/// recorded, and of random id (W3C trace-context level 2 §3.2.2.5).
const NEW_TRACE_FLAGS: u8 = 0x03;
/// A session id longer than a tracestate value is not one.
const MAX_SESSION: usize = 256;

pub struct Stream<H> {
    shared: Rc<Shared<H>>,
    /// What the proxy calls this stream.
    context: u32,
    state: State,
    /// Set while the request waits for the backend's answer.
    wait: Option<Wait>,
}

enum State {
    /// No request headers yet; Envoy may end a stream there.
    New,
    Skipped,
    Recording(Box<Exchange>),
    /// Over, or answered by the backend.
    Finished,
}

impl<H: Host> Stream<H> {
    pub fn new(shared: Rc<Shared<H>>, context: u32) -> Stream<H> {
        Stream { shared, context, state: State::New, wait: None }
    }

    pub fn on_request_headers(&mut self, end_of_stream: bool) -> Flow {
        if !matches!(self.state, State::New) {
            return Flow::Continue;
        }
        self.shared.metrics.add(Metric::Requests, 1);
        match self.begin(end_of_stream) {
            Begun::Skipped => self.skip(),
            Begun::Lost => {
                self.state = State::Finished;
                self.shared.lost_for_memory();
            }
            Begun::Recording(exchange, waits_for) => {
                self.state = State::Recording(exchange);
                return self.ask(waits_for);
            }
        }
        Flow::Continue
    }

    pub fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Flow {
        let State::Recording(exchange) = &mut self.state else { return Flow::Continue };
        // While the request is held the host shows its whole body each time.
        let seen = self.wait.as_ref().map_or(0, |wait| wait.held);
        append(&self.shared, Buffer::RequestBody, exchange, seen, size);
        if end_of_stream {
            exchange.request_end_ns = Some(self.shared.host.monotonic_ns());
        }
        if self.wait.is_some() { self.go_on_waiting(size, end_of_stream) } else { Flow::Continue }
    }

    pub fn on_request_trailers(&mut self) -> Flow {
        let State::Recording(exchange) = &mut self.state else { return Flow::Continue };
        let trailers = self.shared.host.headers(Map::RequestTrailers);
        if hold(&self.shared, exchange, trailers.size()) {
            exchange.request.trailers = trailers;
        }
        exchange.request_end_ns = Some(self.shared.host.monotonic_ns());
        match self.wait.as_ref().map(|wait| wait.held) {
            Some(held) => self.go_on_waiting(held, true),
            None => Flow::Continue,
        }
    }

    pub fn on_response_headers(&mut self, end_of_stream: bool) {
        let State::Recording(exchange) = &mut self.state else { return };
        if exchange.phase != Phase::Request {
            return;
        }
        let headers = self.shared.host.headers(Map::ResponseHeaders);
        let status = headers.get(":status").and_then(|s| std::str::from_utf8(s).ok()).and_then(|s| s.parse().ok());
        if self.shared.config.policy.is_static(status, headers.get("content-type").unwrap_or_default()) {
            return self.skip();
        }
        if !hold(&self.shared, exchange, headers.size()) {
            self.shared.release(exchange.held);
            self.state = State::Finished;
            return self.shared.lost_for_memory();
        }
        exchange.response_start_ns = Some(self.shared.host.monotonic_ns());
        exchange.status = status;
        exchange.response.headers = headers;
        exchange.phase = if end_of_stream { Phase::Complete } else { Phase::Response };
        // What follows 101, or 2xx to a CONNECT, is a tunnel: the exchange is
        // over, however long the stream lasts (RFC 9110 §7.8 and §9.3.6).
        if status == Some(101) || exchange.upgrade && matches!(status, Some(200..=299)) {
            exchange.upgrade = true;
            exchange.phase = Phase::Complete;
            self.finish();
        }
    }

    pub fn on_response_body(&mut self, size: usize, end_of_stream: bool) {
        let State::Recording(exchange) = &mut self.state else { return };
        append(&self.shared, Buffer::ResponseBody, exchange, 0, size);
        if end_of_stream {
            exchange.phase = Phase::Complete;
        }
    }

    pub fn on_response_trailers(&mut self) {
        let State::Recording(exchange) = &mut self.state else { return };
        let trailers = self.shared.host.headers(Map::ResponseTrailers);
        if hold(&self.shared, exchange, trailers.size()) {
            exchange.response.trailers = trailers;
        }
        exchange.phase = Phase::Complete;
    }

    /// The stream is over: complete, reset, answered by someone else. Envoy
    /// calls this once from `on_log`; `on_done` covers hosts that do not.
    pub fn finish(&mut self) {
        self.wait = None;
        let State::Recording(exchange) = std::mem::replace(&mut self.state, State::Finished) else { return };
        let shared = &self.shared;
        shared.release(exchange.held);
        let mut exchange = *exchange;
        exchange.end_ns = shared.host.monotonic_ns();
        exchange.peers = self.peers();
        let service: Rc<str> = match &exchange.service {
            Some(name) => name.as_str().into(),
            None => shared.service.clone(),
        };
        if !shared.is_sampled(&exchange) {
            return self.skip();
        }
        let wire = shared.config.wire;
        let record = Record::new(&exchange, &shared.config, &service);
        let span = shared.encoded(|out| wire::encode(wire, &record, out));
        if exchange.request.body.is_truncated() || exchange.response.body.is_truncated() {
            shared.metrics.add(Metric::Truncated, 1);
        }
        if shared.logs(Level::Debug) {
            let (status, bytes) = (exchange.status.unwrap_or(0), span.len());
            shared.log(Level::Debug, events::CAPTURED, format_args!("status={status} bytes={bytes}"));
        }
        let key = wire::key(wire, &exchange);
        shared.enqueue(Item { service, key, span, queued_ns: exchange.end_ns }, exchange.end_ns);
    }

    fn skip(&mut self) {
        if let State::Recording(exchange) = &self.state {
            self.shared.release(exchange.held);
        }
        self.state = State::Skipped;
        self.shared.metrics.add(Metric::Skipped, 1);
        self.shared.noted();
    }

    /// Decides; for a selected request, starts the record and joins its trace.
    fn begin(&self, end_of_stream: bool) -> Begun {
        let shared = &self.shared;
        let config = &shared.config;
        if shared.idle {
            return Begun::Skipped;
        }
        let headers = shared.host.headers(Map::RequestHeaders);
        let head = Head::read(&headers);
        let known = match config.direction {
            None if config.policy.needs_direction() => Some(self.listener_direction()),
            direction => direction,
        };
        if config.policy.decide(&head, known.unwrap_or(Direction::Unspecified)) != Decision::Capture {
            return Begun::Skipped;
        }
        let held = headers.size();
        if !shared.hold(held) {
            return Begun::Lost;
        }
        let direction = known.unwrap_or_else(|| self.listener_direction());
        let waits_for = self.waits_for(&head, direction, end_of_stream);
        let start_ns = shared.host.monotonic_ns();
        let session = self.session(&head);
        let joined = self.join_trace(&head, session.as_deref());
        let service = head.service_name.filter(|_| config.service_name.is_none());
        let service = service.map(|name| String::from_utf8_lossy(name).into_owned());
        let tunnel = head.connect;
        let cap = |bytes: usize| BoundedBody::new(if tunnel { 0 } else { bytes });
        let exchange = Exchange {
            phase: Phase::Request,
            direction,
            request: Message { headers, body: cap(config.limits.request_body_bytes), ..Message::default() },
            response: Message { body: cap(config.limits.response_body_bytes), ..Message::default() },
            status: None,
            span: joined.span,
            parent: joined.parent,
            trace_state: joined.trace_state,
            session,
            service,
            held,
            upgrade: tunnel,
            start_wall_ns: shared.wall_ns(start_ns),
            start_ns,
            request_end_ns: end_of_stream.then_some(start_ns),
            response_start_ns: None,
            end_ns: start_ns,
            peers: Peers::default(),
        };
        Begun::Recording(Box::new(exchange), waits_for)
    }

    /// One id for the whole exchange: header, else tracestate, else our own.
    fn session(&self, head: &Head<'_>) -> Option<String> {
        let header = head.session.and_then(|(_, value)| std::str::from_utf8(value).ok());
        let told = header.or_else(|| trace::session_member(&head.tracestate));
        match told.filter(|id| id.len() <= MAX_SESSION) {
            Some(id) => Some(id.to_owned()),
            None if self.shared.config.session == Session::Generate => Some(self.new_session()),
            None => None,
        }
    }

    /// Softprobe's form with a version 4 UUID (RFC 9562 §5.4) for its digits.
    fn new_session(&self) -> String {
        let mut uuid: [u8; 16] = self.shared.random();
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
        *version = *version & 0x0f | 0x40;
        *variant = *variant & 0x3f | 0x80;
        let mut id = String::with_capacity(47);
        id.push_str("sp-session");
        let mut rest = uuid.as_slice();
        for size in [4, 2, 2, 2, 6] {
            let (group, tail) = rest.split_at_checked(size).unwrap_or_default();
            id.push('-');
            trace::push_hex(&mut id, group);
            rest = tail;
        }
        id
    }

    /// Makes our span: a child of the caller's, or the first of a new trace
    /// (W3C trace-context §4.3); and tells the next hop, unless configured not to.
    fn join_trace(&self, head: &Head<'_>, session: Option<&str>) -> Joined {
        let shared = &self.shared;
        let caller = head.traceparent.and_then(TraceParent::parse);
        let mut span_id: [u8; 8] = shared.random();
        while caller.is_some_and(|caller| caller.parent_id == span_id) {
            span_id = shared.random();
        }
        let span = TraceParent {
            trace_id: caller.map_or_else(|| shared.random(), |caller| caller.trace_id),
            parent_id: span_id,
            flags: caller.map_or(NEW_TRACE_FLAGS, |caller| caller.flags),
        };
        // A list without a valid traceparent belongs to no trace.
        let lines: &[&[u8]] = if caller.is_some() { &head.tracestate } else { &[] };
        let parent = caller.map(|caller| caller.parent_id);
        if shared.config.propagation == Propagation::None {
            return Joined { span, parent, trace_state: list(lines, None) };
        }
        let carried = trace::session_member(&head.tracestate);
        let (member, stale) = match shared.config.session {
            Session::Generate => (session, carried != session),
            Session::Read => (carried, false),
        };
        shared.host.set_header(Map::RequestHeaders, "traceparent", &span.render());
        let orphaned = caller.is_none() && !head.tracestate.is_empty();
        let trace_state = if orphaned || stale { trace::tracestate(lines, member) } else { list(lines, None) };
        match &trace_state {
            Some(list) if orphaned || stale => shared.host.set_header(Map::RequestHeaders, "tracestate", list),
            None if orphaned || stale => shared.host.remove_header(Map::RequestHeaders, "tracestate"),
            _ => {}
        }
        if shared.config.wire == WireKind::Softprobe {
            self.count_hop(head);
        }
        Joined { span, parent, trace_state }
    }

    /// Softprobe's hop counter.
    fn count_hop(&self, head: &Head<'_>) {
        let text = head.hops.and_then(|hops| std::str::from_utf8(hops).ok());
        let hops: u32 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        self.shared.host.set_header(Map::RequestHeaders, "x-sp-num", &hops.saturating_add(1).to_string());
    }

    /// Envoy: int64, little endian, 0 unspecified, 1 inbound, 2 outbound. Before
    /// 1.29 it was not below `xds`.
    fn listener_direction(&self) -> Direction {
        let host = &self.shared.host;
        let value = host.property(&["xds", "listener_direction"]).or_else(|| host.property(&["listener_direction"]));
        match value.as_deref() {
            Some([1, ..]) => Direction::Inbound,
            Some([2, ..]) => Direction::Outbound,
            _ => Direction::Unspecified,
        }
    }

    fn peers(&self) -> Peers {
        let wanted = self.shared.config.attributes;
        let text = |wanted: bool, path: &[&str]| {
            let value = wanted.then(|| self.shared.host.property(path)).flatten()?;
            String::from_utf8(value).ok().filter(|text| !text.is_empty())
        };
        Peers {
            protocol: text(wanted.protocol, &["request", "protocol"]),
            source: text(wanted.source, &["source", "address"]),
            destination: text(wanted.destination, &["destination", "address"]),
            upstream: text(wanted.upstream, &["upstream", "address"]),
            namespace: self.shared.config.wire.is_apiclarity().then(|| self.namespace()).flatten(),
        }
    }

    /// Namespace of the upstream, as the mesh notes it. Before Envoy 1.29 what
    /// the cluster knows was not below `xds`.
    fn namespace(&self) -> Option<String> {
        let host = &self.shared.host;
        let [of, what] = match self.shared.config.mesh {
            Mesh::Istio => ["istio", "workload"],
            Mesh::Kuma => ["envoy.lb", "k8s.kuma.io/namespace"],
        };
        let value = host
            .property(&["xds", "upstream_host_metadata", "filter_metadata", of, what])
            .or_else(|| host.property(&["upstream_host_metadata", "filter_metadata", of, what]))?;
        let value = String::from_utf8(value).ok().filter(|text| !text.is_empty())?;
        if self.shared.config.mesh == Mesh::Kuma {
            return Some(value);
        }
        // `workload;namespace;service;revision`, and a cluster in later versions.
        let parts: Vec<_> = value.split(';').collect();
        parts.get(1).filter(|_| matches!(parts.len(), 4 | 5)).map(|part| (*part).to_owned())
    }
}

/// What becomes of a request.
enum Begun {
    Skipped,
    /// Selected, but there is no memory for it.
    Lost,
    Recording(Box<Exchange>, Option<WaitsFor>),
}

/// Our place in a trace.
struct Joined {
    span: TraceParent,
    parent: Option<[u8; 8]>,
    trace_state: Option<String>,
}

fn list(lines: &[&[u8]], session: Option<&str>) -> Option<String> {
    if lines.is_empty() { None } else { trace::tracestate(lines, session) }
}

/// Copies what the cap and the memory allow of a body's new bytes, those from
/// `seen` to `size`; beyond that the bytes are not even fetched.
fn append<H: Host>(shared: &Shared<H>, buffer: Buffer, exchange: &mut Exchange, seen: usize, size: usize) {
    let body = if buffer == Buffer::RequestBody { &mut exchange.request.body } else { &mut exchange.response.body };
    let wanted = body.count(size.saturating_sub(seen));
    if wanted == 0 {
        return;
    }
    if shared.hold_body(wanted) {
        body.append(shared.host.buffer(buffer, seen, wanted));
        exchange.held += wanted;
    } else {
        body.stop();
    }
}

/// Takes memory for a header map of an exchange.
fn hold<H: Host>(shared: &Shared<H>, exchange: &mut Exchange, bytes: usize) -> bool {
    let held = shared.hold(bytes);
    if held {
        exchange.held += bytes;
    }
    held
}

#[cfg(test)]
mod tests;
