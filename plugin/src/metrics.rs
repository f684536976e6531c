//! The filter's counters: names for everyone, deltas kept locally and handed to
//! the proxy in one go. `captured = exported + Σ dropped + queued` at any flush.

use crate::export::Drop;
use crate::host::{Host, MetricKind};
use std::cell::Cell;

/// Requests whose headers the filter saw.
pub const REQUESTS: &str = "softprobe.requests";
/// Exchanges recorded to their end.
pub const CAPTURED: &str = "softprobe.captured";
/// Exchanges that the backend accepted.
pub const EXPORTED: &str = "softprobe.exported";
/// Gauge: exchanges captured and neither exported nor dropped.
pub const QUEUED: &str = "softprobe.queued";
/// Gauge: their encoded bytes.
pub const QUEUED_BYTES: &str = "softprobe.queued_bytes";
/// Exchanges dropped because the queue was full.
pub const DROPPED_QUEUE_FULL: &str = "softprobe.dropped.queue_full";
/// Exchanges that the backend refused for good.
pub const DROPPED_REJECTED: &str = "softprobe.dropped.rejected";
/// Exchanges given up after retries.
pub const DROPPED_RETRIES_EXHAUSTED: &str = "softprobe.dropped.retries_exhausted";
/// Exchanges over `limits.exchange_bytes`, or in an upload answered with 413.
pub const DROPPED_TOO_LARGE: &str = "softprobe.dropped.too_large";
/// Exchanges left when the drain deadline of a replaced filter passed.
pub const DROPPED_SHUTDOWN: &str = "softprobe.dropped.shutdown";
/// Captured exchanges with a body over its cap.
pub const TRUNCATED: &str = "softprobe.truncated";
/// Requests that rules, skips or a gateway left out.
pub const SKIPPED: &str = "softprobe.skipped";
/// Requests answered from the backend; neither captured nor skipped.
pub const INJECT_HITS: &str = "softprobe.inject.hits";
/// Requests for which the backend had no answer.
pub const INJECT_MISSES: &str = "softprobe.inject.misses";
/// Requests for which the backend could not be asked, or not in time.
pub const INJECT_FAILURES: &str = "softprobe.inject.failures";
/// Exchanges dropped because `limits.streams_bytes` was used up.
pub const DROPPED_MEMORY: &str = "softprobe.dropped.memory";
/// Uploads started.
pub const EXPORT_CALLS: &str = "softprobe.export_calls";
/// Uploads that failed or could not be started.
pub const EXPORT_FAILURES: &str = "softprobe.export_failures";
/// Warnings about the configuration, for each VM that loaded it.
pub const CONFIG_WARNINGS: &str = "softprobe.config_warnings";

/// Prefix of every drop counter; the rest is the reason.
pub const DROPPED_PREFIX: &str = "softprobe.dropped.";

/// Index into `NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Requests,
    Captured,
    Exported,
    Queued,
    QueuedBytes,
    QueueFull,
    Rejected,
    RetriesExhausted,
    TooLarge,
    Shutdown,
    Memory,
    Truncated,
    Skipped,
    InjectHits,
    InjectMisses,
    InjectFailures,
    ExportCalls,
    ExportFailures,
    ConfigWarnings,
}

const COUNT: usize = 19;

/// Every metric in the order of `Metric`.
pub const NAMES: [&str; COUNT] = [
    REQUESTS,
    CAPTURED,
    EXPORTED,
    QUEUED,
    QUEUED_BYTES,
    DROPPED_QUEUE_FULL,
    DROPPED_REJECTED,
    DROPPED_RETRIES_EXHAUSTED,
    DROPPED_TOO_LARGE,
    DROPPED_SHUTDOWN,
    DROPPED_MEMORY,
    TRUNCATED,
    SKIPPED,
    INJECT_HITS,
    INJECT_MISSES,
    INJECT_FAILURES,
    EXPORT_CALLS,
    EXPORT_FAILURES,
    CONFIG_WARNINGS,
];

impl From<Drop> for Metric {
    fn from(reason: Drop) -> Metric {
        match reason {
            Drop::QueueFull => Metric::QueueFull,
            Drop::Rejected => Metric::Rejected,
            Drop::RetriesExhausted => Metric::RetriesExhausted,
            Drop::TooLarge => Metric::TooLarge,
            Drop::Shutdown => Metric::Shutdown,
            Drop::Memory => Metric::Memory,
        }
    }
}

/// Deltas since the last flush.
#[derive(Debug)]
pub struct Metrics {
    ids: [Option<u32>; COUNT],
    deltas: [Cell<i64>; COUNT],
}

impl Metrics {
    /// Defines every metric, which must happen once for each root: Envoy gives
    /// a new id each time.
    pub fn define(host: &impl Host) -> Metrics {
        let kind = |name| if name == QUEUED || name == QUEUED_BYTES { MetricKind::Gauge } else { MetricKind::Counter };
        Metrics { ids: NAMES.map(|name| host.define_metric(kind(name), name)), deltas: Default::default() }
    }

    #[inline]
    pub fn add(&self, metric: Metric, delta: i64) {
        if let Some(cell) = self.deltas.get(metric as usize) {
            cell.set(cell.get().wrapping_add(delta));
        }
    }

    pub fn flush(&self, host: &impl Host) {
        for (id, delta) in self.ids.iter().zip(&self.deltas) {
            let delta = delta.take();
            if let (Some(id), true) = (id, delta != 0) {
                host.add_metric(*id, delta);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    #[test]
    fn only_what_changed_costs_a_host_call() {
        let host = FakeHost::new();
        let metrics = Metrics::define(&host);
        metrics.add(Metric::Requests, 2);
        metrics.add(Metric::Queued, 1);
        metrics.add(Metric::Queued, -1);
        metrics.flush(&host);
        metrics.flush(&host);
        assert_eq!(host.metric(REQUESTS), 2);
        assert_eq!(host.with(|s| s.metrics.len()), 1);
    }

    #[test]
    fn the_list_follows_the_enum() {
        assert_eq!(NAMES[Metric::ConfigWarnings as usize], CONFIG_WARNINGS);
        assert_eq!(NAMES[Metric::Shutdown as usize], DROPPED_SHUTDOWN);
    }
}
