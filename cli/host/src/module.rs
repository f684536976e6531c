//! Loading: what a module must be before any of it runs.
//!
//! Checks what Envoy checks (magic, ABI marker, imports, signatures, allocator)
//! and says all that is wrong at once. Knows nothing of contexts or streams.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::{ExternType, FuncType, InstancePre, Linker, Module, ValType};

use crate::abi::{self, Abi};
use crate::engine::HostEngine;
use crate::error::LoadError;
use crate::shared::Process;
use crate::state::VmState;

/// A compiled, checked and linked module; shared by all threads.
pub struct LoadedModule {
    pub(crate) abi: Abi,
    pub(crate) pre: Pre,
    pub(crate) malloc: &'static str,
    pub(crate) memory: String,
    pub(crate) engine: Arc<HostEngine>,
    allowed: Vec<String>,
    digest: String,
}

/// How a module becomes an instance.
pub(crate) enum Pre {
    /// All imports are host functions.
    Linked(InstancePre<VmState>),
    /// A memory or a table is imported too: those belong to one instance.
    PerInstance(Module, Linker<VmState>),
}

/// SHA-256 in hexadecimal: the plugin digest.
pub fn digest_of(wasm: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(wasm) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

impl LoadedModule {
    /// Compiles and checks; `allowed` restricts the ABI when not empty.
    pub(crate) fn load(process: &Process, wasm: &[u8], allowed: &[String]) -> Result<Arc<Self>, LoadError> {
        check_header(wasm)?;
        let engine = &process.engine;
        let module = Module::new(engine.wasmtime(), wasm).map_err(|error| compile_error(wasm, &error))?;
        let abi = detect_abi(&module).ok_or(LoadError::NoAbi)?;
        refuse_network_plugin(&module)?;
        let mut linker = Linker::new(engine.wasmtime());
        let refused = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let mut link = abi::Link::new(&mut linker, abi, allowed, process.trace.is_some());
        abi::link(&mut link).map_err(refused)?;
        let per_instance = check_imports(&module, &link)?;
        check_signatures(&module, abi)?;
        let malloc = ["malloc", "proxy_on_memory_allocate"]
            .into_iter()
            .find(|name| matches!(module.get_export(name), Some(ExternType::Func(_))))
            .ok_or(LoadError::NoAllocator)?;
        check_allocator(&module, malloc)?;
        let memory = module
            .exports()
            .find_map(|export| matches!(export.ty(), ExternType::Memory(_)).then(|| export.name().to_owned()))
            .ok_or(LoadError::NoMemory)?;
        let pre = if per_instance {
            Pre::PerInstance(module, linker)
        } else {
            Pre::Linked(linker.instantiate_pre(&module).map_err(refused)?)
        };
        Ok(Arc::new(Self {
            abi,
            pre,
            malloc,
            memory,
            engine: Arc::clone(engine),
            allowed: allowed.to_vec(),
            digest: digest_of(wasm),
        }))
    }

    /// SHA-256 of the Wasm bytes, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The only capabilities the plugin may use; empty: all.
    pub(crate) fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// The ABI version that the module declares.
    pub fn abi(&self) -> Abi {
        self.abi
    }
}

fn check_header(wasm: &[u8]) -> Result<(), LoadError> {
    if !wasm.starts_with(b"\0asm") {
        return Err(LoadError::NotWasm);
    }
    match wasm.get(4..8) {
        None => Err(LoadError::Truncated { size: wasm.len() }),
        Some([1, 0, 0, 0]) => Ok(()),
        Some([_, _, 1, 0]) => Err(LoadError::Component),
        Some(other) => Err(LoadError::Corrupt(format!("unknown binary version {other:02x?}"))),
    }
}

/// Walks the section headers: the cheapest proof that the file was cut short.
fn is_truncated(wasm: &[u8]) -> bool {
    let mut at = 8;
    while at < wasm.len() {
        at += 1;
        let (mut size, mut shift) = (0usize, 0);
        loop {
            let Some(byte) = wasm.get(at) else { return true };
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return false;
            }
        }
        at = at.saturating_add(size);
    }
    at > wasm.len()
}

