//! One thread's VMs, root contexts, timers and callouts.
//!
//! As in Envoy, plugins of equal code and VM configuration share one VM per
//! thread, and each distinct plugin has a root context in it. Whoever owns the
//! thread calls [`Worker::run_due`] when woken, and carries callouts out.

mod filter;

pub(crate) use filter::Attached;
pub use filter::WorkerFilter;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::callout::Callout;
use crate::chain::Chain;
use crate::config::FailurePolicy;
use crate::context::{Context, Held, Role, StreamPart};
use crate::error::LoadError;
use crate::exchange::Exchange;
use crate::grpc::GrpcCallout;
use crate::log::{ContextKind, Level, LogLine, Origin};
use crate::plugin::{LoadFailure, Plugin};
use crate::shared::{Mailbox, Process};
use crate::stats::lock;
use crate::vm::{Vm, VmShared};

/// Lines kept of a plugin that is being loaded.
const TAPPED_LINES: usize = 50;

/// A VM key and a plugin key.
type PluginKey = ([u8; 32], [u8; 32]);

struct Timer {
    due: Instant,
    period: Duration,
    /// Tells a timer from its successor for the same root.
    serial: u64,
    vm: Weak<Vm>,
    root: Rc<Context>,
}

/// The part of a worker that VMs reach.
pub(crate) struct WorkerShared {
    pub(crate) process: Arc<Process>,
    pub(crate) mailbox: Arc<Mailbox>,
    outbox: RefCell<VecDeque<Callout>>,
    grpc_outbox: RefCell<VecDeque<GrpcCallout>>,
    timers: RefCell<Vec<Timer>>,
    serial: Cell<u64>,
    vms: RefCell<HashMap<[u8; 32], Weak<Vm>>>,
    plugins: RefCell<HashMap<PluginKey, Weak<PluginHandle>>>,
    shutdowns: RefCell<Vec<(Rc<Vm>, Rc<Context>)>>,
    draining: RefCell<Vec<(Rc<Vm>, Rc<Context>)>>,
    tap: RefCell<Option<VecDeque<LogLine>>>,
    /// The thread's name, in traces.
    pub(crate) name: Arc<str>,
    /// Nobody will run what is left any more.
    closed: Cell<bool>,
    wake: Rc<dyn Fn()>,
}

