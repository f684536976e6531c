//! One instance of a module on one thread, and every call into it.
//!
//! The host never calls a guest from inside a host function (its allocator
//! apart): what a guest asks for there is queued and runs once the outermost
//! call has returned.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, StoreContextMut, TypedFunc, WasmParams, WasmResults};

use crate::abi::{Abi, Exports};
use crate::chain::LocalReply;
use crate::context::{Context, Role, Root};
use crate::error::LoadError;
use crate::exchange::Side;
use crate::grpc::GrpcStream;
use crate::log::{ContextKind, Level, Origin};
use crate::metrics::MetricTable;
use crate::module::{LoadedModule, Pre};
use crate::plugin::{Plugin, VmIdentity};
use crate::shared::ActiveVm;
use crate::state::{Restriction, VmState};
use crate::trace::{Answer, Numbers, Recorder};
use crate::trap;
use crate::worker::WorkerShared;

/// Work that a guest asked for and that must wait for its call to return.
pub(crate) enum Action {
    Continue(Rc<Context>, Side),
    Reset(Rc<Context>),
    /// The guest has made what the stream holds back larger than it may be.
    TooLarge(Rc<Context>, Side),
    Reply(Rc<Context>, Box<LocalReply>),
    FinishShutdown(Rc<Context>),
    /// A gRPC call that ended where it was begun.
    GrpcClosed {
        stream: Rc<GrpcStream>,
        status: u32,
        message: &'static str,
    },
}

/// The part of a VM that host functions reach.
pub(crate) struct VmShared {
    pub(crate) identity: Arc<VmIdentity>,
    pub(crate) worker: Rc<WorkerShared>,
    pub(crate) abi: Abi,
    pub(crate) contexts: RefCell<HashMap<u32, Rc<Context>>>,
    pub(crate) actions: RefCell<VecDeque<Action>>,
    /// A local reply was asked for: whatever the callback returns, stop.
    pub(crate) stop_iteration: Cell<bool>,
    pub(crate) metrics: RefCell<MetricTable>,
    pub(crate) this: RefCell<Weak<Vm>>,
    next_context: Cell<u32>,
    next_call: Cell<u32>,
    next_grpc_call: Cell<u32>,
    next_grpc_stream: Cell<u32>,
}

impl VmShared {
    pub(crate) fn new(identity: Arc<VmIdentity>, worker: Rc<WorkerShared>, abi: Abi) -> Rc<Self> {
        Rc::new(Self {
            identity,
            worker,
            abi,
            contexts: RefCell::default(),
            actions: RefCell::default(),
            stop_iteration: Cell::new(false),
            metrics: RefCell::default(),
            this: RefCell::default(),
            next_context: Cell::new(1),
            next_call: Cell::new(1),
            next_grpc_call: Cell::new(1),
            next_grpc_stream: Cell::new(1),
        })
    }

    /// Context ids of roots and streams share one counter.
    pub(crate) fn new_context_id(&self) -> u32 {
        loop {
            let id = self.next_context.get();
            self.next_context.set(id.wrapping_add(1));
            if id != 0 && !self.contexts.borrow().contains_key(&id) {
                return id;
            }
        }
    }

    /// Tokens of HTTP callouts: 4, 8, 12 and so on.
    pub(crate) fn new_call_token(&self) -> u32 {
        let n = self.next_call.get();
        self.next_call.set(n.wrapping_add(1));
        n << 2
    }

    /// Tokens of gRPC calls: 5, 9, 13…; of gRPC streams: 6, 10, 14…
    pub(crate) fn new_grpc_token(&self, unary: bool) -> u32 {
        let (next, kind) = if unary { (&self.next_grpc_call, 1) } else { (&self.next_grpc_stream, 2) };
        let n = next.get();
        next.set(n.wrapping_add(1));
        n << 2 | kind
    }

    /// A record of a call into this VM, of a process that is traced.
    fn recorder(&self, context: &Rc<Context>, name: &'static str, parameters: &[u32]) -> Box<Recorder> {
        Recorder::begin(context, name, parameters, &self.worker.name, &self.worker.process)
    }

