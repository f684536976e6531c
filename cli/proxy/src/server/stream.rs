//! One request on its way through the chain, to an upstream and back.
//!
//! The chain says what goes where; this carries it between the two connections
//! and does what Envoy's router and connection manager do around the filters.

mod attempt;
mod respond;

use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant, SystemTime};

use spctl_host::{Body, Chain, ChainParams, HeaderList, LocalReply, Protocol, Side, StreamInfo};

use self::attempt::Attempts;
use super::downstream::Downstream;
use super::idle::IdleWatch;
use super::listener::LocalListener;
use super::rules;
use crate::http1::BadRequest;
use crate::worker::WorkerContext;

/// Envoy's response flags, of its legacy bit mask.
mod flags {
    pub(super) const NO_HEALTHY_UPSTREAM: u64 = 0x2;
    pub(super) const UPSTREAM_REQUEST_TIMEOUT: u64 = 0x4;
    pub(super) const UPSTREAM_REMOTE_RESET: u64 = 0x10;
    pub(super) const UPSTREAM_CONNECTION_FAILURE: u64 = 0x20;
    pub(super) const UPSTREAM_CONNECTION_TERMINATION: u64 = 0x40;
    pub(super) const NO_ROUTE_FOUND: u64 = 0x100;
    pub(super) const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 0x4000;
    pub(super) const UPSTREAM_RETRY_LIMIT_EXCEEDED: u64 = 0x8000;
    pub(super) const STREAM_IDLE_TIMEOUT: u64 = 0x1_0000;
    pub(super) const UPSTREAM_PROTOCOL_ERROR: u64 = 0x80_0000;
}

/// Where a downstream connection is, for the streams on it.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) remote: std::net::SocketAddr,
    pub(super) local: std::net::SocketAddr,
    pub(super) connection_id: u64,
    pub(super) is_tls: bool,
}

/// What a poll of a stream came to.
pub(super) enum Step {
    /// Something moved: poll again.
    Progress,
    Pending,
    /// The response is written; what becomes of the connection.
    Done {
        close: Option<Close>,
    },
    /// Nothing more can be said on this connection.
    Cut,
}

/// How a connection ends behind a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// As the client wanted.
    Now,
    /// The client has `delayed_close_timeout` to read what it was not after.
    Delayed,
}

/// A request that has arrived.
pub(super) struct Arrival {
    pub(super) headers: HeaderList,
    pub(super) end_stream: bool,
    pub(super) protocol: Protocol,
    /// The client wants the connection closed behind the answer.
    pub(super) close: bool,
    pub(super) expects_continue: bool,
    pub(super) upgrade: Option<Upgrade>,
}

pub(super) struct Stream {
    worker: Rc<WorkerContext>,
    listener: Rc<LocalListener>,
    chain: Rc<Chain>,
    protocol: Protocol,
    request_complete: bool,
    close: Option<Close>,
    response_done: bool,
    cut: bool,
    attempts: Attempts,
    /// Another protocol was asked for: its name, in lower case.
    upgrade: Option<Upgrade>,
    overall: IdleWatch,
    idle_limit: Duration,
    started: Instant,
    active: Instant,
    request_completed_at: Instant,
}

/// What a request wants its connection to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// The protocol's name, in lower case.
    To(String),
    Connect,
}

impl Stream {
    /// Takes a request that has been read and starts it through the chain.
    pub(super) fn start(
        worker: &Rc<WorkerContext>,
        listener: &Rc<LocalListener>,
        peer: Peer,
        mut arrival: Arrival,
        downstream: &mut dyn Downstream,
    ) -> Self {
        if arrival.expects_continue {
            downstream.proceed();
        }
        rules::drop_connection_headers(&mut arrival.headers, arrival.upgrade.is_some());
        let mut stream = Self::new(worker, listener, peer, arrival.protocol);
        stream.request_complete = arrival.end_stream;
        stream.close = arrival.close.then_some(Close::Now);
        stream.upgrade = arrival.upgrade;
        if let Some(refusal) = rules::refusal(&mut arrival.headers, &listener.shared.config) {
            if refusal.code == 400 {
                stream.close = Some(Close::Delayed);
            }
            stream.chain.refuse(Some(arrival.headers), refusal);
            return stream;
        }
        let source = rules::prepare_request(&mut arrival.headers, &listener.shared.config, peer);
        stream.chain.exchange().info_mut().downstream_remote = Some(source);
        if stream.upgrade.is_some() && !stream.allows_upgrade(&arrival.headers) {
            stream.close = Some(Close::Delayed);
            stream.chain.refuse(Some(arrival.headers), LocalReply::new(403, "", "upgrade_failed"));
            return stream;
        }
        stream.chain.on_headers(Side::Request, arrival.headers, arrival.end_stream);
        stream.take_idle_limit();
        stream
    }

