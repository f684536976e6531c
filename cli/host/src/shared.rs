//! What all threads of a process share: data, queues, statistics, the log.
//!
//! The locks here are those that Envoy has; nothing on the path of a request
//! takes one unless its guest asks for shared data or a queue.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::config::{Limits, Node};
use crate::engine::HostEngine;
use crate::error::LoadError;
use crate::log::{Level, LogLine, LogSink};
use crate::plugin::BaseVm;
use crate::stats::{Number, Registry, lock};
use crate::status::Status;
use crate::trace::Sink;

/// Envoy's name of its default runtime, in the names of statistics.
const RUNTIME: &str = "envoy.wasm.runtime.v8";

/// What a name of a cluster stands for just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    Unknown,
    /// It exists and has no host to send to.
    NoHost,
    Usable,
}

/// The clusters that callouts may name.
pub trait ClusterTable: Send + Sync {
    fn state(&self, name: &str) -> ClusterState;
}

/// How a process is set up.
pub struct ProcessConfig<'a> {
    pub node: Node,
    pub limits: Limits,
    pub module_cache: Option<&'a Path>,
    pub log_level: Level,
    pub log: LogSink,
    pub clusters: Arc<dyn ClusterTable>,
    /// Who is told of every call between plugins and host; none: nobody, at no
    /// cost.
    pub trace: Option<Sink>,
}

/// One proxy process, as far as plugins can tell.
pub struct Process {
    pub(crate) engine: Arc<HostEngine>,
    pub(crate) node: Node,
    pub(crate) clusters: Arc<dyn ClusterTable>,
    pub(crate) data: SharedData,
    pub(crate) queues: SharedQueues,
    pub(crate) bases: Mutex<HashMap<[u8; 32], Weak<BaseVm>>>,
    pub(crate) trace: Option<Sink>,
    traced_streams: AtomicU64,
    stats: Registry,
    log: LogSink,
    level: AtomicU8,
    created: Arc<Number>,
    active: Arc<Number>,
    vm_count: Arc<Number>,
}

impl Process {
    pub fn new(config: ProcessConfig<'_>) -> Result<Arc<Self>, LoadError> {
        let engine = HostEngine::new(config.limits, config.module_cache)?;
        let stats = Registry::default();
        Ok(Arc::new(Self {
            engine,
            node: config.node,
            clusters: config.clusters,
            data: SharedData::default(),
            queues: SharedQueues::default(),
            bases: Mutex::default(),
            trace: config.trace,
            traced_streams: AtomicU64::new(0),
            created: stats.counter(&format!("wasm.{RUNTIME}.created")),
            active: stats.gauge(&format!("wasm.{RUNTIME}.active")),
            vm_count: stats.gauge("wasm.wasm_vm_count"),
            stats,
            log: config.log,
            level: AtomicU8::new(config.log_level as u8),
        }))
    }

    pub fn stats(&self) -> &Registry {
        &self.stats
    }

    pub fn log_level(&self) -> Level {
        Level::from_number(u32::from(self.level.load(Ordering::Relaxed))).unwrap_or(Level::Off)
    }

    pub fn set_log_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    pub(crate) fn next_stream_number(&self) -> u64 {
        self.traced_streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn emit(&self, line: &LogLine) {
        (self.log)(line);
    }

    pub(crate) fn vm_started(&self) -> ActiveVm {
        self.created.inc();
        self.vm_kept()
    }

    /// Counts a VM that has been created already.
    pub(crate) fn vm_kept(&self) -> ActiveVm {
        self.active.inc();
        self.vm_count.inc();
        ActiveVm { active: Arc::clone(&self.active), vm_count: Arc::clone(&self.vm_count) }
    }
}

/// Counts a VM for as long as it lives.
pub(crate) struct ActiveVm {
    active: Arc<Number>,
    vm_count: Arc<Number>,
}

impl Drop for ActiveVm {
    fn drop(&mut self) {
        self.active.dec();
        self.vm_count.dec();
    }
}

/// Values by key, each with the number of its last change.
type Space = HashMap<Vec<u8>, (Vec<u8>, u32)>;

#[derive(Default)]
struct DataState {
    cas: u32,
    /// Base VMs per vm_id; the last one takes the data with it.
    users: HashMap<String, usize>,
    values: HashMap<String, Space>,
}

/// Key-value pairs per vm_id.
#[derive(Default)]
pub(crate) struct SharedData(Mutex<DataState>);

impl SharedData {
    pub(crate) fn get(&self, vm_id: &str, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        lock(&self.0).values.get(vm_id)?.get(key).cloned()
    }

