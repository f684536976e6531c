//! `reload`: a new plugin or configuration into a running instance, without
//! dropping a request; proved by the proxy, undone if it does not serve.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::{Context, image};
use crate::adapters::registry::Transport;
use crate::args::{NameArg, RegistryArgs};
use crate::builder;
use crate::error::{Error, Result};
use crate::instance::{CAPTURE, Client, InstanceStatus, PluginSource, PluginStatus, ReloadRequest, Reloaded};
use crate::reference::Reference;
use crate::state::is_valid_name;
use crate::ui::{Style, short_digest};

/// Editors and compilers write in bursts: wait until one is over.
const QUIET: Duration = Duration::from_millis(120);

/// Put a new plugin or configuration into a running instance, without dropping a request.
///
/// Without flags: builds the source directory the instance was started from
/// again, pulls its image again, else reads its files again. Unchanged bytes and configuration do
/// nothing. If the new plugin does not load or configure, the old one serves on.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArg,

    /// The new plugin: a .wasm file, a source directory, an image (REGISTRY/REPOSITORY:TAG), or `capture`.
    #[arg(long, value_name = "[NAME=]FILE|REF")]
    plugin: Option<String>,

    /// The new configuration.
    #[arg(long, value_name = "[NAME=]FILE")]
    config: Option<String>,

    /// Make a new VM even if nothing changed.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    registry: RegistryArgs,

    /// Reload at every change of the plugin's source or files, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let client = Client::find(&context.home, &args.name.name)?;
    let status: InstanceStatus = client.get("/status").await?;
    let request = resolve(&args, &status.plugins)?;
    let transport = args.registry.transport();
    let reloads = Reloads { request, plugins: status.plugins, client, transport };
    if !args.watch {
        let reloaded = once(&reloads, context).await?;
        return show(&reloaded, context);
    }
    watch(&reloads, context).await
}

/// What is reloaded, once or at every change.
struct Reloads {
    request: ReloadRequest,
    plugins: Vec<PluginStatus>,
    client: Client,
    transport: Transport,
}

/// Builds or pulls what has to be, then asks the instance.
async fn once(reloads: &Reloads, context: &Context<'_>) -> Result<Reloaded> {
    let mut request = reloads.request.clone();
    let current = reloads.plugins.iter().find(|plugin| plugin.name == request.plugin).map(|plugin| &plugin.source);
    match request.source.as_ref().or(current) {
        Some(PluginSource::Directory { source, .. }) => {
            let source = source.clone();
            let module = {
                let progress = context.output.progress();
                builder::build(&source, &|what| progress.step(what))?.path
            };
            request.source = Some(PluginSource::Directory { source, module });
        }
        Some(PluginSource::Image { reference, .. }) => {
            let reference = Reference::parse(reference)?;
            request.source = Some(image(&reference, &reloads.transport, context).await?);
        }
        Some(PluginSource::Capture | PluginSource::File(_)) | None => {}
    }
    let progress = context.output.progress();
    progress.step(&format!("reloading `{}`", request.plugin));
    reloads.client.post("/reload", &request).await
}