    fn tell(&self, recorder: Recorder, returned: Option<&dyn Answer>) {
        if let Some(sink) = &self.worker.process.trace {
            recorder.end(returned, sink);
        }
    }

    pub(crate) fn register(&self, context: &Rc<Context>) {
        self.contexts.borrow_mut().insert(context.id, Rc::clone(context));
    }

    pub(crate) fn context(&self, id: u32) -> Option<Rc<Context>> {
        self.contexts.borrow().get(&id).cloned()
    }
}

/// Why a VM takes no more calls.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) function: &'static str,
    pub(crate) message: String,
    /// The deadline ended the call.
    pub(crate) blocked: Option<Duration>,
}

impl Failure {
    pub(crate) fn into_load_error(self) -> LoadError {
        let function = self.function.to_owned();
        match self.blocked {
            Some(blocked) => LoadError::Deadline { function, blocked },
            None => LoadError::Trapped { function, message: self.message },
        }
    }
}

pub(crate) struct Vm {
    store: RefCell<Store<VmState>>,
    pub(crate) exports: Exports,
    pub(crate) shared: Rc<VmShared>,
    failure: RefCell<Option<Failure>>,
    failed: Cell<bool>,
    deadline_ticks: u64,
    deadline: Duration,
    traced: bool,
    origin: Arc<Origin>,
    _active: ActiveVm,
}

impl Vm {
    /// Instantiates and runs the start functions.
    pub(crate) fn start(
        module: &LoadedModule,
        identity: &Arc<VmIdentity>,
        origin: &Arc<Origin>,
        worker: &Rc<WorkerShared>,
    ) -> Result<Rc<Self>, LoadError> {
        let shared = VmShared::new(Arc::clone(identity), Rc::clone(worker), module.abi);
        let engine = &module.engine;
        let vm_context = Rc::new(Context {
            id: 0,
            // Its lines name the VM alone.
            origin: Arc::new(Origin { root_id: String::new(), ..Origin::clone(origin) }),
            created: Cell::new(true),
            role: Role::Vm,
        });
        let active = worker.process.vm_started();
        let state = VmState::new(Rc::clone(&shared), vm_context, engine.limits().memory);
        let mut store = Store::new(engine.wasmtime(), state);
        store.limiter(|state| &mut state.growth);
        store.set_epoch_deadline(engine.deadline_ticks());
        store.epoch_deadline_trap();
        store.data_mut().restriction = Restriction::Start;
        if worker.process.trace.is_some() {
            let context = Rc::clone(&store.data().current);
            store.data_mut().recorder = Some(shared.recorder(&context, "start", &[]));
        }
        let instantiated = instantiate(module, &mut store);
        if let Some(recorder) = store.data_mut().recorder.take().filter(|recorder| recorder.has_calls()) {
            shared.tell(*recorder, instantiated.as_ref().ok().map(|_| &() as &dyn Answer));
        }
        let exports = instantiated.map_err(|error| {
            let failure = trap::failure("start", &error, engine.limits().deadline);
            failure.into_load_error()
        })?;
        let vm = Rc::new(Self {
            store: RefCell::new(store),
            exports,
            shared,
            failure: RefCell::new(None),
            failed: Cell::new(false),
            deadline_ticks: engine.deadline_ticks(),
            deadline: engine.limits().deadline,
            traced: worker.process.trace.is_some(),
            origin: Arc::clone(origin),
            _active: active,
        });
        *vm.shared.this.borrow_mut() = Rc::downgrade(&vm);
        vm.run_start_functions();
        vm.store.borrow_mut().data_mut().restriction = Restriction::None;
        match vm.failure() {
            Some(failure) => Err(failure.into_load_error()),
            None => Ok(vm),
        }
    }