    /// A `cas` of 0 always fits, as does any where there is no value yet.
    pub(crate) fn set(&self, vm_id: &str, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let mut state = lock(&self.0);
        let next = match state.cas.wrapping_add(1) {
            0 => 1,
            n => n,
        };
        let space = state.values.entry(vm_id.to_owned()).or_default();
        match space.get_mut(key) {
            Some((_, stored)) if cas != 0 && cas != *stored => return Err(Status::CasMismatch),
            Some(slot) => *slot = (value.to_vec(), next),
            None => {
                space.insert(key.to_vec(), (value.to_vec(), next));
            }
        }
        state.cas = next;
        Ok(())
    }

    pub(crate) fn add_user(&self, vm_id: &str) {
        *lock(&self.0).users.entry(vm_id.to_owned()).or_default() += 1;
    }

    /// True when it was the last one.
    pub(crate) fn remove_user(&self, vm_id: &str) -> bool {
        let mut state = lock(&self.0);
        let Some(users) = state.users.get_mut(vm_id) else { return false };
        *users -= 1;
        if *users > 0 {
            return false;
        }
        state.users.remove(vm_id);
        state.values.remove(vm_id);
        true
    }
}

/// News for one thread, from any thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueReady {
    pub(crate) vm_key: [u8; 32],
    pub(crate) context: u32,
    pub(crate) token: u32,
}

/// Where other threads leave news for a worker.
pub(crate) struct Mailbox {
    pub(crate) news: Mutex<VecDeque<QueueReady>>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    fn post(&self, news: QueueReady) {
        lock(&self.news).push_back(news);
        (self.wake)();
    }
}

struct Queue {
    vm_id: String,
    name: Vec<u8>,
    items: VecDeque<Vec<u8>>,
    reader: Weak<Mailbox>,
    vm_key: [u8; 32],
    context: u32,
}

#[derive(Default)]
struct QueueState {
    next: u32,
    queues: HashMap<u32, Queue>,
}

/// Queues by (vm_id, name). The last to register one is told of each item.
#[derive(Default)]
pub(crate) struct SharedQueues(Mutex<QueueState>);

impl SharedQueues {
    pub(crate) fn register(
        &self,
        vm_id: &str,
        name: &[u8],
        reader: Weak<Mailbox>,
        vm_key: [u8; 32],
        context: u32,
    ) -> u32 {
        let mut state = lock(&self.0);
        let known = state.queues.iter_mut().find(|(_, queue)| queue.vm_id == vm_id && queue.name == name);
        if let Some((token, queue)) = known {
            queue.reader = reader;
            queue.vm_key = vm_key;
            queue.context = context;
            return *token;
        }
        state.next += 1;
        let token = state.next;
        let queue =
            Queue { vm_id: vm_id.to_owned(), name: name.to_vec(), items: VecDeque::new(), reader, vm_key, context };
        state.queues.insert(token, queue);
        token
    }

    pub(crate) fn resolve(&self, vm_id: &str, name: &[u8]) -> Option<u32> {
        let state = lock(&self.0);
        state.queues.iter().find(|(_, queue)| queue.vm_id == vm_id && queue.name == name).map(|(token, _)| *token)
    }

    pub(crate) fn enqueue(&self, token: u32, item: &[u8]) -> Result<(), Status> {
        let mut state = lock(&self.0);
        let queue = state.queues.get_mut(&token).ok_or(Status::NotFound)?;
        queue.items.push_back(item.to_vec());
        let news = QueueReady { vm_key: queue.vm_key, context: queue.context, token };
        let reader = queue.reader.upgrade();
        drop(state);
        if let Some(reader) = reader {
            reader.post(news);
        }
        Ok(())
    }

    pub(crate) fn dequeue(&self, token: u32) -> Result<Vec<u8>, Status> {
        let mut state = lock(&self.0);
        let queue = state.queues.get_mut(&token).ok_or(Status::NotFound)?;
        queue.items.pop_front().ok_or(Status::Empty)
    }

    /// The last base VM of a vm_id is gone: so are its queues.
    pub(crate) fn forget(&self, vm_id: &str) {
        lock(&self.0).queues.retain(|_, queue| queue.vm_id != vm_id);
    }
}