impl WorkerShared {
    fn new(
        process: &Arc<Process>,
        name: &str,
        wake: Rc<dyn Fn()>,
        remote_wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Rc<Self> {
        Rc::new(Self {
            process: Arc::clone(process),
            mailbox: Arc::new(Mailbox { news: Mutex::default(), wake: remote_wake }),
            outbox: RefCell::default(),
            grpc_outbox: RefCell::default(),
            timers: RefCell::default(),
            serial: Cell::new(0),
            vms: RefCell::default(),
            plugins: RefCell::default(),
            shutdowns: RefCell::default(),
            draining: RefCell::default(),
            tap: RefCell::new(None),
            name: name.into(),
            closed: Cell::new(false),
            wake,
        })
    }

    /// A worker for trying a plugin out: keeps its lines, carries nothing out.
    pub(crate) fn aside(process: &Arc<Process>) -> Rc<Self> {
        let worker = Self::new(process, "load", Rc::new(|| ()), Arc::new(|| ()));
        worker.tap.replace(Some(VecDeque::new()));
        worker
    }

    pub(crate) fn take_tapped(&self) -> Vec<LogLine> {
        self.tap.take().into_iter().flatten().collect()
    }

    pub(crate) fn log(
        &self,
        level: Level,
        origin: &Arc<Origin>,
        context: ContextKind,
        message: impl FnOnce() -> String,
    ) {
        let tapped = self.tap.borrow().is_some();
        let printed = level >= self.process.log_level();
        if !tapped && !printed {
            return;
        }
        let line = LogLine { time: SystemTime::now(), level, origin: Arc::clone(origin), context, message: message() };
        if printed {
            self.process.emit(&line);
        }
        if let Some(lines) = &mut *self.tap.borrow_mut() {
            if lines.len() == TAPPED_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    /// The lines that Envoy prints when a plugin cannot be loaded.
    pub(crate) fn log_load_failure(&self, origin: &Arc<Origin>, error: &LoadError, policy: FailurePolicy) {
        let reason = match error {
            LoadError::RefusedToConfigure => "Failed to configure base Wasm plugin",
            LoadError::RefusedToStart => "Failed to start base Wasm",
            LoadError::Trapped { .. } | LoadError::Deadline { .. } => "Failed to initialize Wasm code",
            _ => "Failed to load Wasm code",
        };
        let open = matches!(policy, FailurePolicy::FailOpen | FailurePolicy::LegacyFailOpen);
        let what = if open { "open" } else { "closed" };
        self.log(Level::Error, origin, ContextKind::Host, || format!("Wasm VM failed {reason}"));
        self.log(Level::Critical, origin, ContextKind::Host, || format!("Plugin {} failed to load", origin.plugin));
        self.log(Level::Critical, origin, ContextKind::Host, || {
            format!("Plugin configured to fail {what} failed to load")
        });
    }

    pub(crate) fn set_tick(&self, vm: &VmShared, root: &Rc<Context>, period: Duration) {
        let mut timers = self.timers.borrow_mut();
        timers.retain(|timer| !Rc::ptr_eq(&timer.root, root));
        if !period.is_zero() {
            let serial = self.serial.get() + 1;
            self.serial.set(serial);
            let vm = vm.this.borrow().clone();
            timers.push(Timer { due: Instant::now() + period, period, serial, vm, root: Rc::clone(root) });
        }
        drop(timers);
        (self.wake)();
    }

    pub(crate) fn call_out(&self, callout: Callout) {
        self.outbox.borrow_mut().push_back(callout);
        (self.wake)();
    }

    pub(crate) fn open_grpc(&self, callout: GrpcCallout) {
        self.grpc_outbox.borrow_mut().push_back(callout);
        (self.wake)();
    }

    pub(crate) fn context_gone(&self, _vm: &VmShared, context: &Rc<Context>) {
        if let Role::Root(root) = &context.role {
            root.calls.borrow_mut().clear();
            root.grpc.borrow_mut().drain().for_each(|(_, stream)| stream.cancel());
            self.timers.borrow_mut().retain(|timer| !Rc::ptr_eq(&timer.root, context));
            let gone: Vec<_> =
                self.draining.borrow_mut().extract_if(.., |(_, root)| Rc::ptr_eq(root, context)).collect();
            drop(gone);
            (self.wake)();
        }
    }

    pub(crate) fn keep_draining(&self, vm: Rc<Vm>, root: Rc<Context>) {
        self.draining.borrow_mut().push((vm, root));
    }

    /// Lets go of the VMs that wait for a farewell: they hold this in turn.
    fn close(&self) {
        self.closed.set(true);
        drop((self.shutdowns.take(), self.draining.take(), self.timers.take()));
        drop((self.outbox.take(), self.grpc_outbox.take()));
    }

    /// Later plugins get a new VM; what the failed one waited for is void.
    pub(crate) fn vm_failed(&self, key: &[u8; 32]) {
        self.vms.borrow_mut().remove(key);
        self.plugins.borrow_mut().retain(|(vm_key, _), _| vm_key != key);
        (self.wake)();
    }

    fn vm(self: &Rc<Self>, plugin: &Plugin) -> Result<Rc<Vm>, LoadError> {
        let key = plugin.vm_key();
        let known = self.vms.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(vm) = known {
            return Ok(vm);
        }
        let vm = plugin.new_vm(self)?;
        let mut vms = self.vms.borrow_mut();
        vms.retain(|_, vm| vm.strong_count() > 0);
        vms.insert(key, Rc::downgrade(&vm));
        Ok(vm)
    }

    fn attach(self: &Rc<Self>, plugin: &Arc<Plugin>) -> Result<Rc<PluginHandle>, LoadError> {
        let key = (plugin.vm_key(), plugin.key());
        let known = self.plugins.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(handle) = known {
            return Ok(handle);
        }
        let vm = self.vm(plugin)?;
        let root = plugin.start_root(&vm)?;
        let handle = Rc::new(PluginHandle { plugin: Arc::clone(plugin), vm, root, worker: Rc::clone(self) });
        let mut plugins = self.plugins.borrow_mut();
        plugins.retain(|_, handle| handle.strong_count() > 0);
        plugins.insert(key, Rc::downgrade(&handle));
        Ok(handle)
    }
}

/// A plugin's root context on one thread; the last handle shuts it down.
pub(crate) struct PluginHandle {
    plugin: Arc<Plugin>,
    vm: Rc<Vm>,
    root: Rc<Context>,
    worker: Rc<WorkerShared>,
}

impl PluginHandle {
    pub(crate) fn vm(&self) -> &Rc<Vm> {
        &self.vm
    }

    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// A context for one stream, not yet known to the guest.
    pub(crate) fn new_stream(&self, exchange: &Rc<Exchange>, chain: &Weak<Chain>, index: usize) -> Rc<Context> {
        let context = Rc::new(Context {
            id: self.vm.shared.new_context_id(),
            origin: Arc::clone(self.plugin.origin()),
            created: Cell::new(false),
            role: Role::Stream(StreamPart {
                root: Rc::clone(&self.root),
                exchange: Rc::clone(exchange),
                chain: Weak::clone(chain),
                index,
                request: Held::default(),
                response: Held::default(),
                end_of_stream: Cell::new(false),
                logging: Cell::new(false),
                replied: Cell::new(false),
            }),
        });
        self.vm.shared.register(&context);
        context
    }
}

impl Drop for PluginHandle {
    /// The guest may be running just now: its farewell waits for `run_due`.
    fn drop(&mut self) {
        if self.worker.closed.get() {
            return;
        }
        self.worker.shutdowns.borrow_mut().push((Rc::clone(&self.vm), Rc::clone(&self.root)));
        (self.worker.wake)();
    }
}

/// One thread of a process.
pub struct Worker(Rc<WorkerShared>);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Worker {
    /// `wake` is called on this thread, `remote_wake` on any, when there is
    /// something for [`Worker::run_due`], [`Worker::next_callout`] or
    /// [`Worker::next_grpc`].
    pub fn new(process: &Arc<Process>, wake: Rc<dyn Fn()>, remote_wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let thread = std::thread::current();
        Self(WorkerShared::new(process, thread.name().unwrap_or_default(), wake, remote_wake))
    }

    /// Puts a plugin to work on this thread. A failure here leaves the filter
    /// out of every chain, as Envoy does; its reason is logged.
    pub fn filter(&self, plugin: &Arc<Plugin>) -> Rc<WorkerFilter> {
        let handle = self.try_attach(plugin).ok();
        for stat in ["vm_reload", "vm_reload_backoff", "vm_reload_success", "vm_reload_failure"] {
            self.0.process.stats().counter(&format!("wasm.{}.{stat}", plugin.config().name));
        }
        Rc::new(WorkerFilter::new(&self.0, plugin, handle))
    }

    fn try_attach(&self, plugin: &Arc<Plugin>) -> Result<Rc<PluginHandle>, LoadFailure> {
        self.0.attach(plugin).map_err(|error| {
            // A trap has its line already; of a refusal Envoy says nothing, which
            // helps nobody.
            if !matches!(error, LoadError::Trapped { .. } | LoadError::Deadline { .. }) {
                self.0.log_load_failure(plugin.origin(), &error, plugin.config().failure_policy);
            }
            error.into()
        })
    }

    /// The next request that a plugin wants made.
    pub fn next_callout(&self) -> Option<Callout> {
        self.0.outbox.borrow_mut().pop_front()
    }

    /// The next gRPC call or stream that a plugin has opened.
    pub fn next_grpc(&self) -> Option<GrpcCallout> {
        self.0.grpc_outbox.borrow_mut().pop_front()
    }

    /// When [`Worker::run_due`] has something to do by the clock.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.timers.borrow().iter().map(|timer| timer.due).min()
    }

    /// Root contexts that have not said `proxy_done` yet.
    pub fn draining_roots(&self) -> usize {
        self.0.draining.borrow().len() + self.0.shutdowns.borrow().len()
    }

    /// Farewells, news from other threads, ticks.
    pub fn run_due(&self, now: Instant) {
        self.run_shutdowns();
        self.run_news();
        self.run_ticks(now);
        let failed: Vec<_> = self.0.draining.borrow_mut().extract_if(.., |(vm, _)| vm.is_failed()).collect();
        drop(failed);
    }

    fn run_shutdowns(&self) {
        loop {
            let next = self.0.shutdowns.borrow_mut().pop();
            let Some((vm, root)) = next else { return };
            vm.shut_down_root(&root);
        }
    }

    fn run_news(&self) {
        loop {
            let next = lock(&self.0.mailbox.news).pop_front();
            let Some(news) = next else { return };
            let vm = self.0.vms.borrow().get(&news.vm_key).and_then(Weak::upgrade);
            if let Some(vm) = vm
                && let Some(context) = vm.shared.context(news.context)
            {
                let export = vm.exports.on_queue_ready.as_ref();
                vm.call(&context, "proxy_on_queue_ready", export, (context.id, news.token));
                vm.after_call();
            }
        }
    }

    fn run_ticks(&self, now: Instant) {
        let due: Vec<_> = {
            let timers = self.0.timers.borrow();
            timers.iter().filter(|t| t.due <= now).map(|t| (t.serial, t.vm.clone(), Rc::clone(&t.root))).collect()
        };
        for (serial, vm, root) in due {
            let Some(vm) = vm.upgrade() else {
                self.0.timers.borrow_mut().retain(|timer| timer.serial != serial);
                continue;
            };
            vm.call(&root, "proxy_on_tick", vm.exports.on_tick.as_ref(), root.id);
            vm.after_call();
            let failed = vm.is_failed();
            let mut timers = self.0.timers.borrow_mut();
            if failed {
                timers.retain(|timer| timer.serial != serial);
            } else if let Some(timer) = timers.iter_mut().find(|timer| timer.serial == serial) {
                timer.due = Instant::now() + timer.period;
            }
        }
    }
}
