//! `run`: any filter, or a chain of them, in front of any HTTP service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Context, fetch, image};
use crate::adapters::registry::Transport;
use crate::args::{NameArg, Place, RegistryArgs};
use crate::bootstrap::{Bootstrap, PathMap, Repair};
use crate::builder;
use crate::error::{Error, Result};
use crate::harness::{DEFAULT_IMAGE, FailurePolicy, Kind, Limits, Role};
use crate::instance::{
    BackendSpec, CAPTURE, InstanceStatus, PluginSource, PluginSpec, Spec, Started, Target, Upstream, default_workers,
    given_plugins, hold, start_detached,
};
use crate::logs::Level;
use crate::reference::Reference;
use crate::settings::Settings;
use crate::state::is_valid_name;
use crate::trace::Trace;
use crate::ui::{Output, Style, short_digest};

/// Run a filter, or a chain of filters, in front of an HTTP service.
///
/// Without --plugin it runs the capture filter, whose exchanges `spctl
/// captures` shows. Without --upstream a built-in, httpbin-compatible service
/// answers. Ctrl-C lets requests in flight end, then stops everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spctl run --upstream http://127.0.0.1:8080
  spctl run --plugin ./my-filter --config my-filter.json --harness envoy
  spctl run --plugin auth=auth.wasm --plugin capture --cluster httpbin=builtin
  spctl run --plugin ghcr.io/me/my-filter:1.2
  spctl run -c envoy.yaml --map /etc/envoy=. --harness envoy
  spctl run --backend https://o.softprobe.ai --key-file key.txt --detach")]
pub struct Args {
    #[command(flatten)]
    name: NameArg,

