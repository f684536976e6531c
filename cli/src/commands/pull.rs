//! `pull`: an image to a plugin, whatever its layout, and what the mesh says to it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, interruptible};
use crate::adapters::registry::{Access, Registry};
use crate::args::RegistryArgs;
use crate::error::{Error, Result};
use crate::export::shell_word;
use crate::oci::{self, Refusal};
use crate::reference::Reference;

/// Pull a plugin from a registry, verified, whatever layout its image has.
///
/// Reads the layouts that Istio and Envoy Gateway load, and the common ones that they refuse (the
/// bare module as a layer, several layers, an index); of the latter it says which rule they break
/// and which `spctl push` repairs it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What: REGISTRY/REPOSITORY[:TAG][@DIGEST], with or without oci:// before it.
    reference: String,

    /// Write the module here, over what is there [default: the repository's last part and .wasm].
    #[arg(long, short = 'f', value_name = "FILE")]
    to: Option<PathBuf>,

    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Serialize)]
struct PullResult {
    reference: String,
    image_digest: String,
    plugin_digest: String,
    layout: &'static str,
    path: PathBuf,
    size: usize,
    /// Why the mesh does not load it as it is.
    refused: Vec<Refusal>,
    /// The command that makes an image the mesh loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    interruptible(pull(args, context)).await
}

async fn pull(args: Args, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let reference = Reference::parse(&args.reference)?;
    let path = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{}.wasm", reference.name())));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if path.is_dir() || directory.is_some_and(|directory| !directory.is_dir()) {
        return Err(Error::Usage(format!(
            "`{}` cannot be a file: name one in a directory that exists",
            path.display()
        )));
    }
    let progress = output.progress();
    progress.step(&format!("pulling {reference}"));
    let registry = Registry::connect(&reference, &args.registry.transport(), Access::Pull).await?;
    registry.warnings.iter().for_each(|warning| output.warn(warning.as_str()));
    let pulled = oci::pull(&registry, &reference, &|what| progress.detail(what)).await?;
    drop(progress);
    write(&path, &pulled.module.bytes, args.to.is_some())?;
    for remark in pulled.remarks {
        output.warn(remark);
    }
    for refusal in &pulled.refused {
        output.warn(format!("{} would refuse this image: {} ({})", refusal.by, refusal.rule, refusal.source));
    }
    let repair = (!pulled.refused.is_empty()).then(|| {
        // A digest says nothing of the tag that others pull.
        let tag = reference.tag.as_deref().unwrap_or(if reference.digest.is_some() { "TAG" } else { "latest" });
        let place = format!("{}/{}:{tag}", reference.registry, reference.repository);
        let plain = if args.registry.registry_plain_http { " --registry-plain-http" } else { "" };
        format!("spctl push {place} --plugin {}{plain}", shell_word(&path.display().to_string()))
    });
    if let Some(repair) = &repair {
        output.note(&format!("repair it: {repair}"));
    }
    let result = PullResult {
        reference: pulled.reference.to_string(),
        image_digest: pulled.image_digest,
        plugin_digest: pulled.module.digest.clone(),
        layout: pulled.shape.name(),
        path: std::path::absolute(&path).unwrap_or(path),
        size: pulled.module.bytes.len(),
        refused: pulled.refused,
        repair,
    };
    output.result(&result, |style| {
        let mut text = format!("{}\n", style.bold(&result.path.display().to_string()));
        text.push_str(&format!("  image          {}\n", result.reference));
        text.push_str(&format!("  layout         {}\n", result.layout));
        text.push_str(&format!("  size           {} bytes\n", result.size));
        text.push_str(&format!("  plugin digest  {}\n", style.good(&result.plugin_digest)));
        text
    })
}

/// Whole or not at all; a file that nobody named is not written over.
fn write(path: &Path, module: &[u8], over: bool) -> Result<()> {
    if !over && path.exists() {
        if std::fs::read(path).is_ok_and(|old| old == module) {
            return Ok(());
        }
        return Err(Error::Usage(format!(
            "`{0}` is there and differs: say `--to {0}` to write over it",
            path.display()
        )));
    }
    let fail = |source| Error::Unwritable { path: path.to_owned(), source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".spctl-pull-").permissions(mode()).tempfile_in(directory).map_err(fail)?;
    std::io::Write::write_all(&mut file, module).map_err(fail)?;
    file.persist(path).map(drop).map_err(|e| fail(e.error))
}

/// As any new file's: a module is no secret.
fn mode() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
