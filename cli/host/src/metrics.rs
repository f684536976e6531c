//! Metrics that guests define: numbered per VM, counted process-wide.

use std::sync::Arc;

use crate::stats::{Number, Registry, Samples};
use crate::status::Status;

/// Envoy's namespace of guest metrics.
const PREFIX: &str = "wasmcustom.";

enum Metric {
    Counter(Arc<Number>),
    Gauge(Arc<Number>),
    Histogram(Arc<Samples>),
}

/// The metrics of one VM. Ids count up in steps of four per kind, the kind in
/// the low bits: counters 4, 8…, gauges 5, 9…, histograms 6, 10…
#[derive(Default)]
pub(crate) struct MetricTable {
    kinds: [Vec<Metric>; 3],
}

impl MetricTable {
    pub(crate) fn define(&mut self, stats: &Registry, kind: u32, name: &str) -> Result<u32, Status> {
        let name = format!("{PREFIX}{name}");
        let metric = match kind {
            0 => Metric::Counter(stats.counter(&name)),
            1 => Metric::Gauge(stats.gauge(&name)),
            2 => Metric::Histogram(stats.samples(&name)),
            _ => return Err(Status::BadArgument),
        };
        let table = self.kinds.get_mut(kind as usize).ok_or(Status::BadArgument)?;
        table.push(metric);
        let n = u32::try_from(table.len()).map_err(|_| Status::InternalFailure)?;
        Ok((n << 2) | kind)
    }

    /// Envoy looks at the kind in the low bits first.
    fn find(&self, id: u32) -> Result<&Metric, Status> {
        let table = self.kinds.get((id & 3) as usize).ok_or(Status::NotFound)?;
        (id >> 2).checked_sub(1).and_then(|index| table.get(index as usize)).ok_or(Status::NotFound)
    }

    pub(crate) fn increment(&self, id: u32, delta: i64) -> Result<(), Status> {
        if !counts(id) {
            return Err(Status::BadArgument);
        }
        match self.find(id)? {
            Metric::Counter(number) if delta > 0 => number.add(delta.unsigned_abs()),
            Metric::Gauge(number) if delta >= 0 => number.add(delta.unsigned_abs()),
            Metric::Gauge(number) => number.sub(delta.unsigned_abs()),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    pub(crate) fn record(&self, id: u32, value: u64) -> Result<(), Status> {
        match self.find(id)? {
            Metric::Counter(number) => number.add(value),
            Metric::Gauge(number) => number.set(value),
            Metric::Histogram(samples) => samples.record(value),
        }
        Ok(())
    }

    pub(crate) fn get(&self, id: u32) -> Result<u64, Status> {
        if !counts(id) {
            return Err(Status::BadArgument);
        }
        match self.find(id)? {
            Metric::Counter(number) | Metric::Gauge(number) => Ok(number.get()),
            Metric::Histogram(_) => Err(Status::BadArgument),
        }
    }
}

/// The id is of a counter or a gauge, whether there is such a one or not.
fn counts(id: u32) -> bool {
    id & 3 < 2
}
