//! `inspect`: what a module is, and where it loads, before any deploy.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, aside, interruptible};
use crate::adapters::registry::{Access, Registry};
use crate::args::RegistryArgs;
use crate::bundle;
use crate::error::{Error, PluginProblem, Result, printable};
use crate::harness::Module;
use crate::inspection::{self, Custom, Export, Import, LoadsIn, Memory, Rule, Sdk, Unreadable};
use crate::instance::CAPTURE;
use crate::oci::{self, Refusal};
use crate::reference::Reference;
use crate::ui::Style;

/// Say what a plugin is, and in which hosts it loads, before any deploy.
///
/// Reads a .wasm file or an image: digests, ABI, imports and exports, the SDK and compiler where its
/// bytes tell them, memory, custom sections; and for the embedded host, Envoy and Istio by version
/// whether it loads, or what stands against it and where that is known from. Nothing of it runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .wasm file, REGISTRY/REPOSITORY[:TAG][@DIGEST], or `capture` for the capture filter.
    #[arg(value_name = "FILE|REF")]
    plugin: String,

    /// The module as text instead.
    #[arg(long)]
    wat: bool,

    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Serialize)]
struct InspectResult {
    plugin_digest: String,
    size: usize,
    abi: Option<String>,
    imports: Vec<Import>,
    exports: Vec<Export>,
    sdk: Option<Sdk>,
    language: Option<String>,
    compiler: Option<String>,
    root_ids: Option<String>,
    memories: Vec<Memory>,
    functions: usize,
    custom_sections: Vec<Custom>,
    proposals: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image>,
    loads_in: Vec<LoadsIn>,
}

#[derive(Serialize)]
struct Image {
    reference: String,
    image_digest: String,
    layout: &'static str,
    refused: Vec<Refusal>,
    annotations: std::collections::BTreeMap<String, String>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    interruptible(inspect(args, context)).await
}

async fn inspect(args: Args, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let (name, module, image) = load(&args, context).await?;
    let unfit = |problem, reason: &str| Error::Plugin {
        plugin: name.clone(),
        problem,
        reason: reason.to_owned(),
        log: Vec::new(),
    };
    if args.wat {
        let bytes = module.bytes.clone();
        let text =
            aside(move || inspection::wat(&bytes)).await.map_err(|reason| unfit(PluginProblem::Corrupt, &reason))?;
        return output.raw(&format!("{}\n", text.trim_end()));
    }
    let read = inspection::read(&module.bytes).map_err(|unreadable| match unreadable {
        Unreadable::Component => {
            unfit(PluginProblem::NotWasm, "it is a WebAssembly component; Envoy and Istio load core modules only")
        }
        Unreadable::Corrupt(reason) => unfit(PluginProblem::Corrupt, &reason),
    })?;
    let made = inspection::maker(&read, &module.bytes);
    let refused = image.as_ref().and_then(|image| image.refused.first());
    let refused = refused.map(|refusal| Rule { why: refusal.rule.clone(), source: refusal.source.to_owned() });
    let progress = output.progress();
    progress.detail("trying the embedded host");
    let (bytes, cache) = (module.bytes.clone(), context.home.cache().join("modules"));
    let (read, loads_in) = aside(move || {
        let loads_in = inspection::loads_in(&read, &bytes, refused.as_ref(), &cache);
        (read, loads_in)
    })
    .await;
    drop(progress);
    let result = InspectResult {
        plugin_digest: module.digest.clone(),
        size: module.bytes.len(),
        abi: read.abi,
        imports: read.imports,
        exports: read.exports,
        sdk: made.sdk,
        language: made.language,
        compiler: made.compiler,
        root_ids: made.root_ids,
        memories: read.memories,
        functions: read.functions,
        custom_sections: read.custom,
        proposals: read.proposals,
        image,
        loads_in,
    };
    output.result(&result, |style| describe(&name, &result, style))
}

