//! The root of a VM's filter: takes the configuration, sends what the streams
//! queued, and outlives its streams until that is done. The only one who
//! dispatches: an answer is routed to the context that asked, and a stream is
//! gone by then.

use crate::config::{self, Config, Warning};
use crate::events;
use crate::export::{Answer, Batch, Drop, Item, Settled};
use crate::handoff::Handoff;
use crate::host::{Buffer, Host, Level, Map};
use crate::metrics::{Metric, Metrics};
use crate::shared::Shared;
use crate::stream::Stream;
use crate::wire;
use std::rc::Rc;

/// Bytes of an answer that are read, to find `partial_success`.
const MAX_ANSWER: usize = 4096;
const NS_PER_MS: u64 = 1_000_000;

pub struct Root<H> {
    host: H,
    active: Option<Active<H>>,
}

/// A root that took its configuration.
struct Active<H> {
    shared: Rc<Shared<H>>,
    failures: u64,
    handoff: Handoff,
    /// When a root that has to go stops sending.
    deadline_ns: Option<u64>,
}

impl<H: Host + Clone> Root<H> {
    pub fn new(host: H) -> Root<H> {
        Root { host, active: None }
    }

    /// Takes a configuration; `false` refuses it, and the proxy keeps the old one.
    pub fn on_configure(&mut self, size: usize) -> bool {
        let bytes = if size == 0 { Vec::new() } else { self.host.buffer(Buffer::PluginConfiguration, 0, size) };
        match config::parse(&bytes) {
            Ok(parsed) => {
                self.active = Some(Active::new(self.host.clone(), parsed.config, &parsed.warnings));
                true
            }
            Err(error) => {
                let (path, reason) = (&error.path, &error.message);
                let line = format!("SP {} path={path:?} reason={reason:?}", events::CONFIG_REFUSED);
                self.host.log(Level::Error, &line);
                false
            }
        }
    }

    /// The recorder of a new stream; none before a configuration was taken.
    pub fn stream(&self, context: u32) -> Option<Stream<H>> {
        self.active.as_ref().map(|active| Stream::new(active.shared.clone(), context))
    }

    pub fn on_tick(&mut self) {
        if let Some(active) = &mut self.active {
            active.pump();
            active.end_waits();
        }
    }

    pub fn on_call_answer(&mut self, token: u32, num_headers: usize, body_size: usize) {
        if let Some(active) = &mut self.active {
            active.land(token, num_headers, body_size);
            active.pump();
        }
    }

    /// `true`: nothing is left to send. Otherwise the root asks to stay, and
    /// says when it is done.
    pub fn on_done(&mut self) -> bool {
        let Some(active) = &mut self.active else { return true };
        active.drain()
    }
}

impl<H: Host> Active<H> {
    fn new(host: H, config: Config, warnings: &[Warning]) -> Active<H> {
        let metrics = Metrics::define(&host);
        metrics.add(Metric::ConfigWarnings, warnings.len() as i64);
        let service: Rc<str> = match &config.service_name {
            Some(name) => name.as_str().into(),
            None => detect_service(&host).into(),
        };
        let idle = config.skip_gateways && is_gateway(&host);
        let shared = Shared::new(host, config, service, idle, metrics);
        for Warning { path, message } in warnings {
            shared.log(Level::Warn, events::CONFIG_WARNING, format_args!("path={path:?} reason={message:?}"));
        }
        let (version, wire) = (env!("CARGO_PKG_VERSION"), shared.config.wire.name());
        let (cluster, service) = (&shared.config.backend.cluster, &shared.service);
        shared.log(
            Level::Info,
            events::STARTED,
            format_args!(
                "version={version} wire={wire} cluster={cluster:?} service={service:?} warnings={}",
                warnings.len()
            ),
        );
        if idle {
            shared.log(Level::Info, events::GATEWAY_SKIPPED, format_args!("key=skip_gateways"));
        }
        shared.flush();
        if shared.config.sampling.is_some() {
            shared.arm(1);
        }
        let handoff = Handoff::join(&shared.host, shared.config.export.load);
        Active { shared: Rc::new(shared), failures: 0, handoff, deadline_ns: None }
    }

    /// Sends what is due, reports, and sets the next tick.
    fn pump(&mut self) {
        let now = self.shared.host.monotonic_ns();
        self.shared.poll_level(now);
        if self.deadline_ns.is_none() {
            self.take_over(now);
        }
        loop {
            let wire = self.shared.config.wire;
            let batch = self.shared.queue.borrow_mut().next_batch(now, |items| frame(wire, items));
            match batch {
                Some(batch) => self.send(batch, now),
                None => break,
            }
        }
        let mut wake = self.shared.queue.borrow().wake_in_ms(now);
        for other in [self.shared.waiting.borrow().wake_in_ms(now), self.sample(now)] {
            wake = wake.into_iter().chain(other).min();
        }
        if let Some(deadline) = self.deadline_ns {
            if now >= deadline || self.shared.queue.borrow().is_empty() {
                return self.leave();
            }
            let left = (deadline - now).div_ceil(NS_PER_MS);
            wake = Some(wake.map_or(left, |wake| wake.min(left)).max(1));
        }
        self.shared.flush();
        self.shared.set_tick(wake.unwrap_or(0));
    }

