//! Tries at an upstream: what it does, and whether another try follows.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use spctl_host::{Body, HeaderList, LocalReply, Side, UpstreamInfo};
use tokio::time::Sleep;

use super::super::retry::Retry;
use super::super::{id, rules};
use super::{Stream, flags};
use crate::upstream::{Failure, HIGH_WATERMARK, UpstreamEvent, UpstreamExchange};

/// The tries that one request makes.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) upstream: Option<UpstreamExchange>,
    pub(super) retry: Option<Retry>,
    /// What has gone upstream of the body, while it may have to go again.
    replay: Body,
    ended: bool,
    back_off: Option<Pin<Box<Sleep>>>,
    pub(super) per_try_timeout: Duration,
    per_try: Option<Pin<Box<Sleep>>>,
    pub(super) timeout: Duration,
    global: Option<Pin<Box<Sleep>>>,
}

impl Attempts {
    pub(super) fn wants_data(&self) -> bool {
        self.back_off.is_none() && self.upstream.as_ref().is_none_or(UpstreamExchange::wants_data)
    }

    /// Nothing more is to come from any upstream.
    pub(super) fn give_up(&mut self) {
        self.upstream = None;
        self.back_off = None;
        self.per_try = None;
        self.global = None;
    }

    /// Sends on what has passed the filters of the request's body.
    pub(super) fn send_data(&mut self, data: Body, end: bool, limit: usize) {
        if self.retry.is_some() {
            self.replay.append(&mut data.clone());
            self.ended |= end;
            if self.replay.len() > limit {
                self.retry = None;
                self.replay = Body::new();
            }
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.send_data(data, end);
        }
    }

    pub(super) fn send_trailers(&mut self, trailers: &HeaderList) {
        // What ends in trailers is not kept whole.
        self.retry = None;
        if let Some(upstream) = &mut self.upstream {
            upstream.send_trailers(trailers);
        }
    }

    /// All of the request is there: the time an answer may take runs.
    pub(super) fn start_clock(&mut self) {
        let after = |limit: Duration| (!limit.is_zero()).then(|| Box::pin(tokio::time::sleep(limit)));
        if self.global.is_none() {
            self.global = after(self.timeout);
        }
        if self.per_try.is_none() {
            self.per_try = after(self.per_try_timeout);
        }
    }
}

fn due(timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    let due = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if due {
        *timer = None;
    }
    due
}

impl Stream {
    pub(super) fn poll_attempts(&mut self, cx: &mut Context<'_>, unsent: usize) -> bool {
        if due(&mut self.attempts.back_off, cx) {
            self.try_again();
            return true;
        }
        if due(&mut self.attempts.global, cx) {
            self.on_timeout("response_timeout");
            return true;
        }
        if due(&mut self.attempts.per_try, cx) {
            self.on_per_try_timeout();
            return true;
        }
        let read = unsent < HIGH_WATERMARK && self.chain.wants_data(Side::Response);
        let Some(upstream) = &mut self.attempts.upstream else { return false };
        let Poll::Ready(event) = upstream.poll(cx, read) else { return false };
        self.note_activity();
        self.on_upstream(event);
        true
    }

