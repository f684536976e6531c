//! The Proxy-Wasm ABI: what the host imports into a guest, one file per area,
//! and which exports of the guest it calls.

#![expect(clippy::too_many_arguments, reason = "the ABI has functions of up to twelve")]

mod body;
mod callout;
mod clock;
mod foreign;
mod grpc;
mod headers;
mod log;
mod metric;
mod property;
mod shared;
mod stream;
mod wasi;

use std::collections::HashMap;

use wasmtime::{Extern, ExternType, FuncType, Instance, Linker, Memory, Ref, Store, Table, TypedFunc, ValType};

use crate::log::{ContextKind, Level};
use crate::memory::Guest;
use crate::module::LoadedModule;
use crate::state::{Restriction, VmState};
use crate::status::{Abort, Outcome, Status};
use crate::trace;

/// A version of the ABI that Envoy accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    V0_1_0,
    V0_2_0,
    V0_2_1,
}

impl Abi {
    pub(crate) fn of_marker(export: &str) -> Option<Self> {
        Some(match export {
            "proxy_abi_version_0_1_0" => Self::V0_1_0,
            "proxy_abi_version_0_2_0" => Self::V0_2_0,
            "proxy_abi_version_0_2_1" => Self::V0_2_1,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        }
    }
}

/// A linker being filled for one module.
pub(crate) struct Link<'a> {
    pub(crate) linker: &'a mut Linker<VmState>,
    pub(crate) abi: Abi,
    /// The only capabilities allowed; empty: all.
    pub(crate) allowed: &'a [String],
    /// Every call is to be told of.
    pub(crate) traced: bool,
    /// Signatures of what has been linked, to compare imports with.
    pub(crate) provided: HashMap<(&'static str, &'static str), FuncType>,
}

impl<'a> Link<'a> {
    pub(crate) fn new(linker: &'a mut Linker<VmState>, abi: Abi, allowed: &'a [String], traced: bool) -> Self {
        Self { linker, abi, allowed, traced, provided: HashMap::new() }
    }

    /// What a host function of this name takes and gives.
    pub(crate) fn signature(&self, module: &str, name: &str) -> Option<&FuncType> {
        self.provided.iter().find(|((m, n), _)| *m == module && *n == name).map(|(_, ty)| ty)
    }

    /// A host function without a result, which only leaves a trace.
    fn provide_void(&mut self, module: &'static str, name: &'static str) -> wasmtime::Result<()> {
        let ty = FuncType::new(self.linker.engine(), [ValType::I32], []);
        self.provided.insert((module, name), ty);
        if self.traced {
            self.linker.func_wrap(module, name, move |mut guest: Guest<'_>, argument: u32| {
                let open = trace::open(&mut guest, name, &[i64::from(argument)]);
                let result = check_restriction(&guest, module, name);
                trace::close(&mut guest, &open, &[], result.as_ref().ok().map(|()| 0));
                result
            })?;
        } else {
            let call = move |guest: Guest<'_>, _argument: u32| check_restriction(&guest, module, name);
            self.linker.func_wrap(module, name, call)?;
        }
        Ok(())
    }

    fn allows(&self, name: &str) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == name)
    }
}

/// Links a host function under its name: its restriction checked, its outcome
/// turned into a number, or replaced by a stub where it is not allowed.
macro_rules! export {
    ($link:ident, $module:literal, $name:literal, $f:path, ($($arg:ident: $ty:ty),*)) => {{
        let ty = wasmtime::FuncType::new(
            $link.linker.engine(),
            [$(<$ty as $crate::abi::AbiType>::TYPE),*],
            [wasmtime::ValType::I32],
        );
        $link.provided.insert(($module, $name), ty);
        if $link.allows($name) {
            let call = |guest: &mut $crate::memory::Guest<'_>, $($arg: $ty),*| -> wasmtime::Result<u32> {
                $crate::abi::check_restriction(guest, $module, $name)?;
                $crate::abi::IntoNumber::into_number($f(guest, $($arg),*))
            };
            $crate::abi::provide!($link, $module, $name, call, ($($arg: $ty),*));
        } else {
            let call = |guest: &mut $crate::memory::Guest<'_>, $(_: $ty),*| -> wasmtime::Result<u32> {
                Ok($crate::abi::restricted_stub(guest, $name))
            };
            $crate::abi::provide!($link, $module, $name, call, ($($arg: $ty),*));
        }
    }};
}
pub(crate) use export;

/// Chooses, once and for all, between a function that is told of and one that
/// knows nothing of traces.
macro_rules! provide {
    ($link:ident, $module:literal, $name:literal, $call:ident, ($($arg:ident: $ty:ty),*)) => {
        if $link.traced {
            $link.linker.func_wrap(
                $module,
                $name,
                move |mut guest: $crate::memory::Guest<'_>, $($arg: $ty),*| -> wasmtime::Result<u32> {
                    let numbers: &[i64] = &[$(i64::from($arg)),*];
                    let open = $crate::trace::open(&mut guest, $name, numbers);
                    let result = $call(&mut guest, $($arg),*);
                    $crate::trace::close(&mut guest, &open, numbers, result.as_ref().ok().copied());
                    result
                },
            )?;
        } else {
            $link.linker.func_wrap(
                $module,
                $name,
                move |mut guest: $crate::memory::Guest<'_>, $($arg: $ty),*| -> wasmtime::Result<u32> {
                    $call(&mut guest, $($arg),*)
                },
            )?;
        }
    };
}
pub(crate) use provide;