    /// Your own Envoy bootstrap (YAML or JSON) instead of the flags below; its Wasm filters can be reloaded, its Wasm services on the embedded harness.
    #[arg(long, short = 'c', value_name = "ENVOY.YAML",
          conflicts_with_all = ["upstream", "outbound", "cluster", "plugin", "no_plugin", "root_id", "fail_policy"])]
    bootstrap: Option<PathBuf>,

    /// Where a path in that bootstrap is on this machine; repeatable.
    #[arg(long, value_name = "FROM=TO", requires = "bootstrap", value_parser = PathMap::parse)]
    map: Vec<PathMap>,

    /// Run a repaired copy of that bootstrap where it is of past years; what changed is said.
    #[arg(long, requires = "bootstrap")]
    fix: bool,

    /// The service behind the filters [default: built in].
    #[arg(long, value_name = "URL", env = "SPCTL_UPSTREAM")]
    upstream: Option<String>,

    /// A second, outbound listener that leads to this service.
    #[arg(long, value_name = "URL|builtin")]
    outbound: Option<String>,

    /// A named cluster for the callouts of plugins; repeatable.
    #[arg(long, value_name = "NAME=URL|builtin")]
    cluster: Vec<String>,

    /// A plugin: a .wasm file, a source directory (it is built), an image (REGISTRY/REPOSITORY:TAG), or `capture`; repeatable, in chain order.
    #[arg(long, value_name = "[NAME=]FILE|REF")]
    plugin: Vec<String>,

    /// No plugin at all: the plain proxy, to compare with.
    #[arg(long, conflicts_with_all = ["plugin", "config"])]
    no_plugin: bool,

    /// A plugin's configuration; .json and .yaml are checked, anything else is passed as it is.
    #[arg(long, value_name = "[NAME=]FILE")]
    config: Vec<String>,

    /// A plugin's root id [default: empty].
    #[arg(long, value_name = "[NAME=]ID")]
    root_id: Vec<String>,

    /// What becomes of requests when a plugin fails [default: fail-closed as in Envoy; the capture filter fail-open].
    #[arg(long, value_enum)]
    fail_policy: Option<FailurePolicy>,

    #[command(flatten)]
    place: Place,

    /// Send captures to Softprobe or any OTLP collector instead of the local backend.
    #[arg(long, value_name = "URL", env = "SPCTL_BACKEND")]
    backend: Option<String>,

    /// The backend's key, on the first line of this file.
    #[arg(long, value_name = "FILE", requires = "backend", env = "SPCTL_KEY_FILE")]
    key_file: Option<PathBuf>,

    /// Where the local backend takes OTLP [default: a free port on loopback].
    #[arg(long, value_name = "ADDRESS", conflicts_with = "backend")]
    backend_listen: Option<SocketAddr>,

    /// Level of the proxy's `wasm` logger.
    #[arg(long, value_enum, default_value = "info")]
    log_level: Level,

    /// Memory of one plugin VM, in MiB (embedded harness).
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=4096))]
    memory_limit: u32,

    /// Longest time one call into a plugin may take, in ms (embedded harness; Envoy has no such limit).
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    deadline: u64,

    /// Show each call between plugins and host, with arguments, status and time (embedded harness); with PREFIX only functions of such names.
    #[arg(long, value_name = "PREFIX,…", num_args = 0..=1, require_equals = true, default_missing_value = "",
          value_delimiter = ',', conflicts_with = "detach")]
    trace_hostcalls: Option<Vec<String>>,

    #[command(flatten)]
    registry: RegistryArgs,

    /// Run in the background; `spctl down` stops it.
    #[arg(long, short)]
    detach: bool,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let detach = args.detach;
    let trace = args.trace_hostcalls.clone().map(|only| {
        let live = context.output.live();
        Trace { only, to: Arc::new(move |told| live.trace(told)) }
    });
    let own = match &args.bootstrap {
        Some(path) => Some(own_bootstrap(path, &args, context).await?),
        None => None,
    };
    let spec = resolve(args, own, Settings::load()?, context).await?;
    if trace.is_some() && spec.harness != Kind::Embedded {
        let harness = spec.harness.name();
        return Err(Error::Usage(format!(
            "`--trace-hostcalls` needs `--harness embedded`: the {harness} harness cannot see single host calls"
        )));
    }
    if detach {
        let progress = context.output.progress();
        fetch(&spec, &progress).await?;
        progress.step(&format!("starting `{}` on the {} harness", spec.name, spec.harness.name()));
        let started = start_detached(&context.home, &spec).await?;
        drop(progress);
        return announce(&started, context.output, true);
    }
    let output = context.output;
    let progress = output.progress();
    fetch(&spec, &progress).await?;
    progress.step(&format!("starting `{}` on the {} harness", spec.name, spec.harness.name()));
    // Its first lines come while it starts.
    let progress = trace.is_none().then_some(progress);
    let counters = hold(&context.home, spec, trace, |instance, started| {
        drop(progress);
        follow_logs(instance.logs.follow().1);
        announce(&started, output, false)
    })
    .await?;
    output.note(&format!(
        "stopped: {} requests, {} captured, {} stored, {} dropped",
        counters.requests,
        counters.captured,
        counters.stored,
        counters.dropped_total()
    ));
    Ok(())
}

/// In the foreground the plugins' lines go to stderr as they come.
fn follow_logs(mut live: tokio::sync::broadcast::Receiver<crate::logs::Line>) {
    tokio::spawn(async move {
        while let Ok(line) = live.recv().await {
            if let Some(plugin) = &line.plugin {
                crate::ui::stderr_line(&format!("{} {plugin} {}", line.level.name(), line.message));
            }
        }
    });
}

#[derive(serde::Serialize)]
struct Instances<'a> {
    instances: [&'a InstanceStatus; 1],
}

fn announce(started: &Started, output: &Output, detached: bool) -> Result<()> {
    for warning in &started.warnings {
        output.warn(warning.as_str());
    }
    let status = &started.status;
    output.result(&Instances { instances: [status] }, |style| describe(status, style, detached))
}