    /// Lets requests go on that waited for their body long enough. Last in a
    /// tick: it makes their contexts the active ones.
    fn end_waits(&mut self) {
        let shared = &self.shared;
        let now = shared.host.monotonic_ns();
        loop {
            let next = shared.waiting.borrow_mut().next_expired(now);
            let Some((context, wait)) = next else { return };
            shared.inject_failed("timeout");
            if wait.began.get() {
                // It goes on with its next part, see `Stage::Over`.
                continue;
            }
            let mut waiting = shared.waiting.borrow_mut();
            let new = !waiting.bodies_come && !waiting.bodies_held_back;
            waiting.bodies_held_back |= new;
            drop(waiting);
            if new {
                shared.log(Level::Warn, events::INJECT_NO_BODY, format_args!("key=inject.body"));
            }
            shared.host.activate(context);
            shared.host.resume_request();
        }
    }

    /// Asks what is to be traced, where that is configured; milliseconds until
    /// it is time again.
    fn sample(&self, now: u64) -> Option<u64> {
        let shared = &self.shared;
        let sampling = shared.config.sampling.as_ref().filter(|_| self.deadline_ns.is_none())?;
        Some(shared.sampled.borrow_mut().ask(&shared.host, sampling, now))
    }

    fn send(&mut self, batch: Batch, now: u64) {
        let shared = self.shared.clone();
        let wire = shared.config.wire;
        let key = wire::key_header(wire).zip(batch.key.as_deref());
        let timeout_ms = shared.config.export.timeout_ms;
        shared.metrics.add(Metric::ExportCalls, 1);
        match shared.call(wire::path(wire), wire::content_type(wire), key.as_slice(), &batch.body, timeout_ms) {
            Ok(token) => shared.queue.borrow_mut().sent(token, batch),
            Err(_) => self.settle(batch, Answer::None, now),
        }
    }

    /// Reads an answer. No headers at all mean that there was none: a reset, or
    /// more than the proxy buffers.
    fn land(&mut self, token: u32, num_headers: usize, body_size: usize) {
        if self.shared.sampled.borrow_mut().answered(&self.shared.host, token, num_headers, body_size) {
            return;
        }
        let Some(batch) = self.shared.queue.borrow_mut().landed(token) else { return };
        let host = &self.shared.host;
        let mut answer = Answer::None;
        if num_headers > 0 {
            let headers = host.headers(Map::CallHeaders);
            let number =
                |name: &str| -> Option<u64> { std::str::from_utf8(headers.get(name)?).ok()?.trim().parse().ok() };
            let is_protobuf =
                headers.get("content-type").is_none_or(|kind| kind.starts_with(b"application/x-protobuf"));
            let rejected = match body_size {
                1..=MAX_ANSWER if is_protobuf => wire::rejected_spans(&host.buffer(Buffer::CallBody, 0, body_size)),
                _ => 0,
            };
            if let Some(status) = number(":status").and_then(|status| u16::try_from(status).ok()) {
                let retry_after_ms = number("retry-after").map(|seconds| seconds.saturating_mul(1000));
                answer = Answer::Status { status, retry_after_ms, rejected };
            }
        }
        self.settle(batch, answer, host.monotonic_ns());
    }

    fn settle(&mut self, batch: Batch, answer: Answer, now: u64) {
        let shared = &self.shared;
        let exchanges = batch.exchanges;
        let status = match answer {
            Answer::Status { status, .. } => status,
            Answer::None => 0,
        };
        let jitter = u32::from_le_bytes(shared.random());
        let settled = shared.queue.borrow_mut().settle(batch, answer, now, jitter);
        match settled {
            Settled::Exported { accepted, rejected } => {
                shared.metrics.add(Metric::Exported, accepted as i64);
                shared.dropped(Drop::Rejected, rejected, status);
                shared.log(Level::Debug, events::EXPORTED, format_args!("exchanges={accepted}"));
                let failures = std::mem::take(&mut self.failures);
                if failures > 0 {
                    shared.log(Level::Info, events::EXPORT_RECOVERED, format_args!("failures={failures}"));
                }
            }
            Settled::Dropped { reason, .. } => {
                self.failures += 1;
                shared.metrics.add(Metric::ExportFailures, 1);
                shared.dropped(reason, exchanges, status);
            }
            Settled::Retrying { pause_ms } => {
                self.failures += 1;
                shared.metrics.add(Metric::ExportFailures, 1);
                let detail = format_args!("status={status} exchanges={exchanges} pause_ms={pause_ms}");
                shared.log(Level::Warn, events::EXPORT_RETRY, detail);
            }
        }
    }