/// Wasm types of the arguments of host functions.
pub(crate) trait AbiType {
    const TYPE: wasmtime::ValType;
}

impl AbiType for u32 {
    const TYPE: wasmtime::ValType = wasmtime::ValType::I32;
}

impl AbiType for i64 {
    const TYPE: wasmtime::ValType = wasmtime::ValType::I64;
}

/// What the outcome of a host function is to the guest.
pub(crate) trait IntoNumber {
    fn into_number(self) -> wasmtime::Result<u32>;
}

impl IntoNumber for Outcome {
    fn into_number(self) -> wasmtime::Result<u32> {
        match self {
            Ok(()) => Ok(Status::Ok as u32),
            Err(Abort::Status(status)) => Ok(status as u32),
            Err(Abort::Trap(error)) => Err(error),
        }
    }
}

/// WASI functions answer with their own numbers.
impl IntoNumber for u32 {
    fn into_number(self) -> wasmtime::Result<u32> {
        Ok(self)
    }
}

pub(crate) fn check_restriction(guest: &Guest<'_>, module: &str, name: &str) -> wasmtime::Result<()> {
    const LOGGING: &[&str] =
        &["proxy_log", "fd_write", "clock_time_get", "poll_oneoff", "emscripten_notify_memory_growth"];
    /// Never, whatever the host's version: WASI calls with an effect.
    const NEVER_AT_START: &[&str] = &["proc_exit", "fd_read", "fd_seek", "fd_close", "sched_yield", "path_open"];
    let legal = match guest.data().restriction {
        Restriction::None => true,
        Restriction::Malloc => LOGGING.contains(&name),
        Restriction::Start if module == "env" => matches!(name, "proxy_log" | "emscripten_notify_memory_growth"),
        Restriction::Start => !NEVER_AT_START.contains(&name),
    };
    if legal { Ok(()) } else { Err(wasmtime::Error::msg(format!("restricted_callback: {module}.{name}"))) }
}

pub(crate) fn restricted_stub(guest: &Guest<'_>, name: &str) -> u32 {
    const ENOTCAPABLE: u32 = 76;
    if !name.starts_with("proxy_") {
        return ENOTCAPABLE;
    }
    let context = guest.data().context();
    let text = || format!("Attempted call to restricted proxy-wasm capability: {name}");
    guest.data().vm.worker.log(Level::Error, &context.origin, ContextKind::Host, text);
    Status::InternalFailure as u32
}

/// Everything that a module of this ABI version may import.
pub(crate) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    log::link(link)?;
    clock::link(link)?;
    headers::link(link)?;
    body::link(link)?;
    property::link(link)?;
    stream::link(link)?;
    callout::link(link)?;
    grpc::link(link)?;
    metric::link(link)?;
    shared::link(link)?;
    foreign::link(link)?;
    wasi::link(link)
}

/// Memories and tables that a module imports are made for each instance.
pub(crate) fn define_own_imports(
    linker: &mut Linker<VmState>,
    store: &mut Store<VmState>,
    module: &wasmtime::Module,
) -> wasmtime::Result<()> {
    for import in module.imports() {
        let item: Extern = match import.ty() {
            ExternType::Memory(ty) => Memory::new(&mut *store, ty)?.into(),
            ExternType::Table(ty) => {
                let null = Ref::null(ty.element().heap_type());
                Table::new(&mut *store, ty, null)?.into()
            }
            _ => continue,
        };
        linker.define(&mut *store, import.module(), import.name(), item)?;
    }
    Ok(())
}

