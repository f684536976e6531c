//! What the filter needs from the proxy it runs in. Owns the port only: no
//! decision is made here, and nothing above it sees the SDK.

use crate::headers::Headers;
use crate::inject::Reply;

/// Header maps of the Proxy-Wasm ABI (`proxy_map_type_t`), by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    CallHeaders = 6,
}

/// Buffers of the Proxy-Wasm ABI (`proxy_buffer_type_t`), by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallBody = 4,
    PluginConfiguration = 7,
}

/// Metric types of the Proxy-Wasm ABI, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter = 0,
    Gauge = 1,
}

/// Log levels of the Proxy-Wasm ABI; `Off` exists only as a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
    Off = 6,
}

impl Level {
    /// The level with this ABI number; unknown numbers silence the filter.
    pub fn from_number(number: u32) -> Level {
        match number {
            0 => Level::Trace,
            1 => Level::Debug,
            2 => Level::Info,
            3 => Level::Warn,
            4 => Level::Error,
            5 => Level::Critical,
            _ => Level::Off,
        }
    }
}

/// What becomes of the part of a request that a callback was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Held, with all that follows, until the request is resumed or answered.
    Hold,
}

/// One upload as handed to the proxy's HTTP client.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub cluster: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    pub timeout_ms: u64,
}

/// The proxy refused to start a call: unknown cluster, no healthy endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRefused;

/// Host calls in the filter's own words. None of them may panic: what the
/// proxy does not have is empty, `None` or ignored.
pub trait Host {
    /// Wall clock, nanoseconds since the Unix epoch.
    fn wall_ns(&self) -> u64;
    /// Monotonic clock, nanoseconds since any fixed moment.
    fn monotonic_ns(&self) -> u64;
    /// Fills `buffer` with random bytes; `false` when the proxy has none.
    fn random(&self, buffer: &mut [u8]) -> bool;
    fn headers(&self, map: Map) -> Headers;
    fn set_header(&self, map: Map, name: &str, value: &str);
    fn remove_header(&self, map: Map, name: &str);
    fn buffer(&self, buffer: Buffer, start: usize, max: usize) -> Vec<u8>;
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
    /// Environment of the VM, as `KEY=VALUE`.
    fn environment(&self) -> Vec<String>;
    /// Period of the root's tick; 0 stops it. From a stream it acts on the root.
    fn set_tick_ms(&self, period: u32);
    /// Starts a call. Its answer goes to the context that is active now, which
    /// therefore has to be the root.
    fn call(&self, call: &Call<'_>) -> Result<u32, CallRefused>;
    /// Lets the held request of the active context go on.
    fn resume_request(&self);
    /// Makes another context the active one.
    fn activate(&self, context: u32);
    /// Answers the request of the active context.
    fn reply(&self, reply: &Reply);
    fn log_level(&self) -> Level;
    fn log(&self, level: Level, line: &str);
    /// Defines a metric and returns its id.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;
    fn add_metric(&self, id: u32, delta: i64);
    /// Joins the queue of this name; its items are announced to the one who
    /// joined last.
    fn register_queue(&self, name: &str) -> Option<u32>;
    fn enqueue(&self, queue: u32, item: &[u8]) -> bool;
    fn dequeue(&self, queue: u32) -> Option<Vec<u8>>;
    /// Data that all threads and loads see.
    fn shared_data(&self, key: &str) -> Option<Vec<u8>>;
    /// Replaces data by what `change` makes of it; again if another thread was faster.
    fn change_shared_data(&self, key: &str, change: &dyn Fn(Option<&[u8]>) -> Vec<u8>);
    /// Tells the proxy that a root whose `on_done` returned `false` may go.
    fn done(&self);
}

#[cfg(test)]
pub(crate) mod fake;