    fn drain(&mut self) -> bool {
        let now = self.shared.host.monotonic_ns();
        let waiting = self.shared.queue.borrow().exchanges();
        if waiting == 0 {
            self.shared.flush();
            self.shared.set_tick(0);
            return true;
        }
        if self.handoff.has_successor(&self.shared.host) {
            self.hand_over();
            return true;
        }
        self.shared.log(Level::Info, events::DRAINING, format_args!("exchanges={waiting}"));
        self.shared.queue.borrow_mut().drain();
        self.deadline_ns = Some(now.saturating_add(self.shared.config.export.drain_ms.max(1) * NS_PER_MS));
        self.pump();
        false
    }

    /// Leaves everything to the filter that replaces this one.
    fn hand_over(&mut self) {
        let shared = &self.shared;
        shared.flush();
        let wire = shared.config.wire;
        let batches = shared.queue.borrow_mut().give_away(|items| frame(wire, items));
        let mut given = 0;
        for batch in batches {
            if self.handoff.give(&shared.host, wire, &batch) {
                shared.moved(-(batch.exchanges as i64), -(batch.bytes as i64));
                given += batch.exchanges;
            } else {
                shared.dropped(Drop::Shutdown, batch.exchanges, 0);
            }
        }
        shared.log(Level::Info, events::HANDED_OVER, format_args!("exchanges={given}"));
        shared.flush();
        shared.set_tick(0);
    }

    /// Takes what replaced filters left.
    fn take_over(&mut self, now: u64) {
        let shared = &self.shared;
        let wire = shared.config.wire;
        while let Some((batch, same_form)) = self.handoff.take(&shared.host, wire, now) {
            let exchanges = batch.exchanges;
            shared.moved(exchanges as i64, batch.bytes as i64);
            if same_form {
                shared.log(Level::Info, events::TAKEN_OVER, format_args!("exchanges={exchanges}"));
                shared.queue.borrow_mut().adopt(batch);
            } else {
                shared.dropped(Drop::Shutdown, exchanges, 0);
            }
        }
    }

    /// The end of a drain, with everything sent or with the deadline over.
    fn leave(&mut self) {
        let lost = self.shared.queue.borrow_mut().clear();
        self.shared.dropped(Drop::Shutdown, lost, 0);
        self.shared.log(Level::Info, events::DRAINED, format_args!("lost={lost}"));
        self.shared.flush();
        self.shared.set_tick(0);
        self.deadline_ns = None;
        self.shared.host.done();
    }
}

/// Encodes a batch, spans grouped by service.
fn frame(wire: config::WireKind, items: &[Item]) -> Vec<u8> {
    let mut groups: Vec<(&str, Vec<&[u8]>)> = Vec::new();
    for item in items {
        match groups.iter_mut().find(|(service, _)| *service == &*item.service) {
            Some((_, spans)) => spans.push(&item.span),
            None => groups.push((&item.service, vec![&item.span])),
        }
    }
    wire::frame(wire, &groups)
}

/// Environment variables that name a service, in order; `true`: the name of a
/// pod, whose ReplicaSet and pod suffixes are cut.
const SERVICE_VARIABLES: [(&str, bool); 11] = [
    ("OTEL_SERVICE_NAME", false),
    ("APP_NAME", false),
    ("SERVICE_NAME", false),
    ("POD_NAME", true),
    ("HOSTNAME", true),
    ("APP_LABEL", false),
    ("SERVICE_LABEL", false),
    ("CONTAINER_NAME", false),
    ("DEPLOYMENT_NAME", false),
    ("K8S_APP", false),
    ("KUBERNETES_APP", false),
];

fn detect_service(host: &impl Host) -> String {
    let environment = host.environment();
    let variable = |name: &str| {
        environment
            .iter()
            .filter_map(|line| line.split_once('='))
            .find(|(key, value)| *key == name && !value.is_empty())
    };
    let from_environment = SERVICE_VARIABLES.iter().find_map(|(name, pod)| {
        let (_, value) = variable(name)?;
        if *pod { workload_of_pod(value) } else { Some(value.to_owned()) }
    });
    let text = |path: &[&str]| {
        let value = host.property(&[&["xds", "node", "metadata"], path].concat())?;
        String::from_utf8(value).ok().filter(|text| !text.is_empty())
    };
    from_environment
        .or_else(|| text(&["WORKLOAD_NAME"]))
        .or_else(|| text(&["LABELS", "app"]))
        .or_else(|| text(&["NAME"]).and_then(|name| workload_of_pod(&name)))
        .unwrap_or_else(|| "unknown-service".to_owned())
}

/// `reviews-v1-545db77b95-x2k4p` is a pod of `reviews-v1`.
fn workload_of_pod(pod: &str) -> Option<String> {
    let (rest, _) = pod.rsplit_once('-')?;
    let (workload, _) = rest.rsplit_once('-')?;
    (!workload.is_empty()).then(|| workload.to_owned())
}

/// Istio gives its gateways node ids that start with their type.
fn is_gateway(host: &impl Host) -> bool {
    let id = host.property(&["xds", "node", "id"]).or_else(|| host.property(&["node", "id"]));
    id.is_some_and(|id| id.starts_with(b"router~"))
}

#[cfg(test)]
mod tests;
