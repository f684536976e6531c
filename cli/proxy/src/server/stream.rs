//! One request on its way through the chain, to an upstream and back.
//!
//! The chain says what goes where; this carries it between the two connections
//! and does what Envoy's router and connection manager do around the filters.

mod respond;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use spctl_host::{Body, Chain, ChainParams, HeaderList, LocalReply, Protocol, Side, StreamInfo, UpstreamInfo};
use tokio::time::Sleep;

use super::downstream::Downstream;
use super::listener::LocalListener;
use super::rules;
use crate::http1::BadRequest;
use crate::upstream::{Failure, HIGH_WATERMARK, UpstreamEvent, UpstreamExchange};
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
    /// The client wants to change the protocol.
    pub(super) upgrade: bool,
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
    upstream: Option<UpstreamExchange>,
    timeout: Option<Pin<Box<Sleep>>>,
    started: Instant,
    request_completed_at: Instant,
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
        rules::drop_connection_headers(&mut arrival.headers);
        let mut stream = Self::new(worker, listener, peer, arrival.protocol);
        stream.request_complete = arrival.end_stream;
        stream.close = arrival.close.then_some(Close::Now);
        let rejected = arrival.upgrade.then_some((403, "upgrade_failed"));
        if let Some((code, details)) = rules::refusal(&arrival.headers).or(rejected) {
            stream.close = Some(Close::Delayed);
            stream.chain.refuse(Some(arrival.headers), LocalReply::new(code, "", details));
            return stream;
        }
        rules::prepare_request(&mut arrival.headers, &listener.shared.config, peer);
        stream.chain.on_headers(Side::Request, arrival.headers, arrival.end_stream);
        stream
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
        self.upstream = None;
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
            upstream: None,
            timeout: None,
            started,
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
            && self.upstream.as_ref().is_none_or(UpstreamExchange::wants_data)
    }

    pub(super) fn is_request_complete(&self) -> bool {
        self.request_complete
    }

    /// Takes what has arrived of the request's body.
    pub(super) fn on_data(&mut self, data: Body, end: bool) {
        self.request_complete = end;
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
            self.arm_timeout();
        }
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

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, downstream: &mut dyn Downstream) -> Step {
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
            self.upstream = None;
        }
        progress |= self.poll_upstream(cx, downstream.unsent());
        progress |= self.poll_timeout(cx);
        if progress { Step::Progress } else { Step::Pending }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>, unsent: usize) -> bool {
        let read = unsent < HIGH_WATERMARK && self.chain.wants_data(Side::Response);
        let Some(upstream) = &mut self.upstream else { return false };
        let Poll::Ready(event) = upstream.poll(cx, read) else { return false };
        match event {
            UpstreamEvent::Connected => self.note_upstream(),
            UpstreamEvent::Response { headers, code, end } => {
                upstream.local().target.stats.count_response(code);
                self.on_response(headers, end);
            }
            UpstreamEvent::Data { data, end } => {
                self.note_received(end);
                self.chain.on_data(Side::Response, data, end);
            }
            UpstreamEvent::Trailers(trailers) => {
                self.note_received(true);
                self.chain.on_trailers(Side::Response, trailers);
            }
            UpstreamEvent::Failed(failure) => self.on_upstream_failure(&failure),
        }
        true
    }

    fn note_upstream(&self) {
        let Some((local, peer)) = self.upstream.as_ref().and_then(UpstreamExchange::addresses) else { return };
        let mut info = self.chain.exchange().info_mut();
        info.upstream = Some(UpstreamInfo {
            address: Some(peer),
            local_address: Some(local),
            transport_failure: None,
            ready: info.start.elapsed().ok(),
        });
    }

    fn note_received(&self, end: bool) {
        if end && let Some(first) = self.upstream.as_ref().and_then(UpstreamExchange::first_sent) {
            self.chain.exchange().info_mut().backend_latency = Some(first.elapsed());
        }
    }

    fn on_response(&mut self, mut headers: HeaderList, done: bool) {
        self.note_received(done);
        // A response that overtakes its request has no service time.
        if self.request_complete {
            let took = self.request_completed_at.elapsed();
            rules::received_response(&mut headers, &self.listener.shared.config, took);
        }
        self.chain.exchange().info_mut().response_code_details = Some("via_upstream".into());
        self.chain.on_headers(Side::Response, headers, done);
    }

    fn on_upstream_failure(&mut self, failure: &Failure) {
        let flag = match failure {
            Failure::Connect(_) => flags::UPSTREAM_CONNECTION_FAILURE,
            Failure::Terminated => flags::UPSTREAM_CONNECTION_TERMINATION,
            Failure::Protocol => flags::UPSTREAM_PROTOCOL_ERROR,
            Failure::Reset | Failure::Refused => flags::UPSTREAM_REMOTE_RESET,
        };
        let reason = failure.reason();
        let details = failure.details();
        self.upstream = None;
        let mut info = self.chain.exchange().info_mut();
        info.response_flags |= flag;
        if let Some(why) = failure.transport() {
            info.upstream.get_or_insert_default().transport_failure = Some(why);
        }
        drop(info);
        if self.chain.exchange().headers(Side::Response).is_some() {
            let details = format!("upstream_reset_after_response_started{{{details}}}");
            self.chain.exchange().info_mut().response_code_details = Some(details.into());
            self.chain.reset();
            return;
        }
        let body = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        self.chain.local_reply(LocalReply {
            code: failure.status(),
            body: body.into(),
            details: format!("upstream_reset_before_response_started{{{details}}}").into(),
            ..LocalReply::default()
        });
    }

    fn arm_timeout(&mut self) {
        if self.upstream.is_none() || self.timeout.is_some() {
            return;
        }
        let Some(route) = self.chain.exchange().route() else { return };
        let Some(config) = self.listener.shared.route_config(&route) else { return };
        if !config.timeout.is_zero() {
            self.timeout = Some(Box::pin(tokio::time::sleep(config.timeout)));
        }
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(timeout) = &mut self.timeout else { return false };
        if timeout.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timeout = None;
        let Some(upstream) = self.upstream.take() else { return true };
        upstream.local().target.stats.rq_timeout.inc();
        self.chain.exchange().info_mut().response_flags |= flags::UPSTREAM_REQUEST_TIMEOUT;
        if self.chain.exchange().headers(Side::Response).is_some() {
            self.chain.exchange().info_mut().response_code_details = Some("response_timeout".into());
            self.chain.reset();
        } else {
            self.chain.local_reply(LocalReply::new(504, "upstream request timeout", "response_timeout"));
        }
        true
    }
}

impl Drop for Stream {
    /// Every way a stream can end comes through here.
    fn drop(&mut self) {
        self.upstream = None;
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
