//! Statistics under Envoy's names: a registry to count in, values to read out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Stat {
    pub name: String,
    pub value: StatValue,
}

/// What a statistic holds.
#[derive(Debug, Clone, PartialEq)]
pub enum StatValue {
    Counter(u64),
    Gauge(u64),
    Histogram(Histogram),
}

/// What was recorded into a histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    pub count: u64,
    /// Of the middles of the bins that the values fell into.
    pub sum: f64,
    /// `(quantile in percent, value)`, for the quantiles Envoy prints.
    pub quantiles: Vec<(f64, f64)>,
    /// `(bound, values up to it)`, for the bounds Envoy prints.
    pub buckets: Vec<(f64, u64)>,
}

/// A counter or gauge that any thread may move.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves a gauge down; not below zero.
    pub fn sub(&self, n: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(old.saturating_sub(n)));
    }
}

/// Upper bounds that Envoy's Prometheus form has by default.
const BOUNDS: [f64; 19] =
    [0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6];
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Recorded values in bins of two significant digits, and what is made of
/// them, as libcircllhist does for Envoy.
#[derive(Debug, Default)]
pub struct Samples(Mutex<BTreeMap<Bin, u64>>);

/// The values that share their first two digits; by its lower end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bin(u64);

impl Bin {
    fn of(value: u64) -> Self {
        let mut unit = 1;
        while value / unit >= 100 {
            unit *= 10;
        }
        Self(value / unit * unit)
    }

    #[expect(clippy::cast_precision_loss, reason = "it has two digits")]
    fn left(self) -> f64 {
        self.0 as f64
    }

    fn width(self) -> f64 {
        match self.0 {
            0 => 0.0,
            1..10 => 0.1,
            more => 10f64.powi(i32::try_from(more.ilog10()).unwrap_or(0) - 1),
        }
    }

    fn middle(self) -> f64 {
        let (left, right) = (self.left(), self.left() + self.width());
        if right > 0.0 { 2.0 * left * right / (left + right) } else { 0.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}

impl Samples {
    pub fn record(&self, value: u64) {
        *lock(&self.0).entry(Bin::of(value)).or_default() += 1;
    }

    fn summary(&self) -> Histogram {
        let bins = lock(&self.0);
        let count = bins.values().sum();
        let below = |bound: f64| bins.iter().take_while(|(bin, _)| bin.left() <= bound).map(|(_, count)| count).sum();
        Histogram {
            count,
            sum: bins.iter().map(|(bin, count)| bin.middle() * real(*count)).sum(),
            quantiles: if count == 0 { Vec::new() } else { QUANTILES.map(|q| (q, quantile(&bins, count, q))).to_vec() },
            buckets: BOUNDS.map(|bound| (bound, below(bound))).to_vec(),
        }
    }
}

/// Values lie evenly between the ends of their bin, and not on them.
fn quantile(bins: &BTreeMap<Bin, u64>, count: u64, percent: f64) -> f64 {
    let rank = (percent / 100.0 * real(count)).ceil().max(1.0);
    let mut lower = 0.0;
    for (bin, count) in bins {
        let count = real(*count);
        if rank <= lower + count {
            return bin.left() + bin.width() * (rank - lower) / (count + 1.0);
        }
        lower += count;
    }
    0.0
}

enum Entry {
    Counter(Arc<Number>),
    Gauge(Arc<Number>),
    Samples(Arc<Samples>),
}

/// All statistics of a process. A name may be a counter's and a gauge's at once.
#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<(String, Kind), Entry>>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Gauge,
    Samples,
}

impl Registry {
    /// The counter of this name, made when it is new.
    pub fn counter(&self, name: &str) -> Arc<Number> {
        let key = (name.to_owned(), Kind::Counter);
        match lock(&self.0).entry(key).or_insert_with(|| Entry::Counter(Arc::default())) {
            Entry::Counter(number) => Arc::clone(number),
            _ => Arc::default(),
        }
    }

    pub fn gauge(&self, name: &str) -> Arc<Number> {
        let key = (name.to_owned(), Kind::Gauge);
        match lock(&self.0).entry(key).or_insert_with(|| Entry::Gauge(Arc::default())) {
            Entry::Gauge(number) => Arc::clone(number),
            _ => Arc::default(),
        }
    }

    pub fn samples(&self, name: &str) -> Arc<Samples> {
        let key = (name.to_owned(), Kind::Samples);
        match lock(&self.0).entry(key).or_insert_with(|| Entry::Samples(Arc::default())) {
            Entry::Samples(samples) => Arc::clone(samples),
            _ => Arc::default(),
        }
    }

    /// Everything, sorted by name.
    pub fn snapshot(&self) -> Vec<Stat> {
        lock(&self.0)
            .iter()
            .map(|((name, _), entry)| Stat {
                name: name.clone(),
                value: match entry {
                    Entry::Counter(number) => StatValue::Counter(number.get()),
                    Entry::Gauge(number) => StatValue::Gauge(number.get()),
                    Entry::Samples(samples) => StatValue::Histogram(samples.summary()),
                },
            })
            .collect()
    }
}

/// Nothing panics while these locks are held, so a poisoned one is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that Envoy 1.40 printed of the same values.
    #[test]
    fn histograms_are_summed_up_as_envoy_does() {
        let samples = Samples::default();
        for value in [0, 5, 5, 7, 10, 12, 99, 100, 101, 250, 1234, 5000].repeat(3) {
            samples.record(value);
        }
        let summary = samples.summary();
        assert_eq!((summary.count, summary.sum), (36, 20_704.599_162_022_83));
        let values: Vec<_> = summary.quantiles.iter().map(|(_, value)| *value).collect();
        let envoy = [0.0, 5.085_714_285_714_285, 12.75, 108.571_428_571_428_57, 1275.0, 5050.0];
        assert_eq!(values, [&envoy[..], &[5075.0; 4]].concat());
        let counts: Vec<_> = summary.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [3, 3, 9, 15, 18, 18, 27, 30, 30, 30, 33, 36, 36, 36, 36, 36, 36, 36, 36]);
    }
}