    /// By the route, else by the listener. Where no route takes a tunnel it goes
    /// the way of every request without one.
    fn allows_upgrade(&self, headers: &HeaderList) -> bool {
        let route = self.listener.routes.route(headers);
        let route = route.as_ref().and_then(|route| self.listener.shared.compiled(route));
        let name = match &self.upgrade {
            None => return true,
            Some(Upgrade::Connect) if route.is_none() => return true,
            Some(Upgrade::Connect) => "CONNECT",
            Some(Upgrade::To(name)) => name,
        };
        let of_route =
            route.and_then(|route| route.config.upgrades.iter().find(|one| one.name.eq_ignore_ascii_case(name)));
        match of_route {
            Some(upgrade) => upgrade.enabled,
            None => self.listener.shared.config.upgrades.iter().any(|one| one.eq_ignore_ascii_case(name)),
        }
    }

    fn take_idle_limit(&mut self) {
        let route = self.chain.exchange().route();
        let route = route.as_ref().and_then(|route| self.listener.shared.compiled(route));
        if let Some(limit) = route.and_then(|route| route.config.idle_timeout) {
            self.idle_limit = limit;
        }
    }

    /// Answers a request that no filter gets to see, except in the end.
    pub(super) fn refuse(
        worker: &Rc<WorkerContext>,
        listener: &Rc<LocalListener>,
        peer: Peer,
        bad: BadRequest,
    ) -> Self {
        let (code, text, details) = bad.answer();
        let mut stream = Self::new(worker, listener, peer, Protocol::Http11);
        stream.close = Some(Close::Delayed);
        stream.request_complete = true;
        stream.chain.refuse(None, LocalReply::new(code, text, details));
        stream
    }

    /// Answers a request whose body cannot be read, if that is still possible.
    pub(super) fn refuse_rest(&mut self, bad: BadRequest) {
        let (code, text, details) = bad.answer();
        self.close = Some(Close::Delayed);
        self.attempts.give_up();
        self.chain.local_reply(LocalReply::new(code, text, details));
    }

    fn new(worker: &Rc<WorkerContext>, listener: &Rc<LocalListener>, peer: Peer, protocol: Protocol) -> Self {
        let shared = &listener.shared;
        shared.stats.rq_total.inc();
        shared.stats.rq_active.inc();
        worker.stream_started();
        let started = Instant::now();
        let filters = Rc::clone(&listener.chain.borrow());
        let chain = Chain::new(ChainParams {
            filters: &filters,
            info: StreamInfo {
                protocol,
                start: SystemTime::now(),
                connection_id: peer.connection_id,
                downstream_remote: Some(peer.remote),
                downstream_local: Some(peer.local),
                ..StreamInfo::default()
            },
            listener: shared.info.clone(),
            routes: Rc::clone(&listener.routes),
            buffer_limit: shared.config.buffer_limit,
        });
        Self {
            worker: Rc::clone(worker),
            listener: Rc::clone(listener),
            chain,
            protocol,
            request_complete: false,
            close: None,
            response_done: false,
            cut: false,
            attempts: Attempts::default(),
            upgrade: None,
            overall: IdleWatch::default(),
            idle_limit: shared.config.stream_idle_timeout,
            started,
            active: started,
            request_completed_at: started,
        }
    }

    /// The request has not all been read, and somebody can take more of it.
    pub(super) fn wants_body(&self) -> bool {
        !self.request_complete
            && !self.response_done
            // An answer of ours does not wait for the rest of the question.
            && !self.chain.is_local_reply()
            && self.chain.wants_data(Side::Request)
            && self.attempts.wants_data()
    }