/// Names of the callbacks with the number of their parameters and results, all
/// of them `i32`.
pub(crate) fn callbacks(abi: Abi) -> impl Iterator<Item = (&'static str, usize, usize)> {
    const COMMON: &[(&str, usize, usize)] = &[
        ("proxy_validate_configuration", 2, 1),
        ("proxy_on_vm_start", 2, 1),
        ("proxy_on_configure", 2, 1),
        ("proxy_on_tick", 1, 0),
        ("proxy_on_context_create", 2, 0),
        ("proxy_on_new_connection", 1, 1),
        ("proxy_on_downstream_data", 3, 1),
        ("proxy_on_upstream_data", 3, 1),
        ("proxy_on_downstream_connection_close", 2, 0),
        ("proxy_on_upstream_connection_close", 2, 0),
        ("proxy_on_request_body", 3, 1),
        ("proxy_on_request_trailers", 2, 1),
        ("proxy_on_request_metadata", 2, 1),
        ("proxy_on_response_body", 3, 1),
        ("proxy_on_response_trailers", 2, 1),
        ("proxy_on_response_metadata", 2, 1),
        ("proxy_on_http_call_response", 5, 0),
        ("proxy_on_grpc_receive", 3, 0),
        ("proxy_on_grpc_close", 3, 0),
        ("proxy_on_grpc_receive_initial_metadata", 3, 0),
        ("proxy_on_grpc_receive_trailing_metadata", 3, 0),
        ("proxy_on_queue_ready", 2, 0),
        ("proxy_on_done", 1, 1),
        ("proxy_on_log", 1, 0),
        ("proxy_on_delete", 1, 0),
        ("_start", 0, 0),
        ("_initialize", 0, 0),
    ];
    const V0_1: &[(&str, usize, usize)] = &[("proxy_on_request_headers", 2, 1), ("proxy_on_response_headers", 2, 1)];
    const V0_2: &[(&str, usize, usize)] =
        &[("proxy_on_request_headers", 3, 1), ("proxy_on_response_headers", 3, 1), ("proxy_on_foreign_function", 3, 0)];
    let own = if abi == Abi::V0_1_0 { V0_1 } else { V0_2 };
    COMMON.iter().chain(own).copied()
}

type Func<P, R = ()> = Option<TypedFunc<P, R>>;

/// What the host calls in a guest, where the guest has it.
pub(crate) struct Exports {
    pub(crate) initialize: Func<()>,
    pub(crate) start: Func<()>,
    pub(crate) main: Func<(u32, u32), u32>,
    pub(crate) main_void: Func<(), u32>,
    pub(crate) on_context_create: Func<(u32, u32)>,
    pub(crate) on_vm_start: Func<(u32, u32), u32>,
    pub(crate) on_configure: Func<(u32, u32), u32>,
    pub(crate) on_tick: Func<u32>,
    pub(crate) on_queue_ready: Func<(u32, u32)>,
    pub(crate) on_request_headers: Func<(u32, u32, u32), u32>,
    pub(crate) on_request_headers_010: Func<(u32, u32), u32>,
    pub(crate) on_request_body: Func<(u32, u32, u32), u32>,
    pub(crate) on_request_trailers: Func<(u32, u32), u32>,
    pub(crate) on_response_headers: Func<(u32, u32, u32), u32>,
    pub(crate) on_response_headers_010: Func<(u32, u32), u32>,
    pub(crate) on_response_body: Func<(u32, u32, u32), u32>,
    pub(crate) on_response_trailers: Func<(u32, u32), u32>,
    pub(crate) on_http_call_response: Func<(u32, u32, u32, u32, u32)>,
    pub(crate) on_grpc_receive_initial_metadata: Func<(u32, u32, u32)>,
    pub(crate) on_grpc_receive: Func<(u32, u32, u32)>,
    pub(crate) on_grpc_receive_trailing_metadata: Func<(u32, u32, u32)>,
    pub(crate) on_grpc_close: Func<(u32, u32, u32)>,
    pub(crate) on_done: Func<u32, u32>,
    pub(crate) on_log: Func<u32>,
    pub(crate) on_delete: Func<u32>,
}

impl Exports {
    /// Looks every callback up; one that is not allowed counts as missing.
    pub(crate) fn find(module: &LoadedModule, instance: &Instance, store: &mut Store<VmState>) -> Self {
        let allowed = module.allowed();
        macro_rules! find {
            ($name:literal) => {
                if allowed.is_empty() || !$name.starts_with("proxy_") || allowed.iter().any(|name| name == $name) {
                    instance.get_typed_func(&mut *store, $name).ok()
                } else {
                    None
                }
            };
        }
        Self {
            initialize: find!("_initialize"),
            start: find!("_start"),
            main: find!("main"),
            main_void: find!("__main_void"),
            on_context_create: find!("proxy_on_context_create"),
            on_vm_start: find!("proxy_on_vm_start"),
            on_configure: find!("proxy_on_configure"),
            on_tick: find!("proxy_on_tick"),
            on_queue_ready: find!("proxy_on_queue_ready"),
            on_request_headers: find!("proxy_on_request_headers"),
            on_request_headers_010: find!("proxy_on_request_headers"),
            on_request_body: find!("proxy_on_request_body"),
            on_request_trailers: find!("proxy_on_request_trailers"),
            on_response_headers: find!("proxy_on_response_headers"),
            on_response_headers_010: find!("proxy_on_response_headers"),
            on_response_body: find!("proxy_on_response_body"),
            on_response_trailers: find!("proxy_on_response_trailers"),
            on_http_call_response: find!("proxy_on_http_call_response"),
            on_grpc_receive_initial_metadata: find!("proxy_on_grpc_receive_initial_metadata"),
            on_grpc_receive: find!("proxy_on_grpc_receive"),
            on_grpc_receive_trailing_metadata: find!("proxy_on_grpc_receive_trailing_metadata"),
            on_grpc_close: find!("proxy_on_grpc_close"),
            on_done: find!("proxy_on_done"),
            on_log: find!("proxy_on_log"),
            on_delete: find!("proxy_on_delete"),
        }
    }
}
