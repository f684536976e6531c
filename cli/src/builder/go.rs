//! Go modules: the standard compiler's WASI reactor, or TinyGo where the
//! module asks for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::compile;
use crate::error::{Error, Result};
use crate::toolchain::on_path;

/// The Go SDK that only TinyGo compiles.
const TINYGO_SDK: &str = "tetratelabs/proxy-wasm-go-sdk";

/// How a module is built, wherever that happens.
pub(super) struct Plan {
    pub(super) program: &'static str,
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// Before `-o MODULE .`.
    pub(super) arguments: &'static [&'static str],
    pub(super) module: PathBuf,
}

/// Envoy calls `_initialize`, so the module must be a reactor (Go 1.24 and newer).
const GO: (&str, &[(&str, &str)], &[&str]) =
    ("go", &[("GOOS", "wasip1"), ("GOARCH", "wasm")], &["build", "-trimpath", "-buildmode=c-shared"]);
const TINYGO: (&str, &[(&str, &str)], &[&str]) = ("tinygo", &[], &["build", "-scheduler=none", "-target=wasi"]);

/// Go, or TinyGo where the module asks for it.
pub(super) fn plan(source: &Path) -> Result<Plan> {
    let manifest = std::fs::read_to_string(source.join("go.mod"))
        .map_err(|e| Error::Unreadable { path: source.join("go.mod"), source: e })?;
    let name = source.file_name().map_or_else(|| "plugin".into(), |name| name.to_string_lossy().into_owned());
    let (program, environment, arguments) = if manifest.contains(TINYGO_SDK) { TINYGO } else { GO };
    Ok(Plan { program, environment, arguments, module: source.join(format!("{name}.wasm")) })
}

pub(super) fn build(source: &Path, step: &dyn Fn(&str)) -> Result<(PathBuf, String)> {
    let Plan { program, environment, arguments, module } = plan(source)?;
    let fix = if program == "go" {
        "install Go 1.24 or newer: https://go.dev/dl/"
    } else {
        "this module uses the TinyGo SDK: install TinyGo, or move to proxy-wasm/proxy-wasm-go-sdk and Go 1.24"
    };
    let mut command = Command::new(on_path(program).ok_or(Error::ToolMissing { tool: program, fix })?);
    let version = version(&command);
    step(&format!("building {} with {version}", source.display()));
    command.envs(environment.iter().copied()).args(arguments).arg("-o").arg(&module).arg(".").current_dir(source);
    compile(command, source)?;
    Ok((module, version))
}

fn version(command: &Command) -> String {
    let output = Command::new(command.get_program()).arg("version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
