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
    pub sum: u64,
    /// `(quantile in percent, value)`, for the quantiles Envoy prints.
    pub quantiles: Vec<(f64, f64)>,
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

/// Recorded values in buckets of two significant digits, as Envoy's histograms
/// keep them.
#[derive(Debug, Default)]
pub struct Samples(Mutex<SampleState>);

#[derive(Debug, Default)]
struct SampleState {
    count: u64,
    sum: u64,
    buckets: BTreeMap<u64, u64>,
}

impl Samples {
    pub fn record(&self, value: u64) {
        let mut state = lock(&self.0);
        state.count += 1;
        state.sum = state.sum.saturating_add(value);
        *state.buckets.entry(bucket(value)).or_default() += 1;
    }

    fn summary(&self) -> Histogram {
        const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];
        let state = lock(&self.0);
        let quantile = |percent: f64| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts stay far below 2^52"
            )]
            let rank = ((percent / 100.0 * state.count as f64).ceil() as u64).max(1);
            let mut seen = 0;
            for (value, count) in &state.buckets {
                seen += count;
                if seen >= rank {
                    #[expect(clippy::cast_precision_loss, reason = "buckets have two digits")]
                    return *value as f64;
                }
            }
            0.0
        };
        let quantiles = if state.count == 0 { Vec::new() } else { QUANTILES.map(|q| (q, quantile(q))).to_vec() };
        Histogram { count: state.count, sum: state.sum, quantiles }
    }
}

fn bucket(value: u64) -> u64 {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    value / unit * unit
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
