//! Builds the capture filter for the Wasm target and carries it, with its
//! source, in the binary. `SPCTL_PLUGIN_WASM` names a prebuilt module instead.

#![allow(clippy::print_stdout, reason = "Cargo's instructions go to standard output")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[path = "src/toolchain.rs"]
#[allow(dead_code, unreachable_pub)]
mod toolchain;

use toolchain::{Toolchain, WASM_TARGET};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for line in why.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("cli has no parent")?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    println!("cargo::rerun-if-env-changed=SPCTL_PLUGIN_WASM");
    for watched in ["plugin/src", "plugin/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let module = match std::env::var_os("SPCTL_PLUGIN_WASM") {
        Some(path) => PathBuf::from(path),
        None => build_plugin(root, &out)?,
    };
    fs::copy(&module, out.join("capture.wasm")).map_err(|e| format!("{}: {e}", module.display()))?;
    fs::write(out.join("plugin_source.rs"), carried_source(root)?).map_err(|e| e.to_string())
}

fn build_plugin(root: &Path, out: &Path) -> Result<PathBuf, String> {
    let toolchain = Toolchain::find(WASM_TARGET, root).map_err(|missing| {
        let [rustup, debian] = missing.fixes();
        format!("the capture filter needs the {WASM_TARGET} target ({}). Run `{rustup}`, or on Debian `{debian}`, or `./install.sh`, which does either", missing.looked_for.join("; "))
    })?;
    // …/target/<profile>/build/spctl-<hash>/out: one Wasm build for all profiles.
    let target_dir = out.ancestors().nth(4).ok_or("unexpected OUT_DIR")?.join("plugin-build");
    let mut command = toolchain.cargo_build(WASM_TARGET);
    command
        .current_dir(root)
        .args(["-p", "spctl-plugin", "--lib", "--profile", "plugin", "--locked", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", toolchain::capture_flags(root));
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("the capture filter did not compile: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(target_dir.join(WASM_TARGET).join("plugin/spctl_plugin.wasm"))
}

/// A table of the files that `spctl build` needs to build the filter again.
fn carried_source(root: &Path) -> Result<String, String> {
    let mut files = vec![PathBuf::from("Cargo.toml"), PathBuf::from("Cargo.lock"), PathBuf::from("plugin/Cargo.toml")];
    walk(root, Path::new("plugin/src"), &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in files {
        let path = root.join(&file);
        table.push_str(&format!(
            "    ({:?}, include_bytes!({:?})),\n",
            file.display().to_string(),
            path.display().to_string()
        ));
    }
    table.push(']');
    Ok(table)
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(root.join(dir)).map_err(|e| format!("{}: {e}", dir.display()))? {
        let entry = entry.map_err(|e| e.to_string())?;
        let path = dir.join(entry.file_name());
        if entry.path().is_dir() {
            walk(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