/// The module and its name; of an image what is known of that too.
async fn load(args: &Args, context: &Context<'_>) -> Result<(String, Module, Option<Image>)> {
    let path = Path::new(&args.plugin);
    if args.plugin == CAPTURE && !path.exists() {
        return Ok((CAPTURE.to_owned(), bundle::capture(), None));
    }
    if path.exists() || !Reference::is_meant(&args.plugin) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok((name.clone(), bundle::read(&name, &PathBuf::from(path))?, None));
    }
    let reference = Reference::parse(&args.plugin)?;
    let progress = context.output.progress();
    progress.step(&format!("pulling {reference}"));
    let registry = Registry::connect(&reference, &args.registry.transport(), Access::Pull).await?;
    registry.warnings.iter().for_each(|warning| context.output.warn(warning.as_str()));
    let pulled = oci::pull(&registry, &reference, &|what| progress.detail(what)).await?;
    pulled.remarks.iter().for_each(|remark| context.output.warn(remark.as_str()));
    let realm = registry.refused_by_istio.map(|rule| Refusal {
        by: "Istio",
        rule,
        source: "istio/istio pkg/wasm/imagefetcher.go",
    });
    let image = Image {
        reference: pulled.reference.to_string(),
        image_digest: pulled.image_digest,
        layout: pulled.shape.name(),
        refused: pulled.refused.into_iter().chain(realm).collect(),
        annotations: pulled.annotations,
    };
    Ok((reference.to_string(), pulled.module, Some(image)))
}

fn describe(name: &str, result: &InspectResult, style: Style) -> String {
    let mut text = format!("{}\n", style.bold(name));
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<14} {value}\n"));
    line("plugin digest", &result.plugin_digest);
    line("size", &format!("{} bytes, {} functions", result.size, result.functions));
    line("ABI", result.abi.as_deref().unwrap_or("none"));
    let sdk = result.sdk.as_ref().map(|sdk| format!("{} {}", sdk.name, sdk.version.as_deref().unwrap_or_default()));
    let sdk = sdk.as_deref().map(printable);
    let unknown = "not told by its bytes";
    line("SDK", sdk.as_deref().map_or(unknown, str::trim));
    let compiler = [result.language.as_deref(), result.compiler.as_deref()].into_iter().flatten();
    let compiler = printable(&compiler.collect::<Vec<_>>().join(", "));
    line("compiler", if compiler.is_empty() { unknown } else { &compiler });
    line("root ids", result.root_ids.as_deref().unwrap_or(unknown));
    for memory in &result.memories {
        let most = memory.maximum.map_or("no limit of its own".to_owned(), |most| format!("at most {}", kib(most)));
        line("memory", &format!("{} at first, {most}", kib(memory.initial)));
    }
    if !result.proposals.is_empty() {
        line("proposals", &result.proposals.join(", "));
    }
    if let Some(image) = &result.image {
        line("image", &image.reference);
        line("layout", image.layout);
    }
    let sections: Vec<String> = result
        .custom_sections
        .iter()
        .map(|section| format!("{} ({} bytes)", printable(&section.name), section.size))
        .collect();
    if !sections.is_empty() {
        line("sections", &sections.join(", "));
    }
    text.push_str("imports\n");
    let imports = result.imports.iter().map(|import| (import.group, import.name.as_str()));
    groups(imports, &["proxy-wasm", "envoy", "emscripten", "wasi", "other"], &mut text);
    text.push_str("exports\n");
    let exports = result.exports.iter().map(|export| (export.group, export.name.as_str()));
    groups(exports, &["abi", "start", "callbacks", "memory", "other"], &mut text);
    text.push_str("loads in\n");
    for host in &result.loads_in {
        let mark = if host.ok { style.good("ok") } else { style.bad("no") };
        text.push_str(&format!("  {:<9} {:<6} {mark}", host.host, host.version));
        if let Some(why) = &host.why {
            text.push_str(&format!("  {}", printable(why)));
        }
        text.push_str(&format!("  {}\n", style.dim(&format!("({})", host.source))));
    }
    text
}

fn groups<'a>(items: impl Iterator<Item = (&'a str, &'a str)> + Clone, order: &[&str], text: &mut String) {
    for group in order {
        let mut names: Vec<String> = Vec::new();
        // The same function may be imported under two types.
        for name in items.clone().filter(|(of, _)| of == group).map(|(_, name)| printable(name)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            text.push_str(&format!("  {group:<14} {}\n", names.join(" ")));
        }
    }
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}