    fn on_upstream(&mut self, event: UpstreamEvent) {
        match event {
            UpstreamEvent::Connected => self.note_upstream(),
            UpstreamEvent::Response { headers, code, end } => {
                if let Some(upstream) = &self.attempts.upstream {
                    upstream.local().target.stats.count_response(code);
                }
                let wanted = |retry: &Retry| retry.wants_after_status(code);
                if !self.attempts.retry.as_ref().is_some_and(wanted) || !self.retry_later() {
                    self.on_response(headers, end);
                }
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
    }

    pub(super) fn note_upstream(&self) {
        let Some((local, peer)) = self.attempts.upstream.as_ref().and_then(UpstreamExchange::addresses) else { return };
        let mut info = self.chain.exchange().info_mut();
        let ready = info.start.elapsed().ok();
        info.upstream =
            Some(UpstreamInfo { address: Some(peer), local_address: Some(local), transport_failure: None, ready });
    }

    fn note_received(&self, end: bool) {
        if end && let Some(first) = self.attempts.upstream.as_ref().and_then(UpstreamExchange::first_sent) {
            self.chain.exchange().info_mut().backend_latency = Some(first.elapsed());
        }
    }

    fn on_response(&mut self, mut headers: HeaderList, done: bool) {
        self.attempts.per_try = None;
        self.attempts.retry = None;
        self.note_received(done);
        // A response that overtakes its request has no service time.
        if self.request_complete {
            let took = self.request_completed_at.elapsed();
            rules::received_response(&mut headers, &self.listener.shared.config, took);
        }
        if let Some(route) = self.chain.exchange().route()
            && let Some(route) = self.listener.shared.compiled(&route)
        {
            route.change_response(&mut headers, self.chain.exchange());
            if route.tells_attempts {
                let attempts = self.chain.exchange().info().upstream_attempts.to_string();
                headers.set_in_place(b"x-envoy-attempt-count", attempts.as_bytes());
            }
        }
        self.chain.exchange().info_mut().response_code_details = Some("via_upstream".into());
        self.chain.on_headers(Side::Response, headers, done);
    }

    /// Makes another try, after a while; false when none is left.
    fn retry_later(&mut self) -> bool {
        let Some(retry) = &mut self.attempts.retry else { return false };
        let Some(wait) = retry.take(id::random()) else {
            self.chain.exchange().info_mut().response_flags |= flags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
            return false;
        };
        if let Some(upstream) = self.attempts.upstream.take() {
            upstream.local().target.stats.rq_retry.inc();
        }
        self.attempts.per_try = None;
        self.attempts.back_off = Some(Box::pin(tokio::time::sleep(wait)));
        true
    }

    fn try_again(&mut self) {
        self.chain.exchange().info_mut().upstream_attempts += 1;
        let (timeout, per_try) = (self.attempts.timeout, self.attempts.per_try_timeout);
        if !timeout.is_zero()
            && let Some(mut headers) = self.chain.exchange().headers_mut(Side::Request)
        {
            let left = timeout.saturating_sub(self.started.elapsed());
            let timeout = if per_try.is_zero() { left } else { left.min(per_try) };
            rules::expect_answer_within(&mut headers, &self.listener.shared.config, timeout);
            self.count_attempt(&mut headers);
        }
        let (body, ended) = (self.attempts.replay.clone(), self.attempts.ended);
        self.start_attempt(body.is_empty() && (ended || self.request_complete));
        if let Some(upstream) = self.attempts.upstream.as_mut().filter(|_| !body.is_empty()) {
            upstream.send_data(body, ended);
        }
        if self.request_complete {
            self.attempts.start_clock();
        }
    }

    fn on_upstream_failure(&mut self, failure: &Failure) {
        let started = self.chain.exchange().headers(Side::Response).is_some();
        let wanted = |retry: &Retry| retry.wants_after_failure(failure);
        if !started && self.attempts.retry.as_ref().is_some_and(wanted) && self.retry_later() {
            return;
        }
        let flag = match failure {
            Failure::Connect(_) => flags::UPSTREAM_CONNECTION_FAILURE,
            Failure::Terminated => flags::UPSTREAM_CONNECTION_TERMINATION,
            Failure::Protocol => flags::UPSTREAM_PROTOCOL_ERROR,
            Failure::Reset | Failure::Refused => flags::UPSTREAM_REMOTE_RESET,
        };
        let reason = failure.reason();
        let details = failure.details();
        self.attempts.give_up();
        let mut info = self.chain.exchange().info_mut();
        info.response_flags |= flag;
        if let Some(why) = failure.transport() {
            info.upstream.get_or_insert_default().transport_failure = Some(why);
        }
        drop(info);
        if started {
            let details = format!("upstream_reset_after_response_started{{{details}}}");
            self.chain.exchange().info_mut().response_code_details = Some(details.into());
            self.chain.reset();
            return;
        }
        let retried = self.attempts.retry.as_ref().is_some_and(Retry::has_tried);
        let prefix = if retried { "retried and the latest reset reason" } else { "reset reason" };
        let body = format!("upstream connect error or disconnect/reset before headers. {prefix}: {reason}");
        self.reply(LocalReply {
            code: failure.status(),
            body: body.into(),
            details: format!("upstream_reset_before_response_started{{{details}}}").into(),
            ..LocalReply::default()
        });
    }

    fn on_per_try_timeout(&mut self) {
        if let Some(upstream) = &self.attempts.upstream {
            upstream.local().target.stats.rq_per_try_timeout.inc();
        }
        if self.attempts.retry.as_ref().is_some_and(Retry::wants_after_timeout) && self.retry_later() {
            return;
        }
        self.on_timeout("upstream_per_try_timeout");
    }

    fn on_timeout(&mut self, details: &'static str) {
        if let Some(upstream) = &self.attempts.upstream {
            upstream.local().target.stats.rq_timeout.inc();
        }
        self.attempts.give_up();
        self.chain.exchange().info_mut().response_flags |= flags::UPSTREAM_REQUEST_TIMEOUT;
        if self.chain.exchange().headers(Side::Response).is_some() {
            self.chain.exchange().info_mut().response_code_details = Some(details.into());
            self.chain.reset();
        } else {
            self.reply(LocalReply::new(504, "upstream request timeout", details));
        }
    }
}
