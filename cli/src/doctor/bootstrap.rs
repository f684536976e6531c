//! Rules about a user's own bootstrap.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::instance::too_new;
use super::{Finding, Severity};
use crate::bootstrap::{Bootstrap, Code, PathMap, Placed, Role};
use crate::bundle::MODULE_MAX;
use crate::error::{Error, PluginProblem, Result};
use crate::harness::{
    Embedded, EnvoyBinary, FailurePolicy, Filter, Kind, Limits, Module, Own, Topology, missing_import,
};
use crate::instance::{InstanceStatus, fetch_module};
use crate::logs::{Level, LogHub};
use crate::state::{hex, read_small};

/// What a bootstrap is tried with.
pub struct Examiner<'a> {
    pub maps: &'a [PathMap],
    /// Where compiled modules are kept.
    pub cache: PathBuf,
    pub envoy: Option<&'a EnvoyBinary>,
    pub running: &'a [InstanceStatus],
}

/// Reads the file and says what would go wrong with it.
pub async fn examine(path: &Path, examiner: &Examiner<'_>) -> Result<(Bootstrap, Vec<Finding>)> {
    let mut bootstrap = Bootstrap::read(path, examiner.maps)?;
    let mut findings = Vec::new();
    for repair in bootstrap.repair() {
        let evidence = format!("{}: {}", path.display(), repair.key);
        let fix = format!("{}; `--fix` writes a repaired copy", repair.change);
        findings.push(Finding::new("config_outdated", Severity::Error, evidence, repair.why, fix));
    }
    let repaired = bootstrap.clone();
    findings.extend(ports(&bootstrap, examiner.running));
    let clusters = clusters(&bootstrap.document);
    let plugins = bootstrap.take_plugins()?;
    for placed in &plugins {
        findings.extend(export(placed, &clusters));
        findings.extend(alone(placed, &plugins));
        let (found, module) = module(placed, &repaired).await;
        findings.extend(found);
        if let Some(module) = module {
            findings.extend(load(placed, module, &bootstrap, examiner).await);
        }
    }
    Ok((repaired, findings))
}

/// Addresses that somebody else has already.
fn ports(bootstrap: &Bootstrap, running: &[InstanceStatus]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, address) in bootstrap.addresses().into_iter().filter(|(_, address)| address.port() != 0) {
        let Err(error) = TcpListener::bind(address) else { continue };
        let url = format!("http://{address}");
        let of = |status: &&InstanceStatus| {
            [&status.proxy_url, &status.outbound_url, &status.admin_url]
                .into_iter()
                .flatten()
                .any(|known| *known == url)
        };
        let (severity, by) = match running.iter().find(of) {
            Some(status) => (Severity::Note, format!(", by the instance `{}`", status.name)),
            None => (Severity::Error, String::new()),
        };
        let (code, what, fix) = match error.kind() {
            ErrorKind::AddrInUse => (
                "port_in_use",
                format!("is in use{by}"),
                "stop what listens there, or choose another port with `run --listen`",
            ),
            _ => ("port_unusable", error.to_string(), "choose another address"),
        };
        findings.push(Finding::new(
            code,
            severity,
            format!("{key}: {address} {what}"),
            "the proxy cannot listen there",
            fix,
        ));
    }
    findings
}

/// A plugin's bytes, and what is wrong with where they come from.
async fn module(placed: &Placed, bootstrap: &Bootstrap) -> (Vec<Finding>, Option<Module>) {
    match &placed.code {
        Code::Inline(bytes) => (Vec::new(), Some(Module::new(bytes.clone()))),
        Code::File(path) => {
            (file(placed, path).into_iter().collect(), read_small(path, MODULE_MAX).ok().map(Module::new))
        }
        Code::Remote { url, cluster, sha256 } => {
            let mut findings: Vec<Finding> = built_anew(placed, url, sha256, bootstrap).into_iter().collect();
            match fetch_module(url, cluster, sha256, bootstrap).await {
                Ok(bytes) => (findings, Some(Module::new(bytes))),
                Err(error) => {
                    findings.push(fetched(placed, &error));
                    (findings, None)
                }
            }
        }
    }
}

fn fetched(placed: &Placed, error: &Error) -> Finding {
    let evidence = format!("`{}`: {error}", placed.plugin);
    match error {
        Error::ConfigRejected { key, .. } if key.ends_with("sha256") => Finding::new(
            "sha256_mismatch",
            Severity::Error,
            evidence,
            "Envoy refuses a module of another digest: it was built anew, or it is not what it should be",
            "if the module is right, put its digest into the bootstrap",
        ),
        _ => Finding::new(
            "plugin_not_fetched",
            Severity::Warning,
            evidence,
            "Envoy could not fetch it either, if it is where this machine is",
            "check the URL, or use `local.filename`",
        ),
    }
}

/// The module's file lies here too, with other bytes than the bootstrap names.
fn built_anew(placed: &Placed, url: &str, sha256: &str, bootstrap: &Bootstrap) -> Option<Finding> {
    let name = url.rsplit('/').next()?;
    let near = bootstrap.near(name.as_ref())?;
    let digest = hex(&Sha256::digest(read_small(&near, MODULE_MAX).ok()?));
    (!digest.eq_ignore_ascii_case(sha256)).then(|| {
        Finding::new(
            "sha256_mismatch",
            Severity::Warning,
            format!("`{}`: `sha256` is {sha256}, {} is {digest}", placed.plugin, near.display()),
            "once this file is at the URL, Envoy refuses it",
            format!("`spctl build PATH --update {}` writes the digest of what it builds", bootstrap.path.display()),
        )
    })
}

