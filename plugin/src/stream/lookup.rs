//! A request that waits for the backend's answer. Its hold ends with the answer
//! or with `inject.timeout_ms`, whichever comes first, and with any failure.

use super::{State, Stream};
use crate::events;
use crate::exchange::{Direction, Head};
use crate::host::{Buffer, Flow, Host, Level, Map};
use crate::inject::{self, Answer, Reply, Stage, Wait};
use crate::metrics::Metric;
use crate::record::Record;
use crate::wire;
use std::rc::Rc;

/// What has to come before the backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// Nothing: the request is complete, or its body will not come.
    Nothing {
        complete: bool,
    },
    Body,
}

impl<H: Host> Stream<H> {
    /// Whether a request waits for an answer, and for what first.
    pub(super) fn waits_for(&self, head: &Head<'_>, direction: Direction, ended: bool) -> Option<WaitsFor> {
        let inject = &self.shared.config.inject;
        if !inject.enabled || !inject::asks(inject, head, direction) {
            return None;
        }
        let fits = head.content_length.is_none_or(|length| length <= inject.body_bytes as u64);
        let comes = inject.body && fits && !self.shared.waiting.borrow().bodies_held_back;
        Some(if comes && !ended { WaitsFor::Body } else { WaitsFor::Nothing { complete: ended } })
    }

    /// The headers are there.
    pub(super) fn ask(&mut self, waits_for: Option<WaitsFor>) -> Flow {
        match waits_for {
            None => Flow::Continue,
            Some(WaitsFor::Nothing { complete }) => self.look_up(0, complete),
            Some(WaitsFor::Body) => {
                let shared = &self.shared;
                let now = shared.host.monotonic_ns();
                let wait_ms = shared.config.inject.timeout_ms;
                let body = shared.waiting.borrow_mut().add(self.context, now + wait_ms * 1_000_000);
                shared.arm(wait_ms);
                self.wait = Some(Wait { stage: Stage::Body, held: 0, ended: false, body: Some(body) });
                Flow::Hold
            }
        }
    }

    /// More of the request came while it is held; `size` is all of its body.
    pub(super) fn go_on_waiting(&mut self, size: usize, ended: bool) -> Flow {
        let Some(wait) = &mut self.wait else { return Flow::Continue };
        (wait.held, wait.ended) = (size, ended);
        let expired = wait.body.as_ref().is_some_and(|body| body.expired.get());
        if wait.stage == Stage::Over || expired {
            self.wait = None;
            return Flow::Continue;
        }
        if let Some(body) = &wait.body {
            body.began.set(true);
        }
        self.shared.waiting.borrow_mut().bodies_come = true;
        if size > self.shared.config.inject.body_bytes {
            // Envoy refuses requests that are held beyond what it buffers.
            self.wait = None;
            self.shared.inject_failed("body_too_large");
            return Flow::Continue;
        }
        match wait.stage {
            Stage::Body if ended => self.look_up(size, true),
            _ => Flow::Hold,
        }
    }

    /// Asks the backend; the request is held unless that fails at once. `ended`:
    /// all of the request is here.
    fn look_up(&mut self, held: usize, ended: bool) -> Flow {
        let State::Recording(exchange) = &self.state else { return Flow::Continue };
        let shared = &self.shared;
        let service: Rc<str> = exchange.service.as_deref().map_or_else(|| shared.service.clone(), Rc::from);
        let body = wire::lookup(&Record::new(exchange, &shared.config, &service), !ended);
        let accept = [("accept", "application/x-protobuf")];
        let timeout_ms = shared.config.inject.timeout_ms;
        let Ok(token) = shared.call("/v1/inject", "application/x-protobuf", &accept, &body, timeout_ms) else {
            self.wait = None;
            let refused = self.refuse("unreachable");
            return if refused { Flow::Hold } else { Flow::Continue };
        };
        self.wait = Some(Wait { stage: Stage::Answer(token), held, ended, body: None });
        Flow::Hold
    }

    /// The answer to a call of this stream.
    pub fn on_call_answer(&mut self, token: u32, num_headers: usize, body_size: usize) {
        let Some(wait) = &self.wait else { return };
        if wait.stage != Stage::Answer(token) {
            return;
        }
        let shared = &self.shared;
        // No headers at all: the call was reset.
        let headers = if num_headers > 0 { shared.host.headers(Map::CallHeaders) } else { Default::default() };
        let status = headers.get(":status").and_then(|s| std::str::from_utf8(s).ok()).and_then(|s| s.parse().ok());
        let body = match (status, body_size) {
            (Some(200), 1..=inject::MAX_ANSWER) => shared.host.buffer(Buffer::CallBody, 0, body_size),
            _ => Vec::new(),
        };
        match inject::read(status.unwrap_or(0), &body) {
            Answer::Hit(reply) => self.reply(&reply),
            Answer::Miss => {
                shared.metrics.add(Metric::InjectMisses, 1);
                self.go_on();
            }
            Answer::Failure(reason) => {
                if !self.refuse(reason) {
                    self.go_on();
                }
            }
        }
    }

    fn reply(&mut self, reply: &Reply) {
        let shared = self.shared.clone();
        shared.metrics.add(Metric::InjectHits, 1);
        let (status, bytes) = (reply.status, reply.body.len());
        shared.log(Level::Debug, events::INJECTED, format_args!("status={status} bytes={bytes}"));
        self.end_here();
        shared.host.reply(reply);
    }

    /// Counts a failure; where the configuration is strict, answers the request.
    fn refuse(&mut self, reason: &'static str) -> bool {
        let shared = self.shared.clone();
        shared.inject_failed(reason);
        let strict = shared.config.inject.strict;
        if strict {
            self.end_here();
            shared.host.reply(&Reply {
                status: 503,
                headers: vec![
                    ("content-type".to_owned(), b"text/plain".to_vec()),
                    (inject::MARK.to_owned(), b"failed".to_vec()),
                ],
                body: format!("no recorded answer could be had: {reason}\n").into_bytes(),
            });
        }
        strict
    }

    /// What the backend answers is not recorded as if it had been observed.
    fn end_here(&mut self) {
        self.wait = None;
        if let State::Recording(exchange) = std::mem::replace(&mut self.state, State::Finished) {
            self.shared.release(exchange.held);
        }
        self.shared.noted();
    }

    /// Lets a held request go on: now, or with its next part.
    fn go_on(&mut self) {
        let Some(wait) = &mut self.wait else { return };
        if wait.held == 0 || wait.ended {
            self.wait = None;
            self.shared.host.resume_request();
        } else {
            wait.stage = Stage::Over;
        }
        self.shared.noted();
    }
}

#[cfg(test)]
mod tests;
