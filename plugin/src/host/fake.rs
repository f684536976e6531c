//! An in-memory proxy for tests: scripted inputs, recorded effects.

use super::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) token: u32,
    pub(crate) cluster: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) now_ns: u64,
    pub(crate) wall_offset_ns: u64,
    pub(crate) maps: BTreeMap<u32, Vec<(String, Vec<u8>)>>,
    pub(crate) buffers: BTreeMap<u32, Vec<u8>>,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    pub(crate) environment: Vec<String>,
    pub(crate) tick_ms: u32,
    pub(crate) calls: Vec<Sent>,
    pub(crate) refuse_calls: bool,
    pub(crate) active: u32,
    pub(crate) resumed: Vec<u32>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) no_random: bool,
    pub(crate) level: Option<Level>,
    pub(crate) lines: Vec<(Level, String)>,
    pub(crate) metric_names: Vec<String>,
    pub(crate) metrics: BTreeMap<String, i64>,
    pub(crate) done: bool,
    pub(crate) queue: Option<VecDeque<Vec<u8>>>,
    pub(crate) shared: BTreeMap<String, Vec<u8>>,
    pub(crate) host_calls: Vec<&'static str>,
    seed: u64,
    next_token: u32,
}

#[derive(Clone, Default)]
pub(crate) struct FakeHost(pub(crate) Rc<RefCell<State>>);

impl FakeHost {
    pub(crate) fn new() -> FakeHost {
        let host = FakeHost::default();
        host.with(|s| {
            s.now_ns = 1_000_000_000;
            s.wall_offset_ns = 1_700_000_000_000_000_000;
        });
        host
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.borrow_mut())
    }

    pub(crate) fn set_map(&self, map: Map, pairs: &[(&str, &[u8])]) {
        let pairs = pairs.iter().map(|(n, v)| (n.to_string(), v.to_vec())).collect();
        self.with(|s| s.maps.insert(map as u32, pairs));
    }

    pub(crate) fn set_buffer(&self, buffer: Buffer, bytes: &[u8]) {
        self.with(|s| s.buffers.insert(buffer as u32, bytes.to_vec()));
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.with(|s| s.now_ns += ms * 1_000_000);
    }

    pub(crate) fn metric(&self, name: &str) -> i64 {
        self.with(|s| s.metrics.get(name).copied().unwrap_or(0))
    }

    pub(crate) fn header(&self, map: Map, name: &str) -> Option<String> {
        self.with(|s| {
            let pairs = s.maps.get(&(map as u32))?;
            let (_, value) = pairs.iter().find(|(n, _)| n == name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }

    /// Names of the host calls since the last time this was asked.
    pub(crate) fn take_host_calls(&self) -> Vec<&'static str> {
        self.with(|s| std::mem::take(&mut s.host_calls))
    }

    fn note(&self, call: &'static str) {
        self.with(|s| s.host_calls.push(call));
    }
}

impl Host for FakeHost {
    fn wall_ns(&self) -> u64 {
        self.note("wall_ns");
        self.with(|s| s.now_ns + s.wall_offset_ns)
    }

    fn monotonic_ns(&self) -> u64 {
        self.note("monotonic_ns");
        self.with(|s| s.now_ns)
    }

    fn random(&self, buffer: &mut [u8]) -> bool {
        self.note("random");
        self.with(|s| {
            for byte in buffer {
                s.seed = s.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                *byte = (s.seed >> 33) as u8;
            }
            !s.no_random
        })
    }

    fn headers(&self, map: Map) -> Headers {
        self.note("headers");
        self.with(|s| match s.maps.get(&(map as u32)) {
            Some(pairs) => Headers::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_slice()))),
            None => Headers::default(),
        })
    }

    fn set_header(&self, map: Map, name: &str, value: &str) {
        self.note("set_header");
        self.with(|s| {
            let pairs = s.maps.entry(map as u32).or_default();
            pairs.retain(|(n, _)| n != name);
            pairs.push((name.to_owned(), value.as_bytes().to_vec()));
        });
    }

    fn remove_header(&self, map: Map, name: &str) {
        self.note("remove_header");
        self.with(|s| s.maps.entry(map as u32).or_default().retain(|(n, _)| n != name));
    }

    fn buffer(&self, buffer: Buffer, start: usize, max: usize) -> Vec<u8> {
        self.note("buffer");
        self.with(|s| {
            let bytes = s.buffers.get(&(buffer as u32)).cloned().unwrap_or_default();
            bytes.into_iter().skip(start).take(max).collect()
        })
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        self.note("property");
        self.with(|s| s.properties.get(&path.join(".")).cloned())
    }

    fn environment(&self) -> Vec<String> {
        self.with(|s| s.environment.clone())
    }

    fn set_tick_ms(&self, period: u32) {
        self.note("set_tick_ms");
        self.with(|s| s.tick_ms = period);
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, CallRefused> {
        self.with(|s| {
            if s.refuse_calls {
                return Err(CallRefused);
            }
            s.next_token += 4;
            let headers = call.headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            s.calls.push(Sent {
                token: s.next_token,
                cluster: call.cluster.to_owned(),
                headers,
                body: call.body.to_vec(),
            });
            Ok(s.next_token)
        })
    }

    fn resume_request(&self) {
        self.note("resume_request");
        self.with(|s| s.resumed.push(s.active));
    }

    fn activate(&self, context: u32) {
        self.with(|s| s.active = context);
    }

    fn reply(&self, reply: &Reply) {
        self.note("reply");
        let Reply { status, headers, body } = reply;
        let reply = Reply { status: *status, headers: headers.clone(), body: body.clone() };
        self.with(|s| s.replies.push(reply));
    }

    fn log_level(&self) -> Level {
        self.with(|s| s.level.unwrap_or(Level::Info))
    }

    fn log(&self, level: Level, line: &str) {
        self.with(|s| s.lines.push((level, line.to_owned())));
    }

    fn define_metric(&self, _kind: MetricKind, name: &str) -> Option<u32> {
        self.with(|s| {
            s.metric_names.push(name.to_owned());
            Some(s.metric_names.len() as u32 - 1)
        })
    }

    fn add_metric(&self, id: u32, delta: i64) {
        self.with(|s| {
            let name = s.metric_names[id as usize].clone();
            *s.metrics.entry(name).or_default() += delta;
        });
    }

    fn register_queue(&self, _name: &str) -> Option<u32> {
        self.with(|s| s.queue.get_or_insert_default().len());
        Some(1)
    }

    fn enqueue(&self, _queue: u32, item: &[u8]) -> bool {
        self.with(|s| s.queue.as_mut().map(|queue| queue.push_back(item.to_vec())).is_some())
    }

    fn dequeue(&self, _queue: u32) -> Option<Vec<u8>> {
        self.with(|s| s.queue.as_mut()?.pop_front())
    }

    fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        self.with(|s| s.shared.get(key).cloned())
    }

    fn change_shared_data(&self, key: &str, change: &dyn Fn(Option<&[u8]>) -> Vec<u8>) {
        self.with(|s| {
            let value = change(s.shared.get(key).map(Vec::as_slice));
            s.shared.insert(key.to_owned(), value);
        });
    }

    fn done(&self) {
        self.with(|s| s.done = true);
    }
}
