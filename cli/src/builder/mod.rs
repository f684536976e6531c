//! Plugin source to a release Wasm module: Rust, Go and TinyGo, each with the
//! toolchain that is there, and what the module is once it is built.

mod digest;
mod docker;
mod go;
mod rust;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub use digest::{Updated, update};
pub use docker::{BUILD_LABEL, Listener, build as build_in_docker, build_capture as build_capture_in_docker};

use crate::error::{Error, Result};
use crate::harness::Module;
use crate::{bundle, state};

/// A built module.
pub struct Built {
    pub path: PathBuf,
    pub module: Module,
    pub abi: String,
    /// Compiler and route, for people.
    pub toolchain: String,
    pub took_ms: u64,
}

/// Builds the source directory `source`.
pub fn build(source: &Path, step: &dyn Fn(&str)) -> Result<Built> {
    let source = std::fs::canonicalize(source).map_err(|e| Error::Unreadable { path: source.to_owned(), source: e })?;
    let started = Instant::now();
    let (path, toolchain) = if source.join("Cargo.toml").is_file() {
        rust::build(&source, step)?
    } else if is_go(&source) {
        go::build(&source, step)?
    } else {
        return Err(no_source(source));
    };
    finish(path, toolchain, started)
}

fn is_go(source: &Path) -> bool {
    source.join("go.mod").is_file()
}

fn no_source(path: PathBuf) -> Error {
    Error::NotSource { path, reason: "it has neither Cargo.toml nor go.mod".into() }
}

/// What a build does not read: version control, and what builds made.
fn unpackable(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == ".git"
        || name == "node_modules"
        || path.join("CACHEDIR.TAG").exists()
        || name == "target" && path.with_file_name("Cargo.toml").exists()
}

/// Builds the capture filter's own source, which the binary carries, and
/// writes the module to `to`.
pub fn build_capture(to: &Path, step: &dyn Fn(&str)) -> Result<Built> {
    let started = Instant::now();
    let root = capture_source()?;
    let (built, toolchain) = rust::build_capture(&root, step)?;
    std::fs::copy(&built, to).map_err(|source| Error::Unwritable { path: to.to_owned(), source })?;
    finish(to.to_owned(), toolchain, started)
}

/// Writes the capture filter's source where it can be built.
fn capture_source() -> Result<PathBuf> {
    let home = state::Home::locate()?;
    let root = home.cache().join("source");
    for (name, bytes) in bundle::SOURCE {
        let path = root.join(name);
        // Unchanged files keep their times, and Cargo its work.
        if std::fs::read(&path).is_ok_and(|old| old == *bytes) {
            continue;
        }
        if let Some(parent) = path.parent() {
            state::private_dir(parent).map_err(|source| Error::StateDir { path: parent.to_owned(), source })?;
        }
        state::write_private(&path, &standalone(name, bytes))?;
    }
    Ok(root)
}

/// The workspace's manifest with the filter as its only member.
fn standalone(name: &str, bytes: &[u8]) -> Vec<u8> {
    if name != "Cargo.toml" {
        return bytes.to_vec();
    }
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| if line.starts_with("members = ") { "members = [\"plugin\"]" } else { line });
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}

fn finish(path: PathBuf, toolchain: String, started: Instant) -> Result<Built> {
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let module = bundle::read(&name, &path)?;
    let abi = bundle::abi(&name, &module)?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Built { path, module, abi, toolchain, took_ms })
}

/// Runs a compiler; its output is the error when it fails.
fn compile(mut command: Command, source: &Path) -> Result<Vec<u8>> {
    let output = command.output().map_err(Error::io(format!("cannot start {}", command.get_program().display())))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Build { path: source.to_owned(), output: text, shown: false })
}