fn describe(status: &InstanceStatus, style: Style, detached: bool) -> String {
    let plugins: Vec<String> =
        status.plugins.iter().map(|p| format!("{} {}", p.title(), style.dim(short_digest(&p.plugin_digest)))).collect();
    let mut text =
        format!("{} on the {} harness serves {}\n", style.bold(&status.name), status.harness, plugins.join(", "));
    for (what, url) in [
        ("proxy", &status.proxy_url),
        ("outbound", &status.outbound_url),
        ("admin", &status.admin_url),
        ("backend", &status.backend_url),
    ] {
        if let Some(url) = url {
            text.push_str(&format!("  {what:<9} {}\n", style.accent(url)));
        }
    }
    let end = if detached { "spctl down" } else { "Ctrl-C stops it" };
    let next = match &status.proxy_url {
        Some(proxy) => format!("try: curl {proxy}/get; spctl captures list; {end}\n"),
        // Services alone: nothing to send requests to.
        None => format!("try: spctl logs; {end}\n"),
    };
    text.push_str(&style.dim(&next));
    text
}

/// Flags over settings over defaults, and plugins given as source built.
async fn resolve(
    args: Args,
    own: Option<(Bootstrap, Vec<PluginSpec>)>,
    settings: Settings,
    context: &Context<'_>,
) -> Result<Spec> {
    let settings = if own.is_some() { settings.place_alone() } else { settings };
    let pick = |flags: Vec<String>, file: &[String]| if flags.is_empty() { file.to_vec() } else { flags };
    let plugins = pick(args.plugin, &settings.plugin);
    let plugins = match plugins {
        _ if args.no_plugin || own.is_some() => Vec::new(),
        none if none.is_empty() => vec![CAPTURE.to_owned()],
        given => given,
    };
    let policy = args.fail_policy.or(settings.fail_policy);
    let (bootstrap, mut specs) = own.map_or((None, Vec::new()), |(bootstrap, specs)| (Some(bootstrap), specs));
    for given in &plugins {
        let spec = plugin(given, policy, &args.registry.transport(), context).await?;
        if specs.iter().any(|other: &PluginSpec| other.name == spec.name) {
            return Err(Error::Usage(format!(
                "two plugins are called `{}`: name them, as in `--plugin other={given}`",
                spec.name
            )));
        }
        specs.push(spec);
    }
    for given in pick(args.config, &settings.config) {
        let (slot, path) = assign(&given, &mut specs)?;
        slot.config = Some(absolute(Path::new(path))?);
    }
    for given in &args.root_id {
        let (slot, id) = assign(given, &mut specs)?;
        slot.root_id = id.to_owned();
    }
    let clusters = pick(args.cluster, &settings.cluster)
        .iter()
        .map(|given| {
            let (name, url) =
                given.split_once('=').ok_or_else(|| Error::Usage(format!("`--cluster {given}` is not NAME=URL")))?;
            Ok((name.to_owned(), upstream(url)?))
        })
        .collect::<Result<_>>()?;
    let backend = match args.backend.or(settings.backend) {
        Some(url) => BackendSpec::Remote {
            target: Target::parse(&url)?,
            key_file: args.key_file.or(settings.key_file).map(|path| absolute(&path)).transpose()?,
        },
        None => BackendSpec::local(args.backend_listen),
    };
    Ok(Spec {
        service: args.name.name.clone(),
        name: args.name.name,
        harness: args.place.harness.or(settings.harness).unwrap_or(Kind::Embedded),
        envoy_path: args.place.envoy_path.or(settings.envoy_path),
        image: args.place.image.or(settings.image).unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        listen: args.place.listen.or(settings.listen),
        upstream: args.upstream.or(settings.upstream).map_or(Ok(Upstream::BuiltIn), |url| upstream(&url))?,
        outbound: args.outbound.or(settings.outbound).map(|url| upstream(&url)).transpose()?,
        clusters,
        plugins: specs,
        bootstrap,
        backend,
        workers: args.place.workers.map(usize::from).or(settings.workers).unwrap_or_else(default_workers),
        log_level: args.log_level,
        limits: Limits { memory_bytes: args.memory_limit as usize * (1 << 20), deadline_ms: args.deadline },
    })
}