fn file(placed: &Placed, path: &Path) -> Option<Finding> {
    let shown = path.display();
    let plugin = &placed.plugin;
    match std::fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Finding::new(
            "plugin_file_missing",
            Severity::Error,
            format!("`{plugin}`: {shown}"),
            "there is no such file here; it may be a container's path",
            "say where it is with `--map FROM=TO`",
        )),
        Err(error) => Some(Finding::new(
            "plugin_file_unreadable",
            Severity::Error,
            format!("`{plugin}`: {shown}: {error}"),
            "Envoy cannot read it either",
            format!("`chmod a+r {shown}`"),
        )),
        Ok(_) => {
            let (place, mode, change) = private(path)?;
            let place = place.display();
            Some(Finding::new(
                "plugin_file_private",
                Severity::Note,
                format!("`{plugin}`: {shown}: {place} has mode {mode:o}"),
                "an Envoy of another user (101 in official images) cannot read it",
                format!("`chmod {change} {place}`"),
            ))
        }
    }
}

/// What keeps other users from reading a file: its mode, or a directory's on
/// the way to it.
fn private(path: &Path) -> Option<(&Path, u32, &'static str)> {
    let mode = |path: &Path| Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777);
    let own = mode(path)?;
    if own & 0o004 == 0 {
        return Some((path, own, "a+r"));
    }
    path.ancestors().skip(1).find_map(|above| {
        let mode = mode(above)?;
        (mode & 0o001 == 0).then_some((above, mode, "a+x"))
    })
}

/// Loads and configures the plugin off to the side, and asks the machine's
/// Envoy for its imports.
async fn load(placed: &Placed, module: Module, bootstrap: &Bootstrap, examiner: &Examiner<'_>) -> Vec<Finding> {
    let filter = Filter {
        name: placed.filter.clone(),
        plugin: placed.plugin.clone(),
        role: placed.role,
        seen_as: placed.plugin.clone(),
        module,
        configuration: placed.configuration.clone(),
        vm_configuration: placed.vm_configuration.clone(),
        allow_on_headers_stop_iteration: placed.allow_on_headers_stop_iteration,
        root_id: placed.root_id.clone(),
        vm_id: placed.vm_id.clone(),
        failure_policy: FailurePolicy::FailClosed,
        environment: placed.environment.iter().cloned().collect(),
        capabilities: placed.capabilities.clone(),
        generation: 0,
    };
    let aside = Topology {
        instance: "doctor".into(),
        own: Some(Own { document: bootstrap.document.clone(), files: Vec::new() }),
        listeners: Vec::new(),
        clusters: Vec::new(),
        filters: Vec::new(),
        workers: 1,
        log_level: Level::Info,
        limits: Limits::default(),
        trace: None,
    };
    let mut findings = Vec::new();
    if let Err(error) = Embedded::check(vec![filter], &aside, examiner.cache.clone(), LogHub::default()).await {
        findings.push(refused(&error));
    } else if let (Code::File(path), Some(envoy)) = (&placed.code, examiner.envoy)
        && let Some(line) = missing_import(envoy, path).await
    {
        let line = format!("{} {}: {line}", Kind::Envoy.name(), envoy.version);
        findings.push(too_new(&placed.plugin, &line, Severity::Error));
    }
    findings
}

/// Why a plugin cannot be used, with what it said itself.
fn refused(error: &Error) -> Finding {
    let code = match error {
        Error::Plugin { problem: PluginProblem::Refused, .. } => "configure_refused",
        Error::Plugin { problem, .. } => problem.code(),
        _ => "plugin_failed",
    };
    let evidence = [vec![error.to_string()], error.causes()].concat().join("; ");
    let why = "Envoy refuses it too: by default requests are answered with 503 or 500";
    Finding::new(code, Severity::Error, evidence, why, error.hint().unwrap_or_default())
}

/// The cluster that a capture filter sends to must exist.
fn export(placed: &Placed, clusters: &[String]) -> Option<Finding> {
    let config: Value = serde_json::from_slice(&placed.configuration).ok()?;
    config.get("sp_backend_url")?;
    let cluster = config.get("backend_cluster")?.as_str()?;
    if clusters.iter().any(|known| known == cluster) {
        return None;
    }
    Some(Finding::new(
        "cluster_missing",
        Severity::Error,
        format!("`{}` sends to the cluster `{cluster}`; there are: {}", placed.plugin, clusters.join(", ")),
        "a callout to an unknown cluster is refused at once, so nothing is exported",
        format!("add the cluster `{cluster}`, or name another in `backend_cluster`"),
    ))
}

/// A service beside filters none of which can see its shared data.
fn alone(placed: &Placed, plugins: &[Placed]) -> Option<Finding> {
    let filters: Vec<_> = plugins.iter().filter(|other| other.role == Role::Filter).collect();
    if placed.role == Role::Filter || filters.is_empty() || filters.iter().any(|filter| filter.vm_id == placed.vm_id) {
        return None;
    }
    let theirs: Vec<_> = filters.iter().map(|filter| format!("`{}` has `{}`", filter.plugin, filter.vm_id)).collect();
    Some(Finding::new(
        "service_alone",
        Severity::Note,
        format!("the service `{}` has the vm_id `{}`; {}", placed.plugin, placed.vm_id, theirs.join(", ")),
        "shared data and queues belong to a vm_id: what it writes no filter reads",
        "give them one vm_id if they are to share",
    ))
}

fn clusters(document: &Value) -> Vec<String> {
    let list = document.pointer("/static_resources/clusters").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|cluster| cluster.get("name")?.as_str()).map(str::to_owned).collect()
}
