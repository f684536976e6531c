//! `push`: a plugin to an image that the mesh is proved to load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, aside, interruptible};
use crate::adapters::registry::{Access, Registry};
use crate::args::RegistryArgs;
use crate::error::{Error, PluginProblem, RegistryProblem, Result};
use crate::harness::Module;
use crate::inspection::{self, LoadsIn, Unreadable};
use crate::instance::CAPTURE;
use crate::oci::{self, Layout, Origin};
use crate::reference::Reference;
use crate::{builder, bundle};

/// Push a plugin to a registry, in a layout that Istio and Envoy Gateway load.
///
/// Sends what the registry lacks, then reads the image back by the mesh's rules and compares the
/// plugin digest: pushed means proved loadable. The same bytes give the same image digest. Standard
/// output is the reference with that digest, which never changes: use it in manifests.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spctl push ghcr.io/me/my-filter:1.2 --plugin my-filter.wasm --tag latest
  spctl push localhost:5000/my-filter --plugin ./my-filter
  spctl push ghcr.io/me/my-filter:1.2 --plugin my-filter.wasm --dry-run")]
pub struct Args {
    /// Where to: REGISTRY/REPOSITORY[:TAG] [default tag: latest].
    reference: String,

    /// A .wasm file, or a source directory (it is built) [default: the capture filter].
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,

    /// How the module is packed.
    #[arg(long, value_enum, default_value_t)]
    layout: Layout,

    /// Another tag of the same image; repeatable.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,

    /// An annotation of the image, over those from Git and SOURCE_DATE_EPOCH; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,

    /// Take blobs from this repository of the same registry where it has them.
    #[arg(long, value_name = "REPOSITORY")]
    mount_from: Option<String>,

    /// Push it though no Envoy that is known would load it.
    #[arg(long)]
    force: bool,

    /// Say what would be sent, with its digest; connect to nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Serialize)]
struct PushResult {
    reference: String,
    image_digest: String,
    plugin_digest: String,
    layout: Layout,
    size: usize,
    abi: String,
    tags: Vec<String>,
    annotations: BTreeMap<String, String>,
    blobs: Blobs,
    /// Read back by the mesh's rules; false of a dry run.
    verified: bool,
}

#[derive(Serialize)]
struct Blobs {
    sent: usize,
    present: usize,
    mounted: usize,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    interruptible(push(args, context)).await
}

async fn push(args: Args, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let reference = Reference::parse(&args.reference)?;
    if reference.digest.is_some() {
        return Err(Error::Usage("a digest comes out of a push: name a tag, or none".into()));
    }
    let mut tags = vec![reference.with_tag(reference.wanted())?];
    for tag in &args.tag {
        let also = reference.with_tag(tag)?;
        if !tags.contains(&also) {
            tags.push(also);
        }
    }
    let progress = output.progress();
    if let Some(path) = args.plugin.as_ref().filter(|path| path.is_dir()) {
        progress.step(&format!("building {}", path.display()));
    }
    let given = args.plugin.clone();
    let (module, place) = aside(move || module_to_push(given)).await?;
    let name = place.as_deref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "capture".into());
    progress.step(&format!("packing {name} ({} kB)", module.bytes.len().div_ceil(1000)));
    let (judged, of, force) = (module.clone(), name.clone(), args.force);
    let (abi, warnings) = aside(move || check(&of, &judged, force)).await?;
    warnings.into_iter().for_each(|warning| output.warn(warning));
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|value| !value.is_empty());
    let origin = match &place {
        Some(path) => oci::origin(path, epoch.as_deref())?,
        None => Origin::default(),
    };
    let annotations = oci::annotations(&origin, &name, &abi, &module, &args.annotation);
    let (layout, packed, said) = (args.layout, module.clone(), annotations.clone());
    let artifact = aside(move || oci::build(layout, &packed, &said)).await.ok_or_else(|| Error::Registry {
        reference: reference.to_string(),
        problem: RegistryProblem::TooLarge,
        causes: vec![format!("the module has {} bytes, and what packs it some more", module.bytes.len())],
    })?;
    let digest = artifact.digest();
    let mut result = PushResult {
        reference: reference.at(&digest).to_string(),
        image_digest: digest.trim_start_matches("sha256:").to_owned(),
        plugin_digest: module.digest.clone(),
        layout: args.layout,
        size: module.bytes.len(),
        abi,
        tags: tags.iter().map(|tag| tag.wanted().to_owned()).collect(),
        annotations,
        blobs: Blobs { sent: 0, present: 0, mounted: 0 },
        verified: false,
    };
    if !args.dry_run {
        progress.step(&format!("connecting to {}", reference.registry));
        let registry = Registry::connect(&reference, &args.registry.transport(), Access::Push).await?;
        registry.warnings.iter().for_each(|warning| output.warn(warning.as_str()));
        let (step, detail) = (|what: &str| progress.step(what), |what: &str| progress.detail(what));
        let mount = args.mount_from.as_deref();
        let done = oci::push(&registry, &tags, &artifact, &module, mount, &step, &detail).await?;
        result.blobs = Blobs { sent: done.sent, present: done.present, mounted: done.mounted };
        result.verified = true;
    }
    drop(progress);
    let said = if args.dry_run { "would push" } else { "pushed and read back" };
    output.note(&format!(
        "{said} {} ({} bytes, ABI {}) as {}",
        result.plugin_digest,
        result.size,
        result.abi,
        args.layout.name()
    ));
    output.note(&format!("url of a WasmPlugin: oci://{}", result.reference));
    output.result(&result, |_| format!("{}\n", result.reference))
}