    pub(super) fn is_request_complete(&self) -> bool {
        self.request_complete
    }

    /// Takes what has arrived of the request's body.
    pub(super) fn on_data(&mut self, data: Body, end: bool) {
        self.request_complete = end;
        self.note_activity();
        self.note_request_complete();
        self.chain.on_data(Side::Request, data, end);
    }

    pub(super) fn on_trailers(&mut self, trailers: HeaderList) {
        self.request_complete = true;
        self.note_request_complete();
        self.chain.on_trailers(Side::Request, trailers);
    }

    fn note_request_complete(&mut self) {
        if self.request_complete {
            self.request_completed_at = Instant::now();
            if self.attempts.upstream.is_some() {
                self.attempts.start_clock();
            }
        }
    }

    fn note_activity(&mut self) {
        self.active = Instant::now();
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>, idle: &mut IdleWatch) -> bool {
        let slow = if self.request_complete { Duration::ZERO } else { self.listener.shared.config.request_timeout };
        if self.overall.poll(cx, self.started, slow).is_ready() {
            self.attempts.give_up();
            self.listener.shared.stats.rq_timeout.inc();
            self.reply(LocalReply::new(408, "request timeout", "request_overall_timeout"));
            return true;
        }
        if idle.poll(cx, self.active, self.idle_limit).is_pending() {
            return false;
        }
        self.idle_limit = Duration::ZERO;
        self.attempts.give_up();
        self.listener.shared.stats.rq_idle_timeout.inc();
        self.chain.exchange().info_mut().response_flags |= flags::STREAM_IDLE_TIMEOUT;
        if self.chain.exchange().headers(Side::Response).is_some() {
            self.chain.exchange().info_mut().response_code_details = Some("stream_idle_timeout".into());
            self.chain.reset();
        } else {
            let code = if self.request_complete { 504 } else { 408 };
            self.reply(LocalReply::new(code, "stream timeout", "stream_idle_timeout"));
        }
        true
    }

    /// The client has gone.
    pub(super) fn on_disconnect(&mut self) {
        self.chain.exchange().info_mut().response_flags |= flags::DOWNSTREAM_CONNECTION_TERMINATION;
        let details = "downstream_remote_disconnect";
        self.chain.exchange().info_mut().response_code_details.get_or_insert(details.into());
        self.listener.shared.stats.rq_rx_reset.inc();
    }

    /// The client has given the stream up, and not the connection.
    pub(super) fn on_reset(&mut self) {
        self.chain.exchange().info_mut().response_flags |= flags::DOWNSTREAM_CONNECTION_TERMINATION;
        self.chain.exchange().info_mut().response_code_details.get_or_insert("http2.remote_reset".into());
        self.listener.shared.stats.rq_rx_reset.inc();
    }

    /// `idle` may serve one stream after the other.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, downstream: &mut dyn Downstream, idle: &mut IdleWatch) -> Step {
        self.chain.set_waker(cx.waker());
        let mut progress = false;
        while let Some(output) = self.chain.next_output() {
            progress = true;
            self.apply(output, downstream);
            if self.cut {
                return Step::Cut;
            }
        }
        if self.response_done {
            return Step::Done { close: self.close };
        }
        if self.chain.is_local_reply() {
            self.attempts.give_up();
        }
        progress |= self.poll_attempts(cx, downstream.unsent());
        progress |= !progress && self.poll_idle(cx, idle);
        if progress { Step::Progress } else { Step::Pending }
    }
}

impl Drop for Stream {
    /// Every way a stream can end comes through here.
    fn drop(&mut self) {
        self.attempts.give_up();
        let stats = &self.listener.shared.stats;
        stats.rq_active.dec();
        stats.rq_completed.inc();
        let mut info = self.chain.exchange().info_mut();
        info.duration = Some(self.started.elapsed());
        match info.response_code_details.as_deref() {
            Some("request_payload_too_large") => stats.rq_too_large.inc(),
            Some("response_payload_too_large") => stats.rs_too_large.inc(),
            _ => {}
        }
        drop(info);
        self.chain.finish();
        self.worker.stream_ended();
    }
}
