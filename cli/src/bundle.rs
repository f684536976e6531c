//! Plugin bytes: the capture filter carried in the binary, or a file's.

use std::path::Path;

use crate::error::{Error, PluginProblem, Result};
use crate::harness::Module;
use crate::state::read_small;

/// The capture filter, built with this binary.
static CAPTURE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/capture.wasm"));

/// The source files of the capture filter, by path in their workspace.
pub static SOURCE: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/plugin_source.rs"));

/// Envoy Gateway's and Istio's bound on a plugin (`ISTIO_WASM_MAX_BINARY_SIZE_BYTES`).
pub const MODULE_MAX: u64 = 256 << 20;

pub fn capture() -> Module {
    Module::new(CAPTURE.to_vec())
}

/// Whether a module is the capture filter, of whatever build: the name of its
/// first counter is nobody else's.
pub fn is_capture(module: &Module) -> bool {
    let name = spctl_plugin::metrics::CAPTURED.as_bytes();
    module.bytes.windows(name.len()).any(|window| window == name)
}

/// Reads a module; only its magic is looked at here.
pub fn read(name: &str, path: &Path) -> Result<Module> {
    let bytes = read_small(path, MODULE_MAX)?;
    if !bytes.starts_with(b"\0asm") {
        return Err(Error::Plugin {
            plugin: name.to_owned(),
            problem: PluginProblem::NotWasm,
            reason: format!("`{}` does not begin as a WebAssembly module does", path.display()),
            log: Vec::new(),
        });
    }
    Ok(Module::new(bytes))
}

/// The Proxy-Wasm ABI version that a module exports.
pub fn abi(name: &str, module: &Module) -> Result<String> {
    for version in ["0_2_1", "0_2_0", "0_1_0"] {
        let marker = format!("proxy_abi_version_{version}");
        if module.bytes.windows(marker.len()).any(|w| w == marker.as_bytes()) {
            return Ok(version.replace('_', "."));
        }
    }
    Err(Error::Plugin {
        plugin: name.to_owned(),
        problem: PluginProblem::NoAbi,
        reason: "it exports no Proxy-Wasm ABI version".into(),
        log: Vec::new(),
    })
}
