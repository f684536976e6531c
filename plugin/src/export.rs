//! The bounded queue of finished exchanges and what becomes of each upload:
//! batching, retry with back-off, drops with a reason. Pure: driven by the
//! root's ticks and answers, knows neither host nor wire format.

use crate::config::{Export, Limits};
use std::collections::VecDeque;
use std::rc::Rc;

/// How far into the queue one batch looks for exchanges that belong to it.
const BATCH_SCAN: usize = 1024;
/// A backend cannot silence the filter for longer than this.
const MAX_RETRY_AFTER_MS: u64 = 300_000;
const NS_PER_MS: u64 = 1_000_000;

/// One finished, redacted, encoded exchange.
#[derive(Clone, Debug)]
pub struct Item {
    pub service: Rc<str>,
    /// Uploads do not mix exchanges of different keys.
    pub key: Option<Rc<str>>,
    pub span: Vec<u8>,
    pub queued_ns: u64,
}

/// Exchanges that are sent together.
#[derive(Clone, Debug)]
pub struct Batch {
    pub body: Vec<u8>,
    pub exchanges: u64,
    /// What the exchanges count for in the queue.
    pub bytes: usize,
    /// When the oldest of them came.
    pub queued_ns: u64,
    /// What its exchanges have in common.
    pub key: Option<Rc<str>>,
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The backend answered.
    Status { status: u16, retry_after_ms: Option<u64>, rejected: u64 },
    /// Reset, or the proxy refused to start the call.
    None,
}

/// What an answer means for the exchanges of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Exported { accepted: u64, rejected: u64 },
    Dropped { exchanges: u64, reason: Drop },
    Retrying { pause_ms: u64 },
}

/// Why exchanges were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    QueueFull,
    Rejected,
    RetriesExhausted,
    TooLarge,
    Shutdown,
    Memory,
}

/// Waiting, failed and flying exchanges, in the order they came.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    export: Export,
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    failed: VecDeque<Batch>,
    flying: Vec<(u32, Batch)>,
    exchanges: u64,
    bytes: usize,
    /// Uploads that failed in a row.
    failures: u32,
    /// Nothing is sent before this moment.
    hold_until_ns: u64,
    draining: bool,
}

impl Queue {
    pub fn new(limits: Limits, export: Export) -> Queue {
        Queue {
            limits,
            export,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            failed: VecDeque::new(),
            flying: Vec::new(),
            exchanges: 0,
            bytes: 0,
            failures: 0,
            hold_until_ns: 0,
            draining: false,
        }
    }

