//! Rules about a user's own bootstrap.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::{Finding, Severity};
use crate::bootstrap::{Bootstrap, Code, PathMap, Placed, Role};
use crate::error::Result;

/// Reads the file and says what would go wrong with it.
pub fn examine(path: &Path, maps: &[PathMap]) -> Result<(Bootstrap, Vec<Finding>)> {
    let mut bootstrap = Bootstrap::read(path, maps)?;
    let mut findings = Vec::new();
    for repair in bootstrap.repair() {
        let evidence = format!("{}: {}", path.display(), repair.key);
        let fix = format!("{}; `--fix` writes a repaired copy", repair.change);
        findings.push(Finding::new("config_outdated", Severity::Error, evidence, repair.why, fix));
    }
    let repaired = bootstrap.clone();
    let clusters = clusters(&bootstrap.document);
    let plugins = bootstrap.take_plugins()?;
    for placed in &plugins {
        findings.extend(file(placed));
        findings.extend(export(placed, &clusters));
        findings.extend(alone(placed, &plugins));
    }
    Ok((repaired, findings))
}

fn file(placed: &Placed) -> Option<Finding> {
    let Code::File(path) = &placed.code else { return None };
    let shown = path.display();
    let plugin = &placed.plugin;
    match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Finding::new(
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
        Ok(file) => {
            let mode = file.metadata().ok()?.permissions().mode();
            (mode & 0o004 == 0).then(|| {
                Finding::new(
                    "plugin_file_private",
                    Severity::Note,
                    format!("`{plugin}`: {shown} has mode {:o}", mode & 0o777),
                    "an Envoy of another user (101 in official images) cannot read it",
                    format!("`chmod a+r {shown}`"),
                )
            })
        }
    }
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
