//! What the store of one VM holds while guest code runs.

use std::rc::Rc;

use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use crate::context::Context;
use crate::status::Outcome;
use crate::trace::Recorder;
use crate::vm::VmShared;

/// Which host functions the guest may call just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restriction {
    None,
    /// Start functions run: logging, environment, clock, randomness.
    Start,
    /// The host waits for the guest's allocator: logging only.
    Malloc,
}

pub(crate) struct VmState {
    pub(crate) memory: Option<Memory>,
    /// The guest's allocator, with its name.
    pub(crate) malloc: Option<(&'static str, TypedFunc<u32, u32>)>,
    pub(crate) restriction: Restriction,
    /// The context the host called into.
    pub(crate) current: Rc<Context>,
    /// The one the guest chose instead, for the rest of this call.
    pub(crate) effective: Option<Rc<Context>>,
    pub(crate) vm: Rc<VmShared>,
    pub(crate) growth: GrowthLimit,
    /// What the call under way is told as, in a process that is traced.
    pub(crate) recorder: Option<Box<Recorder>>,
    /// Bytes that the host keeps for the guest since the call into it began.
    kept: usize,
}

/// How far a VM may grow.
pub(crate) struct GrowthLimit {
    memory: usize,
}

impl VmState {
    pub(crate) fn new(vm: Rc<VmShared>, vm_context: Rc<Context>, memory_limit: usize) -> Self {
        Self {
            memory: None,
            malloc: None,
            restriction: Restriction::None,
            current: vm_context,
            effective: None,
            vm,
            growth: GrowthLimit { memory: memory_limit },
            recorder: None,
            kept: 0,
        }
    }

    /// Counts what the host is to keep for the guest. One call into a guest may
    /// make the host keep as much as the guest's own memory may hold: an
    /// endless loop must not end the process before its deadline ends the loop.
    pub(crate) fn keep(&mut self, bytes: usize) -> Outcome {
        /// What an entry takes besides its bytes, at least.
        const ENTRY: usize = 64;
        self.kept = self.kept.saturating_add(bytes + ENTRY);
        if self.kept > self.growth.memory {
            return Err(wasmtime::Error::msg("one call made its host keep more than a plugin's memory may hold").into());
        }
        Ok(())
    }

    /// A call into the guest begins.
    pub(crate) fn forget_kept(&mut self) {
        self.kept = 0;
    }

    /// The context that host functions act on.
    pub(crate) fn context(&self) -> &Rc<Context> {
        self.effective.as_ref().unwrap_or(&self.current)
    }
}

impl ResourceLimiter for GrowthLimit {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.memory)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        /// V8's limit of table elements.
        const MAX_TABLE: usize = 10_000_000;
        Ok(desired <= MAX_TABLE)
    }
}