/// A module that is a file, or built from a directory, or carried in this
/// binary; with the path it was read from.
fn module_to_push(given: Option<PathBuf>) -> Result<(Module, Option<PathBuf>)> {
    let Some(path) = given.filter(|path| path != Path::new(CAPTURE) || path.exists()) else {
        return Ok((bundle::capture(), None));
    };
    if path.is_dir() {
        let built = builder::build(&path, &|_| ())?;
        return Ok((built.module, Some(built.path)));
    }
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((bundle::read(&name, &path)?, Some(path)))
}

/// What no Envoy loads is not pushed; what some do not is a warning. The ABI
/// version, and the warnings.
fn check(name: &str, module: &Module, force: bool) -> Result<(String, Vec<String>)> {
    let unfit = |problem, reason: String| Error::Plugin { plugin: name.to_owned(), problem, reason, log: Vec::new() };
    let read = inspection::read(&module.bytes).map_err(|unreadable| match unreadable {
        Unreadable::Component => {
            unfit(PluginProblem::NotWasm, "it is a WebAssembly component, not a core module".into())
        }
        Unreadable::Corrupt(reason) => unfit(PluginProblem::Corrupt, reason),
    })?;
    let verdicts = inspection::in_mesh(&read, &module.bytes, None);
    let refused: Vec<&LoadsIn> = verdicts.iter().filter(|verdict| !verdict.ok).collect();
    let why = |verdict: &LoadsIn| verdict.why.clone().unwrap_or_default();
    let abi = read.abi.clone();
    match (refused.first(), abi) {
        (None, Some(abi)) => Ok((abi, Vec::new())),
        (first, abi) if refused.len() == verdicts.len() && !force => {
            let reason = first.map(|verdict| why(verdict)).unwrap_or_default();
            let problem = match &abi {
                None => PluginProblem::NoAbi,
                Some(_) if reason.starts_with("missing import") => PluginProblem::UnknownImports,
                Some(_) if reason.contains("missing malloc") => PluginProblem::MissingExport,
                Some(_) => PluginProblem::Rejected,
            };
            Err(unfit(problem, format!("no Envoy loads it: {reason}")))
        }
        (_, abi) => {
            let warning =
                |verdict: &&LoadsIn| format!("{} {} does not load it: {}", verdict.host, verdict.version, why(verdict));
            Ok((abi.unwrap_or_else(|| "none".into()), refused.iter().map(warning).collect()))
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}
