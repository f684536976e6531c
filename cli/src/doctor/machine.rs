//! Rules about this machine: what the harnesses need, what dead instances left.

use std::path::Path;

use super::{Finding, Severity};
use crate::adapters::docker::{self, Docker};
use crate::builder::BUILD_LABEL;
use crate::error::Error;
use crate::harness::{CONTAINER_LABEL, EnvoyBinary, find_envoy};
use crate::state::{Found, Home};
use crate::toolchain::{Toolchain, WASM_TARGET};

/// Below this the database of a busy instance fills the disk within minutes.
const LOW_BYTES: u64 = 200 << 20;

/// Everything of this machine; with `mend`, what can be mended without harm is.
/// The Envoy to try plugins with comes along, if there is one.
pub async fn examine(home: &Home, envoy: Option<&Path>, mend: bool) -> (Vec<Finding>, Option<EnvoyBinary>) {
    let mut findings = state(home);
    findings.extend(stale_instances(home, mend));
    findings.extend(docker(home, mend).await);
    let envoy = find_envoy(envoy).await.map_err(|error| {
        findings.push(needs(&error, "`--harness envoy` cannot be used"));
    });
    if let Err(missing) = Toolchain::find(WASM_TARGET, Path::new(".")) {
        findings.push(needs(&Error::Toolchain(missing), "`spctl build` needs `--in-docker` for Rust plugins"));
    }
    (findings, envoy.ok())
}

/// Something that only some commands need.
fn needs(error: &Error, why: &str) -> Finding {
    let code = match error {
        Error::EnvoyUnfit { .. } => "envoy_unfit",
        Error::EnvoyMissing { .. } => "envoy_missing",
        Error::DockerForbidden { .. } => "docker_forbidden",
        Error::Toolchain(_) => "toolchain_missing",
        _ => "docker_missing",
    };
    let evidence = [vec![error.to_string()], error.causes()].concat().join("; ");
    Finding::new(code, Severity::Note, evidence, why, error.hint().unwrap_or_default())
}

fn state(home: &Home) -> Vec<Finding> {
    let path = home.path();
    let shown = path.display();
    if let Err(error) = std::fs::create_dir_all(path).and_then(|()| tempfile::tempfile_in(path).map(|_| ())) {
        let why = "instances keep their records, logs and captures there";
        let fix = "make it writable, or set SPCTL_HOME to another directory";
        return vec![Finding::new("state_dir_unusable", Severity::Error, format!("{shown}: {error}"), why, fix)];
    }
    let Ok(space) = rustix::fs::statvfs(path) else { return Vec::new() };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free >= LOW_BYTES {
        return Vec::new();
    }
    let evidence = format!("{} MB are free below {shown}", free >> 20);
    let fix = "free some space, or set SPCTL_HOME to another disk";
    vec![Finding::new("disk_full", Severity::Error, evidence, "captures cannot be stored", fix)]
}

fn stale_instances(home: &Home, mend: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in home.names() {
        let dir = home.instance(&name);
        if !matches!(dir.find(), Ok(Found::Dead)) {
            continue;
        }
        let evidence = format!("{} has no living process", dir.path().display());
        let why = "an instance was killed; its proxy may still run";
        let mut finding = Finding::new("instance_stale", Severity::Warning, evidence, why, "`spctl doctor --fix`");
        finding.fixed = mend && dir.clean_up_dead().is_ok();
        findings.push(finding);
    }
    findings
}

/// Containers of this home whose instance is gone, and of builds that were killed.
async fn docker(home: &Home, mend: bool) -> Vec<Finding> {
    let docker = match Docker::connect().await {
        Ok(docker) => docker,
        Err(error) => return vec![needs(&error, "`--harness docker` cannot be used")],
    };
    let mut findings = Vec::new();
    for (id, pid) in docker.with_label(BUILD_LABEL).await.unwrap_or_default() {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        // Somebody else's process may not be asked, which says that it lives.
        let gone = pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
        if gone {
            findings.push(stale_container(&id, "it was started by a build that was killed", mend));
        }
    }
    for (id, directory) in docker.with_label(CONTAINER_LABEL).await.unwrap_or_default() {
        let directory = Path::new(&directory);
        let ours = directory.starts_with(home.path().join("instances"));
        let name = directory.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let alive =
            name.is_some_and(|name| matches!(home.instance(&name).find(), Ok(Found::Alive(_) | Found::Starting)));
        if !ours || alive {
            continue;
        }
        findings.push(stale_container(&id, "it was started by an instance that is gone", mend));
    }
    findings
}

fn stale_container(id: &str, why: &str, mend: bool) -> Finding {
    let evidence = format!("container {}", id.get(..12).unwrap_or(id));
    let mut finding = Finding::new("container_stale", Severity::Warning, evidence, why, "`spctl doctor --fix`");
    if mend {
        docker::remove_now(id);
        finding.fixed = true;
    }
    finding
}
