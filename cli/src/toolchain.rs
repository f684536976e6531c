//! Which compiler makes a Wasm module here, and how it is called.
//!
//! Shared with the build script, so that the filter carried in the binary and
//! the modules of `spctl build` come from the same choice. It knows nothing of
//! the rest of spctl and prints nothing.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of a plain Proxy-Wasm module.
pub const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// A Rust toolchain that can compile for a Wasm target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// `cargo` on `PATH`, with the target's standard library installed
    /// (`rustup target add`, or a distribution that ships it).
    Installed { cargo: PathBuf, version: String },
    /// Debian's `rustc-web` and `rust-web-src`: the standard library is built
    /// from source, with LLVM's own linker because the packaged `rust-lld`
    /// link dangles.
    BuildStd { cargo: PathBuf, rustc: PathBuf, linker: PathBuf, version: String },
}

/// Neither route is open: what was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub target: String,
    pub looked_for: Vec<String>,
}

impl Missing {
    /// The two ways to get the target, as commands a user can paste.
    pub fn fixes(&self) -> [String; 2] {
        [
            format!("rustup target add {}", self.target),
            "apt-get install rustc-web cargo-web rust-web-src lld-19".to_owned(),
        ]
    }
}

impl Toolchain {
    /// Finds a toolchain for `target`, asked from `dir` so that its
    /// `rust-toolchain.toml` counts.
    pub fn find(target: &str, dir: &Path) -> Result<Self, Missing> {
        let mut looked_for = Vec::new();
        let cargo = on_path("cargo");
        let rustc = on_path("rustc");
        if let (Some(cargo), Some(rustc)) = (cargo, rustc) {
            if has_std(&rustc, target, dir) {
                let version = version_of(&rustc, dir);
                return Ok(Self::Installed { cargo, version });
            }
            looked_for.push(format!("{} has no standard library for {target}", rustc.display()));
        } else {
            looked_for.push("no `cargo` and `rustc` on PATH".to_owned());
        }
        match Self::find_build_std(target) {
            Ok(found) => Ok(found),
            Err(why) => {
                looked_for.push(why);
                Err(Missing { target: target.to_owned(), looked_for })
            }
        }
    }

    fn find_build_std(target: &str) -> Result<Self, String> {
        if target != WASM_TARGET {
            return Err(format!("Debian's route builds only {WASM_TARGET}"));
        }
        let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        if !cargo.is_file() || !rustc.is_file() {
            return Err("no /usr/bin/cargo and /usr/bin/rustc (Debian's rustc-web)".to_owned());
        }
        let sources = output(Command::new(&rustc).args(["--print", "sysroot"]))
            .map(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/std/Cargo.toml"));
        if !sources.is_some_and(|s| s.is_file()) {
            return Err("no standard library sources beside /usr/bin/rustc (Debian's rust-web-src)".to_owned());
        }
        let linker = (14..=25).rev().find_map(|v| on_path(&format!("wasm-ld-{v}"))).or_else(|| on_path("wasm-ld"));
        let Some(linker) = linker else {
            return Err("no wasm-ld (Debian's lld-19)".to_owned());
        };
        let version = version_of(&rustc, Path::new("/"));
        Ok(Self::BuildStd { cargo, rustc, linker, version })
    }

    /// `cargo build` for `target`, without the caller's Cargo environment (a
    /// build script's variables would otherwise choose another compiler).
    pub fn cargo_build(&self, target: &str) -> Command {
        let mut command = match self {
            Self::Installed { cargo, .. } => Command::new(cargo),
            Self::BuildStd { cargo, rustc, linker, .. } => {
                let mut command = Command::new(cargo);
                command
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("RUSTC", rustc)
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                command
            }
        };
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let of_build_script = text.starts_with("CARGO_CFG_")
                || text.starts_with("CARGO_FEATURE_")
                || text.starts_with("CARGO_PKG_")
                || text.starts_with("CARGO_MANIFEST_")
                || matches!(
                    &*text,
                    "CARGO_ENCODED_RUSTFLAGS"
                        | "CARGO_TARGET_DIR"
                        | "CARGO_BUILD_TARGET"
                        | "CARGO_MAKEFLAGS"
                        | "MAKEFLAGS"
                        | "RUSTC_WRAPPER"
                        | "RUSTC_WORKSPACE_WRAPPER"
                        | "TARGET"
                        | "HOST"
                        | "NUM_JOBS"
                        | "OPT_LEVEL"
                        | "PROFILE"
                        | "DEBUG"
                        | "OUT_DIR"
                );
            if of_build_script {
                command.env_remove(&name);
            }
        }
        if matches!(self, Self::Installed { .. }) {
            command.env_remove("RUSTC");
        }
        command.arg("build").arg("--target").arg(target);
        if matches!(self, Self::BuildStd { .. }) {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        command
    }

    /// One line for people: compiler version and route.
    pub fn describe(&self) -> String {
        match self {
            Self::Installed { version, .. } => version.clone(),
            Self::BuildStd { version, .. } => format!("{version}, standard library from source"),
        }
    }
}

/// How far the capture filter's functions are inlined. LLVM's own measure at
/// this level, 225, makes the module 35 KB larger and saves 6 % of what it runs.
pub const CAPTURE_INLINING: &str = "-Cllvm-args=-inline-threshold=60";

/// Flags of the capture filter, which keep this machine's paths out of it: same
/// source and compiler, same bytes, wherever it is built.
pub fn capture_flags(source: &Path) -> OsString {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let mut flags = OsString::from(CAPTURE_INLINING);
    flags.push(" --remap-path-prefix=");
    flags.push(source);
    flags.push("=/spctl");
    if let Some(home) = cargo_home {
        flags.push(" --remap-path-prefix=");
        flags.push(home);
        flags.push("=/cargo");
    }
    flags
}

/// The first executable of this name on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn has_std(rustc: &Path, target: &str, dir: &Path) -> bool {
    output(Command::new(rustc).current_dir(dir).args(["--print", "target-libdir", "--target", target]))
        .is_some_and(|libdir| Path::new(libdir.trim()).is_dir())
}

fn version_of(rustc: &Path, dir: &Path) -> String {
    output(Command::new(rustc).current_dir(dir).arg("--version"))
        .map_or_else(String::new, |text| text.trim().to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.env_remove("RUSTC").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
