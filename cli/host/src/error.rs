//! Why a plugin could not be loaded: one variant per situation.

use std::time::Duration;

/// A plugin that cannot be loaded, started or configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("not a WebAssembly module: it does not begin with `\\0asm`")]
    NotWasm,
    #[error("a WebAssembly component, not a core module: Envoy loads core modules only")]
    Component,
    #[error("the module ends in the middle of a section ({size} bytes)")]
    Truncated { size: usize },
    #[error("the module is corrupt: {0}")]
    Corrupt(String),
    #[error("no Proxy-Wasm ABI version is exported (looked for 0.1.0, 0.2.0 and 0.2.1)")]
    NoAbi,
    #[error("a network (TCP) plugin: it exports `{export}` and no HTTP callback")]
    NetworkPlugin { export: String },
    /// Each as `module.name`, with the reason where the name alone is known.
    #[error("imports that Envoy does not provide: {}", .0.join(", "))]
    UnknownImports(Vec<String>),
    #[error("exports with a signature other than the ABI's: {}", .0.join(", "))]
    BadSignatures(Vec<String>),
    #[error("no `malloc` and no `proxy_on_memory_allocate` is exported")]
    NoAllocator,
    #[error("no memory is exported")]
    NoMemory,
    #[error("`{function}` trapped: {message}")]
    Trapped { function: String, message: String },
    #[error("`{function}` ran longer than the deadline; it would have blocked an Envoy worker for at least {} ms", .blocked.as_millis())]
    Deadline { function: String, blocked: Duration },
    #[error("`proxy_on_vm_start` returned false")]
    RefusedToStart,
    #[error("`proxy_on_configure` returned false")]
    RefusedToConfigure,
    #[error("the engine refused: {0}")]
    Engine(String),
}
