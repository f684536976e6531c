//! What the streams of one root share with it, within one VM: configuration,
//! queue, counters, clock, random numbers, log level, tick.

use crate::config::Config;
use crate::events;
use crate::exchange::Exchange;
use crate::export::{Drop, Item, Queue};
use crate::host::{Call, CallRefused, Host, Level};
use crate::metrics::{Metric, Metrics};
use crate::sampling::Sampled;
use crate::waiting::Waiting;
use crate::wire;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

/// Random bytes fetched at once: some sixty to two hundred exchanges' worth.
const RANDOM_POOL: usize = 2048;
/// Counters reach the proxy this late at most.
const FLUSH_MS: u64 = 250;
/// How long a level that was asked for is believed.
const LEVEL_NS: u64 = 1_000_000_000;
/// A line about a thing that may happen at every request comes this often.
const SAID_NS: u64 = 1_000_000_000;
/// Memory for encoding that is kept.
const MAX_SCRATCH: usize = 256 << 10;
/// How long the distance between the clocks is believed.
const WALL_NS: u64 = 1_000_000_000;

pub struct Shared<H> {
    pub host: H,
    pub config: Config,
    /// Service of this proxy, found once.
    pub service: Rc<str>,
    /// Nothing is captured here.
    pub idle: bool,
    pub queue: RefCell<Queue>,
    /// Headers of every upload, beside those that the proxy needs.
    pub upload_headers: Vec<(String, String)>,
    pub waiting: RefCell<Waiting>,
    pub sampled: RefCell<Sampled>,
    inject_failures: Cell<(u64, u64)>,
    held: Cell<usize>,
    scratch: RefCell<Vec<u8>>,
    pub metrics: Metrics,
    reported: Cell<(u64, usize)>,
    overflowed: Cell<u64>,
    squeezed: Cell<u64>,
    random: RefCell<Random>,
    wall_offset: Cell<(u64, u64)>,
    level: Cell<(u64, Level)>,
    tick_ms: Cell<u64>,
}

impl<H: Host> Shared<H> {
    pub fn new(host: H, config: Config, service: Rc<str>, idle: bool, metrics: Metrics) -> Shared<H> {
        let queue = Queue::new(config.limits.clone(), config.export.clone());
        let now = host.monotonic_ns();
        let level = host.log_level();
        let offset = host.wall_ns().wrapping_sub(now);
        Shared {
            upload_headers: wire::upload_headers(&config),
            waiting: RefCell::default(),
            sampled: RefCell::default(),
            inject_failures: Cell::new((0, 0)),
            held: Cell::new(0),
            scratch: RefCell::default(),
            host,
            config,
            service,
            idle,
            queue: RefCell::new(queue),
            metrics,
            reported: Cell::new((0, 0)),
            overflowed: Cell::new(0),
            squeezed: Cell::new(0),
            random: RefCell::new(Random { pool: Vec::new(), fallback: offset ^ now.rotate_left(32) }),
            wall_offset: Cell::new((now, offset)),
            level: Cell::new((now, level)),
            tick_ms: Cell::new(0),
        }
    }

    /// Wall clock of a monotonic moment, for one host call a second instead of
    /// one an exchange; durations never see a clock that was set.
    pub fn wall_ns(&self, now_ns: u64) -> u64 {
        let (asked_ns, mut offset) = self.wall_offset.get();
        if now_ns.saturating_sub(asked_ns) > WALL_NS {
            offset = self.host.wall_ns().wrapping_sub(now_ns);
            self.wall_offset.set((now_ns, offset));
        }
        now_ns.wrapping_add(offset)
    }

    /// Random bytes, not all zero (W3C trace-context §3.2.2.3).
    pub fn random<const N: usize>(&self) -> [u8; N] {
        loop {
            let bytes = self.random.borrow_mut().take(&self.host);
            if bytes != [0; N] {
                return bytes;
            }
        }
    }

