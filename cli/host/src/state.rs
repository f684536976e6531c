//! What the store of one VM holds while guest code runs.

use std::rc::Rc;

use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use crate::context::Context;
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
        }
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