async fn watch(reloads: &Reloads, context: &Context<'_>) -> Result<()> {
    let paths = watched(&reloads.request, &reloads.plugins)?;
    let failed = |e: notify::Error| Error::Instance { reason: format!("cannot watch: {e}") };
    let (changed_tx, mut changed) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = event
            && !event.kind.is_access()
        {
            // The loop below has ended: so has the command.
            let _ = changed_tx.send(event.paths);
        }
    })
    .map_err(failed)?;
    for path in &paths {
        // A file's directory: editors replace files by renaming over them.
        let (target, mode) = if path.is_dir() {
            (path.as_path(), RecursiveMode::Recursive)
        } else {
            (path.parent().unwrap_or(path), RecursiveMode::NonRecursive)
        };
        watcher.watch(target, mode).map_err(failed)?;
    }
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    context.output.note(&format!("watching {}; Ctrl-C ends", shown.join(", ")));
    loop {
        match once(reloads, context).await {
            Ok(reloaded) => show(&reloaded, context)?,
            // The old plugin serves on and the next save may be right; an
            // instance that has gone will not come back.
            Err(error @ (Error::Instance { .. } | Error::Died { .. } | Error::NotRunning { .. })) => return Err(error),
            Err(error) => context.output.error(&error),
        }
        tokio::select! {
            relevant = next_change(&mut changed, &paths) => if !relevant { return Ok(()) },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Waits for a change of what is watched, and for the burst to be over.
async fn next_change(changed: &mut mpsc::UnboundedReceiver<Vec<PathBuf>>, paths: &[PathBuf]) -> bool {
    loop {
        let Some(first) = changed.recv().await else { return false };
        if !first.iter().any(|path| concerns(path, paths)) {
            continue;
        }
        while tokio::time::timeout(QUIET, changed.recv()).await.is_ok_and(|event| event.is_some()) {}
        return true;
    }
}

/// Build output inside a source directory is not its source.
fn concerns(changed: &Path, watched: &[PathBuf]) -> bool {
    watched.iter().any(|path| match changed.strip_prefix(path) {
        Ok(inside) => {
            !inside.components().any(|part| matches!(part.as_os_str().to_str(), Some("target" | ".git" | "Cargo.lock")))
                && changed.extension().is_none_or(|e| e != "wasm" || inside.as_os_str().is_empty())
        }
        Err(_) => false,
    })
}

fn watched(request: &ReloadRequest, plugins: &[PluginStatus]) -> Result<Vec<PathBuf>> {
    let plugin = plugins.iter().find(|plugin| plugin.name == request.plugin);
    let source = request.source.as_ref().or(plugin.map(|p| &p.source));
    let config = request.config.as_ref().or(plugin.and_then(|p| p.config.as_ref()));
    let module = match source {
        Some(PluginSource::Directory { source, .. }) => Some(source),
        Some(PluginSource::File(path)) => Some(path),
        Some(PluginSource::Capture | PluginSource::Image { .. }) | None => None,
    };
    let paths: Vec<PathBuf> = module.into_iter().chain(config).cloned().collect();
    if paths.is_empty() {
        return Err(Error::Usage(format!(
            "`{}` comes from the binary or a registry and has no configuration file: there is nothing to watch",
            request.plugin
        )));
    }
    Ok(paths)
}

fn resolve(args: &Args, plugins: &[PluginStatus]) -> Result<ReloadRequest> {
    let known: Vec<String> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
    let mut name = None;
    let mut split = |given: &str| -> Result<PathBuf> {
        let (given_name, path) = match given.split_once('=') {
            Some((name, path)) if is_valid_name(name) => (Some(name.to_owned()), path),
            _ => (None, given),
        };
        if let Some(given_name) = given_name {
            if name.as_ref().is_some_and(|name| *name != given_name) {
                return Err(Error::Usage(
                    "--plugin and --config name two different plugins; reload one after the other".into(),
                ));
            }
            name = Some(given_name);
        }
        Ok(PathBuf::from(path))
    };
    let source = match &args.plugin {
        None => None,
        Some(given) => {
            let path = split(given)?;
            Some(if path == Path::new(CAPTURE) && !path.exists() {
                PluginSource::Capture
            } else if let Some(text) = path.to_str().filter(|text| !path.exists() && Reference::is_meant(text)) {
                let reference = Reference::parse(text)?.to_string();
                PluginSource::Image { reference, image_digest: String::new(), module: PathBuf::new() }
            } else {
                let path = existing(&path)?;
                if path.is_dir() {
                    PluginSource::Directory { module: PathBuf::new(), source: path }
                } else {
                    PluginSource::File(path)
                }
            })
        }
    };
    let config = args.config.as_deref().map(&mut split).transpose()?.map(|path| existing(&path)).transpose()?;
    let plugin = match (name, known.as_slice()) {
        (Some(name), _) if known.contains(&name) => name,
        (Some(name), _) => return Err(Error::UnknownPlugin { name, known }),
        (None, [only]) => only.clone(),
        (None, _) => return Err(Error::Usage(format!("which of {}? write --plugin NAME=FILE", known.join(", ")))),
    };
    Ok(ReloadRequest { plugin, source, config, force: args.force })
}

fn existing(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

fn show(reloaded: &Reloaded, context: &Context<'_>) -> Result<()> {
    for warning in &reloaded.warnings {
        context.output.warn(warning.as_str());
    }
    context.output.result(reloaded, |style| describe(reloaded, style))
}

fn describe(reloaded: &Reloaded, style: Style) -> String {
    let (old, new) = (short_digest(&reloaded.old), short_digest(&reloaded.new));
    if !reloaded.changed {
        return format!("`{}` is unchanged ({new}): nothing done (--force makes a new VM)\n", reloaded.plugin);
    }
    let mut text = format!(
        "reloaded `{}` {} -> {} in {} ms\n",
        reloaded.plugin,
        style.dim(old),
        style.good(new),
        reloaded.took_ms
    );
    for proxy in &reloaded.proxies {
        text.push_str(&format!("  {}: {}\n", proxy.name, proxy.proof));
    }
    text
}