    /// Takes `bytes` of the memory for exchanges under way, if there are so many.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> bool {
        self.hold_within(bytes, self.config.limits.streams_bytes)
    }

    /// As `hold`, for bodies: a quarter is left for headers, so that an exchange
    /// is cut before one is lost.
    #[must_use]
    pub fn hold_body(&self, bytes: usize) -> bool {
        let limit = self.config.limits.streams_bytes;
        self.hold_within(bytes, limit - limit / 4)
    }

    fn hold_within(&self, bytes: usize, limit: usize) -> bool {
        let held = self.held.get() + bytes;
        let fits = held <= limit;
        if fits {
            self.held.set(held);
        }
        fits
    }

    /// Gives back what `hold` took.
    pub fn release(&self, bytes: usize) {
        self.held.set(self.held.get().saturating_sub(bytes));
    }

    /// Encodes into memory that is used again and again, and returns exactly as
    /// much as was needed: the queue counts what it really holds.
    pub fn encoded(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        encode(&mut scratch);
        let exact = scratch.as_slice().to_vec();
        if scratch.capacity() > MAX_SCRATCH {
            *scratch = Vec::new();
        }
        exact
    }

    /// Counts a lookup that failed, and says so once a second.
    pub fn inject_failed(&self, reason: &'static str) {
        self.metrics.add(Metric::InjectFailures, 1);
        let (said_ns, failures) = self.inject_failures.get();
        let now = self.host.monotonic_ns();
        if now.saturating_sub(said_ns) < SAID_NS {
            return self.inject_failures.set((said_ns, failures + 1));
        }
        self.inject_failures.set((now, 0));
        self.log(Level::Warn, events::INJECT_FAILED, format_args!("reason={reason} failures={}", failures + 1));
        self.noted();
    }

    /// Whether APIClarity wants an exchange, where it is asked.
    pub fn is_sampled(&self, exchange: &Exchange) -> bool {
        self.config.sampling.is_none() || self.sampled.borrow().contains(exchange)
    }

    /// Counts an exchange that is lost because memory is short.
    pub fn lost_for_memory(&self) {
        self.metrics.add(Metric::Captured, 1);
        self.metrics.add(Metric::Memory, 1);
        self.squeezed.set(self.squeezed.get() + 1);
        self.noted();
    }

    /// Starts a call to the backend, below its base path.
    pub fn call(
        &self,
        path: &str,
        content_type: &str,
        extra: &[(&str, &str)],
        body: &[u8],
        timeout_ms: u64,
    ) -> Result<u32, CallRefused> {
        let backend = &self.config.backend;
        let path = format!("{}{path}", backend.base);
        let mut headers = vec![
            (":method", "POST"),
            (":path", path.as_str()),
            (":authority", backend.authority.as_str()),
            (":scheme", backend.scheme.as_str()),
            ("content-type", content_type),
            ("user-agent", concat!("spctl/", env!("CARGO_PKG_VERSION"))),
        ];
        headers.extend(self.upload_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        headers.extend_from_slice(extra);
        self.host.call(&Call { cluster: &backend.cluster, headers: &headers, body, timeout_ms })
    }

    /// Queues a finished exchange; the root is woken when it should send.
    pub fn enqueue(&self, item: Item, now_ns: u64) {
        self.metrics.add(Metric::Captured, 1);
        if item.span.len() > self.config.limits.exchange_bytes {
            self.dropped(Drop::TooLarge, 1, 0);
        } else {
            let mut queue = self.queue.borrow_mut();
            let dropped = queue.push(item);
            self.metrics.add(Metric::QueueFull, dropped as i64);
            self.overflowed.set(self.overflowed.get() + dropped);
            if let Some(wake) = queue.wake_in_ms(now_ns) {
                self.arm(wake);
            }
        }
        self.noted();
    }

    /// Something was counted and has to reach the proxy some time.
    pub fn noted(&self) {
        self.arm(FLUSH_MS);
    }

    /// Makes the root tick within `ms`. Only ever shortens the period, so a busy
    /// filter does not push its own tick away.
    pub fn arm(&self, ms: u64) {
        let current = self.tick_ms.get();
        if current == 0 || ms < current {
            self.set_tick(ms);
        }
    }

    /// Sets the period of the root's tick; 0 stops it.
    pub fn set_tick(&self, ms: u64) {
        if self.tick_ms.replace(ms) != ms {
            self.host.set_tick_ms(ms.min(u64::from(u32::MAX)) as u32);
        }
    }

    /// Counts exchanges that are lost, and says so.
    pub fn dropped(&self, reason: Drop, exchanges: u64, status: u16) {
        self.metrics.add(reason.into(), exchanges as i64);
        if exchanges > 0 {
            let reason = match reason {
                Drop::QueueFull => "queue_full",
                Drop::Rejected => "rejected",
                Drop::RetriesExhausted => "retries_exhausted",
                Drop::TooLarge => "too_large",
                Drop::Shutdown => "shutdown",
                Drop::Memory => "memory",
            };
            let detail = format_args!("reason={reason} exchanges={exchanges} status={status}");
            self.log(Level::Warn, events::DROPPED, detail);
        }
    }

    /// Hands the counters to the proxy.
    pub fn flush(&self) {
        for (lost, reason) in [(&self.overflowed, "queue_full"), (&self.squeezed, "memory")] {
            let exchanges = lost.take();
            if exchanges > 0 {
                let detail = format_args!("reason={reason} exchanges={exchanges} status=0");
                self.log(Level::Warn, events::DROPPED, detail);
            }
        }
        let queue = self.queue.borrow();
        let now = (queue.exchanges(), queue.bytes());
        let before = self.reported.replace(now);
        self.metrics.add(Metric::Queued, now.0.wrapping_sub(before.0) as i64);
        self.metrics.add(Metric::QueuedBytes, now.1 as i64 - before.1 as i64);
        self.metrics.flush(&self.host);
    }

    /// Exchanges that came from another VM, or went to one, stay counted as
    /// queued by whoever counted them.
    pub fn moved(&self, exchanges: i64, bytes: i64) {
        let (reported, reported_bytes) = self.reported.get();
        let moved = (reported.wrapping_add_signed(exchanges), reported_bytes.wrapping_add_signed(bytes as isize));
        self.reported.set(moved);
    }

    /// Follows the proxy's level, which an operator may change at any time.
    pub fn poll_level(&self, now_ns: u64) {
        if now_ns.saturating_sub(self.level.get().0) > LEVEL_NS {
            self.level.set((now_ns, self.host.log_level()));
        }
    }

    pub fn logs(&self, level: Level) -> bool {
        level >= self.level.get().1.max(self.config.log_level)
    }

    pub fn log(&self, level: Level, event: &str, detail: fmt::Arguments<'_>) {
        if self.logs(level) {
            self.host.log(level, &format!("SP {event} {detail}"));
        }
    }
}

/// A pool of the proxy's random bytes.
struct Random {
    pool: Vec<u8>,
    fallback: u64,
}

impl Random {
    fn take<const N: usize>(&mut self, host: &impl Host) -> [u8; N] {
        if self.pool.len() < N {
            self.pool.resize(RANDOM_POOL, 0);
            if !host.random(&mut self.pool) {
                self.fill(host);
            }
        }
        let rest = self.pool.len().saturating_sub(N);
        let bytes = self.pool.last_chunk::<N>().copied().unwrap_or([1; N]);
        self.pool.truncate(rest);
        bytes
    }

    /// A proxy that restricts WASI has no random numbers: ids then are only as
    /// unlikely to meet as the clocks of two workers (splitmix64).
    fn fill(&mut self, host: &impl Host) {
        self.fallback ^= host.monotonic_ns();
        for chunk in self.pool.chunks_mut(8) {
            self.fallback = self.fallback.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.fallback;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (z ^ (z >> 31)).to_le_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
    }
}
