//! What a module is to this host, without running any of it; and what the host
//! offers, as those who judge for other hosts need to know.

use std::path::Path;
use std::sync::Arc;

use wasmtime::{Engine, Linker, ValType};

use crate::abi::{self, Abi};
use crate::config::{Limits, Node};
use crate::error::LoadError;
use crate::log::Level;
use crate::module::LoadedModule;
use crate::shared::{ClusterState, ClusterTable, Process, ProcessConfig};

/// A function that a guest may import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFunction {
    pub module: &'static str,
    pub name: &'static str,
    /// As in `(i32, i64) -> (i32)`.
    pub signature: String,
}

struct NoClusters;

impl ClusterTable for NoClusters {
    fn state(&self, _name: &str) -> ClusterState {
        ClusterState::Unknown
    }
}

/// Compiles, checks and links a module; nothing of it runs. Compiled code is
/// kept in `cache`.
pub fn check(wasm: &[u8], cache: Option<&Path>) -> Result<Abi, LoadError> {
    let process = Process::new(ProcessConfig {
        node: Node::default(),
        limits: Limits::default(),
        module_cache: cache,
        log_level: Level::Off,
        log: Arc::new(|_| ()),
        clusters: Arc::new(NoClusters),
        trace: None,
    })?;
    LoadedModule::load(&process, wasm, &[]).map(|module| module.abi())
}

/// Everything that a module of this ABI version may import.
pub fn provided(abi: Abi) -> Vec<HostFunction> {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    let mut link = abi::Link::new(&mut linker, abi, &[], false);
    // Linking under fixed names cannot clash.
    let _ = abi::link(&mut link);
    let list = |types: &mut dyn Iterator<Item = ValType>| types.map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
    let mut functions: Vec<HostFunction> = link
        .provided
        .iter()
        .map(|((module, name), ty)| HostFunction {
            module,
            name,
            signature: format!("({}) -> ({})", list(&mut ty.params()), list(&mut ty.results())),
        })
        .collect();
    functions.sort_by_key(|function| (function.module, function.name));
    functions
}

/// Names of the callbacks with the number of their parameters and results, all
/// of them `i32`.
pub fn callbacks(abi: Abi) -> Vec<(&'static str, usize, usize)> {
    abi::callbacks(abi).collect()
}
