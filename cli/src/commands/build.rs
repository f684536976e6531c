//! `build`: plugin source to a module that hosts will load.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::builder::{self, Built, Listener, Updated};
use crate::error::{Error, Result};
use crate::ui::{Output, Progress};

/// Build a plugin from source into a release Wasm module.
///
/// PATH is the directory of a Rust crate or a Go module; without it the
/// capture filter's own source, carried in this binary, is built.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source directory [default: the capture filter].
    path: Option<PathBuf>,

    /// Build in a container of this image, which has Cargo or Go: no toolchain is needed here.
    ///
    /// The source is copied in (with its workspace, without `target` and `.git`) and the module
    /// out; nothing of yours is mounted. The image is pulled if it is not there; Rust's own
    /// (`rust:1`) lacks the Wasm target, so make one: `FROM rust:1` and
    /// `RUN rustup target add wasm32-unknown-unknown`.
    #[arg(long, value_name = "IMAGE")]
    in_docker: Option<String>,

    /// Copy the module here [default: where the compiler puts it; the capture filter: ./capture.wasm].
    #[arg(long, short = 'f', value_name = "FILE")]
    to: Option<PathBuf>,

    /// Write the plugin digest into these manifests (Envoy's `sha256`, WasmPlugins with http(s) URLs).
    #[arg(long, value_name = "FILE", num_args = 1..)]
    update: Vec<PathBuf>,
}

#[derive(Serialize)]
struct BuildResult {
    path: PathBuf,
    plugin_digest: String,
    size: usize,
    abi: String,
    toolchain: String,
    took_ms: u64,
    updated: Vec<Updated>,
}

pub(super) async fn run(args: &Args, output: &Output) -> Result<()> {
    let progress = output.progress();
    let capture = args.to.as_deref().unwrap_or("capture.wasm".as_ref());
    let step = |what: &str| progress.step(what);
    let mut built = match (&args.in_docker, &args.path) {
        (Some(image), path) => in_docker(image, path.as_deref(), capture, &progress, output).await?,
        (None, Some(path)) => builder::build(path, &step)?,
        (None, None) => builder::build_capture(capture, &step)?,
    };
    if let (Some(to), Some(_)) = (&args.to, &args.path) {
        std::fs::copy(&built.path, to).map_err(|source| Error::Unwritable { path: to.clone(), source })?;
        built.path.clone_from(to);
    }
    drop(progress);
    let mut updated = Vec::new();
    for manifest in &args.update {
        let done = builder::update(manifest, &built.module.digest)?;
        for why in &done.left {
            output.warn(format!("{}: left alone: {why}", manifest.display()));
        }
        updated.push(done);
    }
    let result = BuildResult {
        path: std::path::absolute(&built.path).unwrap_or(built.path),
        plugin_digest: built.module.digest.clone(),
        size: built.module.bytes.len(),
        abi: built.abi,
        toolchain: built.toolchain,
        took_ms: built.took_ms,
        updated,
    };
    output.result(&result, |style| {
        let mut text = format!("{}\n", style.bold(&result.path.display().to_string()));
        text.push_str(&format!("  size           {} bytes\n", result.size));
        text.push_str(&format!("  ABI            {}\n", result.abi));
        text.push_str(&format!("  plugin digest  {}\n", style.good(&result.plugin_digest)));
        text.push_str(&format!("  built with     {} in {:.1} s\n", result.toolchain, result.took_ms as f64 / 1000.0));
        for update in &result.updated {
            text.push_str(&format!("  updated        {} ({} digests)\n", update.path.display(), update.rewritten));
        }
        text
    })
}

/// Ctrl-C ends the wait, and with it the container.
async fn in_docker(
    image: &str,
    path: Option<&Path>,
    capture: &Path,
    progress: &Progress,
    output: &Output,
) -> Result<Built> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("cannot watch for signals"))?;
    let listener = Listener {
        step: &|what| progress.step(what),
        detail: &|what| progress.detail(what),
        line: &|line| progress.line(line),
    };
    let work = async {
        match path {
            Some(path) => builder::build_in_docker(image, path, &listener).await,
            None => builder::build_capture_in_docker(image, capture, &listener).await,
        }
    };
    tokio::select! {
        built = work => built.map_err(|error| match error {
            Error::Build { path, output: text, .. } => Error::Build { path, output: text, shown: !output.is_quiet() },
            other => other,
        }),
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    }
}