/// Reads a user's bootstrap. What today's Envoy would refuse in it is an error
/// that explains, or with `--fix` a warning each.
async fn own_bootstrap(path: &Path, args: &Args, context: &Context<'_>) -> Result<(Bootstrap, Vec<PluginSpec>)> {
    let mut bootstrap = Bootstrap::read(path, &args.map)?;
    let repairs = bootstrap.repair();
    if !args.fix && !repairs.is_empty() {
        return Err(Error::Outdated { path: path.to_owned(), repairs });
    }
    for Repair { key, why, change } in repairs {
        context.output.warn(format!("{}: {key}: {change} ({why})", path.display()));
    }
    if let Some(address) = args.place.listen {
        bootstrap.listen(address);
    }
    let plugins = given_plugins(&mut bootstrap, &context.home.cache()).await?;
    Ok((bootstrap, plugins))
}

/// `[NAME=]FILE|REF`: the name is the file's or repository's own when none is given.
async fn plugin(
    given: &str,
    policy: Option<FailurePolicy>,
    transport: &Transport,
    context: &Context<'_>,
) -> Result<PluginSpec> {
    let (name, path) = match given.split_once('=') {
        Some((name, path)) if is_valid_name(name) => (Some(name.to_owned()), path),
        _ => (None, given),
    };
    if path == CAPTURE && !Path::new(path).exists() {
        return Ok(PluginSpec::capture(name, policy));
    }
    let named = |own: &str| {
        let own = own.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "-");
        let name = name.unwrap_or(own);
        let unnamed = || Error::Usage(format!("name the plugin, as in `--plugin NAME={given}`"));
        if is_valid_name(&name) { Ok(name) } else { Err(unnamed()) }
    };
    if !Path::new(path).exists() && Reference::is_meant(path) {
        let reference = Reference::parse(path)?;
        let name = named(reference.name())?;
        return Ok(filter(name, image(&reference, transport, context).await?, policy));
    }
    let path = absolute(Path::new(path))?;
    let name = named(&path.file_stem().unwrap_or_default().to_string_lossy())?;
    let source = if path.is_dir() {
        let built = {
            let progress = context.output.progress();
            builder::build(&path, &|what| progress.step(what))?
        };
        PluginSource::Directory { source: path, module: built.path }
    } else {
        PluginSource::File(path)
    };
    Ok(filter(name, source, policy))
}

fn filter(name: String, source: PluginSource, policy: Option<FailurePolicy>) -> PluginSpec {
    PluginSpec {
        name,
        role: Role::Filter,
        source,
        config: None,
        root_id: String::new(),
        failure_policy: policy.unwrap_or(FailurePolicy::FailClosed),
        given: None,
    }
}

/// `[NAME=]VALUE`: without a name it is for the only plugin.
fn assign<'a, 'g>(given: &'g str, specs: &'a mut [PluginSpec]) -> Result<(&'a mut PluginSpec, &'g str)> {
    let known: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    if let Some((name, value)) = given.split_once('=')
        && known.iter().any(|k| k == name)
    {
        let slot = specs.iter_mut().find(|spec| spec.name == name);
        return slot.map(|slot| (slot, value)).ok_or_else(|| Error::UnknownPlugin { name: name.to_owned(), known });
    }
    match specs {
        [only] => Ok((only, given)),
        _ => Err(Error::Usage(format!("`{given}` could be for any of {}: write NAME={given}", known.join(", ")))),
    }
}

fn upstream(url: &str) -> Result<Upstream> {
    if url == "builtin" { Ok(Upstream::BuiltIn) } else { Target::parse(url).map(Upstream::Url) }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    // Now, not in the background: the user sees which path was meant.
    std::fs::metadata(&path).map_err(|source| Error::Unreadable { path: path.clone(), source })?;
    Ok(path)
}
