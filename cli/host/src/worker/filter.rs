//! A plugin in its place in the chains of one thread, and what its failure
//! policy makes of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{PluginHandle, WorkerShared};
use crate::config::FailurePolicy;
use crate::plugin::Plugin;

/// What a new stream finds in place of a filter.
pub(crate) enum Attached {
    Live(Rc<PluginHandle>),
    /// Left out of the chain.
    Skipped,
    /// Every stream is answered with 503.
    Closed(Arc<Plugin>),
}

/// A plugin as a filter on one thread, with its failure policy.
pub struct WorkerFilter {
    worker: Rc<WorkerShared>,
    plugin: Arc<Plugin>,
    handle: RefCell<Option<Rc<PluginHandle>>>,
    next_reload: Cell<Instant>,
}

impl WorkerFilter {
    pub(super) fn new(worker: &Rc<WorkerShared>, plugin: &Arc<Plugin>, handle: Option<Rc<PluginHandle>>) -> Self {
        let filter = Self {
            worker: Rc::clone(worker),
            plugin: Arc::clone(plugin),
            handle: RefCell::new(handle),
            next_reload: Cell::new(Instant::now()),
        };
        filter.next_reload.set(Instant::now() + filter.backoff());
        filter
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The VM has trapped and none has taken its place yet.
    pub fn is_failed(&self) -> bool {
        self.handle.borrow().as_ref().is_none_or(|handle| handle.vm.is_failed())
    }

    pub(crate) fn attached(&self) -> Attached {
        let failed = match &*self.handle.borrow() {
            // A worker that could not load what the canary could leaves the
            // filter out, whatever the policy says: as Envoy does.
            None => return Attached::Skipped,
            Some(handle) if !handle.vm.is_failed() => return Attached::Live(Rc::clone(handle)),
            Some(_) => self.plugin.config().failure_policy,
        };
        match failed {
            FailurePolicy::FailOpen | FailurePolicy::LegacyFailOpen => Attached::Skipped,
            FailurePolicy::FailClosed => Attached::Closed(Arc::clone(&self.plugin)),
            FailurePolicy::FailReload => self.reload(),
        }
    }

    fn reload(&self) -> Attached {
        let stat = |name: &str| {
            let name = format!("wasm.{}.{name}", self.plugin.config().name);
            self.worker.process.stats().counter(&name).inc();
        };
        let now = Instant::now();
        if now < self.next_reload.get() {
            stat("vm_reload_backoff");
            return Attached::Closed(Arc::clone(&self.plugin));
        }
        self.next_reload.set(now + self.backoff());
        match self.worker.attach(&self.plugin) {
            Ok(handle) => {
                stat("vm_reload_success");
                self.handle.replace(Some(Rc::clone(&handle)));
                Attached::Live(handle)
            }
            Err(_) => {
                stat("vm_reload_failure");
                Attached::Closed(Arc::clone(&self.plugin))
            }
        }
    }

    /// Between one and one and a half times the base interval.
    fn backoff(&self) -> Duration {
        let base = self.plugin.config().reload_backoff.base_interval;
        let noise = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        base + base * (noise % 1000) / 2000
    }
}