    fn run_start_functions(&self) {
        let context = Rc::clone(&self.store.borrow().data().current);
        let exports = &self.exports;
        if exports.initialize.is_some() {
            self.call(&context, "_initialize", exports.initialize.as_ref(), ());
            if exports.main.is_some() {
                self.call(&context, "main", exports.main.as_ref(), (0, 0));
            } else {
                self.call(&context, "__main_void", exports.main_void.as_ref(), ());
            }
        } else {
            self.call(&context, "_start", exports.start.as_ref(), ());
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failed.get()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// Calls an export on behalf of a context. None: there is no such export,
    /// or the VM has failed, perhaps just now.
    pub(crate) fn call<P: WasmParams + Numbers, R: WasmResults + Answer>(
        &self,
        context: &Rc<Context>,
        name: &'static str,
        export: Option<&TypedFunc<P, R>>,
        params: P,
    ) -> Option<R> {
        let export = export?;
        if self.failed.get() {
            return None;
        }
        // Borrowed already only if a host function called back into its guest,
        // which the action queue exists to prevent.
        let mut store = self.store.try_borrow_mut().ok()?;
        let state = store.data_mut();
        let current = std::mem::replace(&mut state.current, Rc::clone(context));
        let effective = state.effective.take();
        state.forget_kept();
        if self.traced {
            state.recorder = Some(self.shared.recorder(context, name, &params.numbers()));
        }
        store.set_epoch_deadline(self.deadline_ticks);
        let result = export.call(StoreContextMut::from(&mut *store), params);
        let state = store.data_mut();
        state.current = current;
        state.effective = effective;
        if let Some(recorder) = state.recorder.take() {
            self.shared.tell(*recorder, result.as_ref().ok().map(|value| value as &dyn Answer));
        }
        drop(store);
        match result {
            // Its allocator has trapped meanwhile, which it did not notice.
            Ok(_) if self.failed.get() => {
                self.shared.actions.borrow_mut().clear();
                None
            }
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(name, &error);
                None
            }
        }
    }

    /// Takes no more calls from now on.
    pub(crate) fn fail(&self, function: &'static str, error: &wasmtime::Error) {
        let failure = trap::failure(function, error, self.deadline);
        let worker = &self.shared.worker;
        worker.log(Level::Error, &self.origin, ContextKind::Host, || trap::log_text(&failure, error));
        self.failed.set(true);
        self.failure.replace(Some(failure));
        self.shared.actions.borrow_mut().clear();
        worker.vm_failed(&self.shared.identity.key);
    }

    /// Runs what the guest asked for; to be called after each outermost call.
    pub(crate) fn after_call(self: &Rc<Self>) {
        self.shared.stop_iteration.set(false);
        loop {
            let action = self.shared.actions.borrow_mut().pop_front();
            match action {
                None => return,
                Some(Action::Continue(context, side)) => with_chain(&context, |chain, index| {
                    chain.resume(index, side);
                }),
                Some(Action::TooLarge(context, side)) => with_chain(&context, |chain, _| chain.too_large(side)),
                Some(Action::Reset(context)) => with_chain(&context, |chain, _| chain.reset()),
                Some(Action::Reply(context, reply)) => with_chain(&context, |chain, _| {
                    chain.local_reply(*reply);
                }),
                Some(Action::FinishShutdown(root)) => self.delete(&root),
                Some(Action::GrpcClosed { stream, status, message }) => stream.fail(status, message),
            }
        }
    }

    /// A new root context for a plugin, not yet known to the guest.
    pub(crate) fn new_root(&self, plugin: &Arc<Plugin>) -> Rc<Context> {
        let root = Rc::new(Context {
            id: self.shared.new_context_id(),
            origin: Arc::clone(plugin.origin()),
            created: Cell::new(false),
            role: Role::Root(Box::new(Root {
                plugin: Arc::clone(plugin),
                configuring: Cell::new(false),
                call_response: RefCell::default(),
                status: RefCell::new((0, "".into())),
                calls: RefCell::default(),
                grpc: RefCell::default(),
                grpc_initial: RefCell::default(),
                grpc_trailing: RefCell::default(),
                grpc_message: RefCell::default(),
                pending_done: Cell::new(false),
                declared: RefCell::default(),
            })),
        });
        self.shared.register(&root);
        root
    }

    /// `proxy_on_context_create` and `proxy_on_vm_start`; false: refused.
    pub(crate) fn start_root(self: &Rc<Self>, root: &Rc<Context>) -> bool {
        let Some((_, part)) = root.root() else { return false };
        part.configuring.set(true);
        self.create(root, 0);
        part.configuring.set(false);
        let size = length(self.shared.identity.vm_configuration.len());
        let started = self.call(root, "proxy_on_vm_start", self.exports.on_vm_start.as_ref(), (root.id, size));
        self.after_call();
        started.is_none_or(|value| value != 0)
    }

    /// `proxy_on_configure`; false: refused.
    pub(crate) fn configure_root(self: &Rc<Self>, root: &Rc<Context>) -> bool {
        let Some((_, part)) = root.root() else { return false };
        let size = length(part.plugin.config().configuration.len());
        part.configuring.set(true);
        let configured = self.call(root, "proxy_on_configure", self.exports.on_configure.as_ref(), (root.id, size));
        part.configuring.set(false);
        self.after_call();
        configured.is_none_or(|value| value != 0)
    }

    /// Tells the guest of a context, once.
    pub(crate) fn create(&self, context: &Rc<Context>, parent: u32) {
        if !context.created.replace(true) {
            let export = self.exports.on_context_create.as_ref();
            self.call(context, "proxy_on_context_create", export, (context.id, parent));
        }
    }

    /// `proxy_on_done`: true where the context may go at once.
    pub(crate) fn done(self: &Rc<Self>, context: &Rc<Context>) -> bool {
        let done = self.call(context, "proxy_on_done", self.exports.on_done.as_ref(), context.id);
        self.after_call();
        done.is_none_or(|value| value != 0)
    }

    /// `proxy_on_delete`, and the id is free.
    pub(crate) fn delete(self: &Rc<Self>, context: &Rc<Context>) {
        if context.created.get() {
            self.call(context, "proxy_on_delete", self.exports.on_delete.as_ref(), context.id);
            self.after_call();
        }
        self.shared.contexts.borrow_mut().remove(&context.id);
        self.shared.worker.context_gone(&self.shared, context);
    }

    /// Shuts a root context down: now, or once the guest calls `proxy_done`.
    pub(crate) fn shut_down_root(self: &Rc<Self>, root: &Rc<Context>) {
        if self.is_failed() || self.done(root) {
            self.delete(root);
        } else if let Some((_, part)) = root.root() {
            part.pending_done.set(true);
            self.shared.worker.keep_draining(Rc::clone(self), Rc::clone(root));
        }
    }
}

impl Drop for Vm {
    /// A root and its gRPC streams hold each other.
    fn drop(&mut self) {
        let contexts = self.shared.contexts.take();
        for (_, root) in contexts.values().filter_map(|context| context.root()) {
            let streams = root.grpc.take();
            drop(streams);
        }
    }
}

fn with_chain(context: &Rc<Context>, f: impl FnOnce(&Rc<crate::chain::Chain>, usize)) {
    if let Some(stream) = context.stream()
        && let Some(chain) = stream.chain.upgrade()
    {
        f(&chain, stream.index);
    }
}

fn instantiate(module: &LoadedModule, store: &mut Store<VmState>) -> wasmtime::Result<Exports> {
    let instance = match &module.pre {
        Pre::Linked(pre) => pre.instantiate(&mut *store)?,
        Pre::PerInstance(module, linker) => {
            let mut linker = linker.clone();
            crate::abi::define_own_imports(&mut linker, &mut *store, module)?;
            linker.instantiate(&mut *store, module)?
        }
    };
    let memory = instance.get_memory(&mut *store, &module.memory);
    let malloc = instance.get_typed_func(&mut *store, module.malloc)?;
    let exports = Exports::find(module, &instance, &mut *store);
    let state = store.data_mut();
    state.memory = memory;
    state.malloc = Some((module.malloc, malloc));
    Ok(exports)
}

/// Lengths reach guests as `u32`; configuration never comes near the limit.
pub(crate) fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
