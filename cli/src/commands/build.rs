//! `build`: plugin source to a module that hosts will load.

use std::path::PathBuf;

use serde::Serialize;

use crate::builder::{self, Updated};
use crate::error::{Error, Result};
use crate::ui::Output;

/// Build a plugin from source into a release Wasm module.
///
/// PATH is the directory of a Rust crate or a Go module; without it the
/// capture filter's own source, carried in this binary, is built.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source directory [default: the capture filter].
    path: Option<PathBuf>,

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

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let progress = output.progress();
    let mut built = match &args.path {
        Some(path) => builder::build(path, &|what| progress.step(what))?,
        None => {
            builder::build_capture(args.to.as_deref().unwrap_or("capture.wasm".as_ref()), &|what| progress.step(what))?
        }
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