fn compile_error(wasm: &[u8], error: &wasmtime::Error) -> LoadError {
    if is_truncated(wasm) {
        LoadError::Truncated { size: wasm.len() }
    } else {
        LoadError::Corrupt(format!("{error:#}"))
    }
}

/// The first marker in the export section wins, as in Envoy.
fn detect_abi(module: &Module) -> Option<Abi> {
    module
        .exports()
        .filter(|export| matches!(export.ty(), ExternType::Func(_)))
        .find_map(|export| Abi::of_marker(export.name()))
}

fn refuse_network_plugin(module: &Module) -> Result<(), LoadError> {
    const NETWORK: &[&str] = &[
        "proxy_on_new_connection",
        "proxy_on_downstream_data",
        "proxy_on_upstream_data",
        "proxy_on_downstream_connection_close",
        "proxy_on_upstream_connection_close",
    ];
    const HTTP: &[&str] = &[
        "proxy_on_request_headers",
        "proxy_on_request_body",
        "proxy_on_request_trailers",
        "proxy_on_response_headers",
        "proxy_on_response_body",
        "proxy_on_response_trailers",
        "proxy_on_log",
    ];
    let has = |name: &&&str| module.get_export(name).is_some();
    match NETWORK.iter().find(has) {
        Some(export) if !HTTP.iter().any(|name| has(&name)) => {
            Err(LoadError::NetworkPlugin { export: (*export).to_owned() })
        }
        _ => Ok(()),
    }
}

/// Names every import that cannot be had; true when an instance needs its own.
fn check_imports(module: &Module, link: &abi::Link<'_>) -> Result<bool, LoadError> {
    let mut unknown = Vec::new();
    let mut per_instance = false;
    for import in module.imports() {
        let name = format!("{}.{}", import.module(), import.name());
        match import.ty() {
            ExternType::Func(wanted) => match link.signature(import.module(), import.name()) {
                Some(have) if FuncType::eq(have, &wanted) => {}
                Some(have) => {
                    unknown.push(format!("{name} (imported as {}, provided as {})", show(&wanted), show(have)));
                }
                None => unknown.push(name),
            },
            ExternType::Memory(_) | ExternType::Table(_) => per_instance = true,
            ExternType::Global(_) => unknown.push(format!("{name} (a global)")),
            _ => unknown.push(name),
        }
    }
    if unknown.is_empty() { Ok(per_instance) } else { Err(LoadError::UnknownImports(unknown)) }
}

fn show(ty: &FuncType) -> String {
    let list = |types: &mut dyn Iterator<Item = ValType>| types.map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(&mut ty.params()), list(&mut ty.results()))
}

/// The first of the two names that is there must be right: the other does not help.
fn check_allocator(module: &Module, name: &str) -> Result<(), LoadError> {
    let Some(ExternType::Func(have)) = module.get_export(name) else { return Ok(()) };
    let is_i32 = |mut types: Box<dyn Iterator<Item = ValType> + '_>| {
        matches!(types.next(), Some(ValType::I32)) && types.next().is_none()
    };
    if is_i32(Box::new(have.params())) && is_i32(Box::new(have.results())) {
        return Ok(());
    }
    Err(LoadError::BadSignatures(vec![format!("{name} {}", show(&have))]))
}

/// V8 refuses an export whose signature differs from the callback's.
fn check_signatures(module: &Module, abi: Abi) -> Result<(), LoadError> {
    let mut bad = Vec::new();
    for (name, params, results) in abi::callbacks(abi) {
        if let Some(ExternType::Func(have)) = module.get_export(name) {
            let fits = have.params().len() == params
                && have.results().len() == results
                && have.params().chain(have.results()).all(|t| matches!(t, ValType::I32));
            if !fits {
                bad.push(format!("{name} {}", show(&have)));
            }
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(LoadError::BadSignatures(bad)) }
}