    /// Exchanges that are neither exported nor dropped.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.exchanges == 0
    }

    /// Adds an exchange; returns how many were dropped to make room, the new
    /// one among them when what is flying leaves none.
    pub fn push(&mut self, item: Item) -> u64 {
        let size = item.span.len();
        self.exchanges += 1;
        self.bytes += size;
        self.waiting_bytes += size;
        self.waiting.push_back(item);
        let before = self.exchanges;
        while self.bytes > self.limits.queue_bytes {
            if let Some(batch) = self.failed.pop_front() {
                self.forget(&batch);
            } else if let Some(item) = self.waiting.pop_front() {
                self.exchanges -= 1;
                self.bytes -= item.span.len();
                self.waiting_bytes -= item.span.len();
            } else {
                break;
            }
        }
        before - self.exchanges
    }

    /// The next upload, if one is due. `frame` encodes the chosen exchanges.
    pub fn next_batch(&mut self, now_ns: u64, frame: impl Fn(&[Item]) -> Vec<u8>) -> Option<Batch> {
        if self.flying.len() >= self.concurrency() || now_ns < self.hold_until_ns {
            return None;
        }
        if let Some(batch) = self.failed.pop_front() {
            return Some(batch);
        }
        if !self.is_due(now_ns) {
            return None;
        }
        self.take_batch(&frame)
    }

    /// An upload is under way.
    pub fn sent(&mut self, token: u32, batch: Batch) {
        self.flying.push((token, batch));
    }

    /// Takes the upload that an answer belongs to.
    pub fn landed(&mut self, token: u32) -> Option<Batch> {
        let at = self.flying.iter().position(|(flying, _)| *flying == token)?;
        Some(self.flying.swap_remove(at).1)
    }

    /// Takes over an upload of another queue.
    pub fn adopt(&mut self, batch: Batch) {
        self.exchanges += batch.exchanges;
        self.bytes += batch.bytes;
        self.failed.push_back(batch);
    }

    /// Empties the queue into uploads, those under way first: what became of
    /// them will not be known.
    pub fn give_away(&mut self, frame: impl Fn(&[Item]) -> Vec<u8>) -> Vec<Batch> {
        let mut batches: Vec<Batch> = self.flying.drain(..).map(|(_, batch)| batch).collect();
        batches.extend(self.failed.drain(..));
        while !self.waiting.is_empty() {
            batches.extend(self.take_batch(&frame));
        }
        self.clear();
        batches
    }

    /// Decides what an answer means (OTLP/HTTP, "Failures" and "Retryable
    /// response codes"). `jitter` is any random number.
    pub fn settle(&mut self, batch: Batch, answer: Answer, now_ns: u64, jitter: u32) -> Settled {
        let exchanges = batch.exchanges;
        let retry_after = match answer {
            Answer::Status { status: 200..=299, rejected, .. } => {
                self.recovered();
                self.forget(&batch);
                let rejected = rejected.min(exchanges);
                return Settled::Exported { accepted: exchanges - rejected, rejected };
            }
            Answer::Status { status: 429 | 502 | 503 | 504, retry_after_ms, .. } => retry_after_ms,
            Answer::Status { status, .. } => {
                self.recovered();
                self.forget(&batch);
                let reason = if status == 413 { Drop::TooLarge } else { Drop::Rejected };
                return Settled::Dropped { exchanges, reason };
            }
            Answer::None => None,
        };
        self.failures = self.failures.saturating_add(1);
        let pause_ms = self.pause_ms(retry_after, jitter);
        self.hold_until_ns = now_ns.saturating_add(pause_ms * NS_PER_MS);
        let age_ms = now_ns.saturating_sub(batch.queued_ns) / NS_PER_MS;
        if age_ms >= self.export.retry.max_age_ms {
            self.forget(&batch);
            return Settled::Dropped { exchanges, reason: Drop::RetriesExhausted };
        }
        self.failed.push_back(batch);
        Settled::Retrying { pause_ms }
    }

    /// Milliseconds until `next_batch` can give something; `None` when only an
    /// answer can change that.
    pub fn wake_in_ms(&self, now_ns: u64) -> Option<u64> {
        if self.flying.len() >= self.concurrency() || self.waiting.is_empty() && self.failed.is_empty() {
            return None;
        }
        let due_ns = match self.waiting.front() {
            _ if !self.failed.is_empty() || self.is_due(now_ns) => now_ns,
            Some(item) => item.queued_ns + self.limits.linger_ms * NS_PER_MS,
            None => now_ns,
        };
        let wait_ns = due_ns.max(self.hold_until_ns).saturating_sub(now_ns);
        Some(wait_ns.div_ceil(NS_PER_MS).max(1))
    }

    /// From now on nothing lingers.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Gives up on everything; returns how many exchanges that were.
    pub fn clear(&mut self) -> u64 {
        self.waiting.clear();
        self.failed.clear();
        self.flying.clear();
        self.waiting_bytes = 0;
        self.bytes = 0;
        std::mem::take(&mut self.exchanges)
    }

    /// While the backend fails, one upload at a time finds out whether it is back.
    fn concurrency(&self) -> usize {
        if self.failures > 0 { 1 } else { self.export.concurrency }
    }

    fn is_due(&self, now_ns: u64) -> bool {
        let Some(oldest) = self.waiting.front() else { return false };
        self.draining
            || self.waiting_bytes >= self.limits.batch_bytes
            || self.waiting.len() >= self.limits.batch_exchanges
            || now_ns >= oldest.queued_ns + self.limits.linger_ms * NS_PER_MS
    }

    fn take_batch(&mut self, frame: &impl Fn(&[Item]) -> Vec<u8>) -> Option<Batch> {
        let items = self.take_items();
        let bytes = items.iter().map(|item| item.span.len()).sum();
        self.waiting_bytes -= bytes;
        let first = items.first()?;
        let (queued_ns, key) = (first.queued_ns, first.key.clone());
        Some(Batch { body: frame(&items), exchanges: items.len() as u64, bytes, queued_ns, key })
    }

    /// Takes the oldest exchange and, up to the bounds of a batch, those that
    /// may travel with it.
    fn take_items(&mut self) -> Vec<Item> {
        let key = self.waiting.front().and_then(|item| item.key.clone());
        let mut taken = Vec::new();
        let mut others = Vec::new();
        let mut bytes = 0;
        for _ in 0..BATCH_SCAN.max(self.limits.batch_exchanges) {
            if taken.len() >= self.limits.batch_exchanges {
                break;
            }
            let Some(item) = self.waiting.pop_front() else { break };
            if item.key != key {
                others.push(item);
                continue;
            }
            if !taken.is_empty() && bytes + item.span.len() > self.limits.batch_bytes {
                self.waiting.push_front(item);
                break;
            }
            bytes += item.span.len();
            taken.push(item);
        }
        others.into_iter().rev().for_each(|item| self.waiting.push_front(item));
        taken
    }

    fn forget(&mut self, batch: &Batch) {
        self.exchanges -= batch.exchanges;
        self.bytes -= batch.bytes;
    }

    fn recovered(&mut self) {
        self.failures = 0;
        self.hold_until_ns = 0;
    }

    /// Exponential back-off; half of the pause is jitter, so that the workers
    /// of many proxies do not come back together.
    fn pause_ms(&self, retry_after_ms: Option<u64>, jitter: u32) -> u64 {
        if let Some(asked) = retry_after_ms {
            return asked.clamp(1, MAX_RETRY_AFTER_MS);
        }
        let doublings = self.failures.saturating_sub(1).min(20);
        let retry = &self.export.retry;
        let pause = retry.initial_ms.saturating_mul(1 << doublings).min(retry.max_ms.max(retry.initial_ms));
        (pause - u64::from(jitter) % (pause / 2 + 1)).max(1)
    }
}

#[cfg(test)]
mod tests;
