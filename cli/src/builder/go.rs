//! Go modules: the standard compiler's WASI reactor, or TinyGo where the
//! module asks for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::compile;
use crate::error::{Error, Result};
use crate::toolchain::on_path;

/// The Go SDK that only TinyGo compiles.
const TINYGO_SDK: &str = "tetratelabs/proxy-wasm-go-sdk";

pub(super) fn build(source: &Path, step: &dyn Fn(&str)) -> Result<(PathBuf, String)> {
    let manifest = std::fs::read_to_string(source.join("go.mod"))
        .map_err(|e| Error::Unreadable { path: source.join("go.mod"), source: e })?;
    let name = source.file_name().map_or_else(|| "plugin".into(), |name| name.to_string_lossy().into_owned());
    let module = source.join(format!("{name}.wasm"));
    let command = if manifest.contains(TINYGO_SDK) { tinygo(&module)? } else { go(&module)? };
    let version = version(&command);
    step(&format!("building {} with {version}", source.display()));
    let mut command = command;
    command.current_dir(source);
    compile(command, source)?;
    Ok((module, version))
}

/// Envoy calls `_initialize`, so the module must be a reactor (Go 1.24 and newer).
fn go(module: &Path) -> Result<Command> {
    let go =
        on_path("go").ok_or(Error::ToolMissing { tool: "go", fix: "install Go 1.24 or newer: https://go.dev/dl/" })?;
    let mut command = Command::new(go);
    command
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .args(["build", "-trimpath", "-buildmode=c-shared", "-o"])
        .arg(module)
        .arg(".");
    Ok(command)
}

fn tinygo(module: &Path) -> Result<Command> {
    let tinygo = on_path("tinygo").ok_or(Error::ToolMissing {
        tool: "tinygo",
        fix: "this module uses the TinyGo SDK: install TinyGo, or move to proxy-wasm/proxy-wasm-go-sdk and Go 1.24",
    })?;
    let mut command = Command::new(tinygo);
    command.args(["build", "-scheduler=none", "-target=wasi", "-o"]).arg(module).arg(".");
    Ok(command)
}

fn version(command: &Command) -> String {
    let output = Command::new(command.get_program()).arg("version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
