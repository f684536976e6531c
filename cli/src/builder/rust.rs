//! Rust crates through Cargo: which target and module, by what Cargo itself says.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::compile;
use crate::error::{Error, Result};
use crate::toolchain::{Toolchain, WASM_TARGET, capture_flags};

/// The target of Rust's WASI preview 1, which needs rustup's standard library.
const WASI_TARGET: &str = "wasm32-wasip1";

/// Builds the crate in `source`; returns the module and the toolchain used.
pub(super) fn build(source: &Path, step: &dyn Fn(&str)) -> Result<(PathBuf, String)> {
    let target = configured_target(source);
    let toolchain = Toolchain::find(target, source).map_err(Error::Toolchain)?;
    step(&format!("building {} for {target} with {}", source.display(), toolchain.describe()));
    let mut command = toolchain.cargo_build(target);
    command.current_dir(source).args(["--release", "--message-format", "json-render-diagnostics"]);
    let messages = compile(command, source)?;
    Ok((module(&messages, source)?, format!("{} ({target})", toolchain.describe())))
}

/// Builds the capture filter as the build script does: same profile, same
/// flags, so same bytes from the same compiler.
pub(super) fn build_capture(root: &Path, step: &dyn Fn(&str)) -> Result<(PathBuf, String)> {
    let toolchain = Toolchain::find(WASM_TARGET, root).map_err(Error::Toolchain)?;
    step(&format!("building the capture filter with {}", toolchain.describe()));
    let mut command = toolchain.cargo_build(WASM_TARGET);
    command
        .current_dir(root)
        .args(["-p", "spctl-plugin", "--lib", "--profile", "plugin", "--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", capture_flags(root));
    let messages = compile(command, root)?;
    Ok((module(&messages, root)?, format!("{} ({WASM_TARGET})", toolchain.describe())))
}

/// What the crate's own `.cargo/config.toml` asks for, if it is one of the two
/// targets that Envoy loads.
pub(super) fn configured_target(source: &Path) -> &'static str {
    let configured = source.ancestors().find_map(|dir| std::fs::read_to_string(dir.join(".cargo/config.toml")).ok());
    let wasi = configured.is_some_and(|text| {
        text.lines().any(|line| line.trim_start().starts_with("target") && line.contains(WASI_TARGET))
    });
    if wasi { WASI_TARGET } else { WASM_TARGET }
}

/// The `.wasm` file among the artifacts that Cargo names.
pub(super) fn module(messages: &[u8], source: &Path) -> Result<PathBuf> {
    let text = String::from_utf8_lossy(messages);
    let mut modules: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message.get("reason").and_then(Value::as_str) == Some("compiler-artifact"))
        .filter_map(|message| message.get("filenames").and_then(Value::as_array).cloned())
        .flatten()
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
        .collect();
    match (modules.pop(), modules.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Error::NotSource {
            path: source.to_owned(),
            reason: "it builds no Wasm module: a plugin's Cargo.toml has `[lib] crate-type = [\"cdylib\"]`".into(),
        }),
        (Some(_), false) => Err(Error::NotSource {
            path: source.to_owned(),
            reason: "it builds several modules: give the directory of one".into(),
        }),
    }
}
