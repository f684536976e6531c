//! `doctor`: what is wrong, its evidence, and what to do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::Context;
use crate::adapters::http;
use crate::bootstrap::PathMap;
use crate::bundle;
use crate::doctor::{
    Evidence, Examiner, Finding, PluginFile, Severity, examine_bootstrap, examine_instance, examine_machine,
};
use crate::error::{Error, Result};
use crate::harness::{EnvoyBinary, Kind, missing_import};
use crate::instance::{Client, InstanceStatus, LogEntry, Target};
use crate::logs::Line;
use crate::state::{Found, write_private};
use crate::ui::Style;

/// A backend that takes longer is as good as none.
const PROBE: Duration = Duration::from_secs(3);

/// Find what is wrong: quote the evidence, explain, say the fix.
///
/// Looks at this machine, at every running instance, and with -c at an Envoy
/// configuration. Exits with 3 when something does not work.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this instance.
    #[arg(long, env = "SPCTL_NAME")]
    name: Option<String>,

    /// An Envoy bootstrap to look at, as `run -c` takes it.
    #[arg(long, short = 'c', value_name = "ENVOY.YAML")]
    bootstrap: Option<PathBuf>,

    /// Where a path in that bootstrap is on this machine; repeatable.
    #[arg(long, value_name = "FROM=TO", requires = "bootstrap", value_parser = PathMap::parse)]
    map: Vec<PathMap>,

    /// The Envoy binary to check [default: `envoy` on PATH].
    #[arg(long, value_name = "FILE", env = "SPCTL_ENVOY")]
    envoy_path: Option<PathBuf>,

    /// Mend what can be mended without harm: remove what dead instances left, write a repaired copy of the bootstrap.
    #[arg(long)]
    fix: bool,
}

#[derive(Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<()> {
    let progress = context.output.progress();
    progress.step("looking at this machine");
    let (mut findings, envoy) = examine_machine(&context.home, args.envoy_path.as_deref(), args.fix).await;
    let mut running = Vec::new();
    let names = match &args.name {
        Some(name) => vec![name.clone()],
        None => context.home.names(),
    };
    for name in names {
        if args.name.is_none() && !matches!(context.home.instance(&name).find()?, Found::Alive(_)) {
            continue;
        }
        progress.step(&format!("looking at `{name}`"));
        let evidence = evidence(&name, context, envoy.as_ref()).await?;
        findings.extend(examine_instance(&evidence));
        running.push(evidence.status);
    }
    if let Some(path) = &args.bootstrap {
        progress.step(&format!("looking at {}", path.display()));
        let (cache, envoy) = (context.home.cache().join("modules"), envoy.as_ref());
        let examiner = Examiner { maps: &args.map, cache, envoy, running: &running };
        findings.extend(bootstrap(path, &examiner, args.fix).await?);
    }
    drop(progress);
    findings.sort_by_key(|finding| finding.severity);
    let found = Findings { findings };
    context.output.result(&found, |style| describe(&found.findings, style))?;
    let open: Vec<&str> =
        found.findings.iter().filter(|f| f.severity == Severity::Error && !f.fixed).map(|f| f.code).collect();
    if open.is_empty() { Ok(()) } else { Err(Error::Unwell { count: open.len(), codes: open.join(", ") }) }
}

async fn bootstrap(path: &Path, examiner: &Examiner<'_>, fix: bool) -> Result<Vec<Finding>> {
    let (repaired, mut findings) = examine_bootstrap(path, examiner).await?;
    if fix && findings.iter().any(|finding| finding.code == "config_outdated") {
        let copy = path.with_extension("fixed.yaml");
        let text = serde_yaml::to_string(&repaired.document).map_err(|e| Error::Protocol(e.to_string()))?;
        write_private(&copy, text.as_bytes())?;
        for finding in findings.iter_mut().filter(|finding| finding.code == "config_outdated") {
            finding.fixed = true;
            finding.fix = format!("repaired in {}", copy.display());
        }
    }
    Ok(findings)
}

async fn evidence(name: &str, context: &Context<'_>, envoy: Option<&EnvoyBinary>) -> Result<Evidence> {
    let client = Client::find(&context.home, name)?;
    let status: InstanceStatus = client.get("/status").await?;
    let mut lines: Vec<Line> = Vec::new();
    let mut stream = client.lines("/logs?follow=false").await?;
    while let Some(entry) = stream.next::<LogEntry>().await? {
        if let LogEntry::Line(line) = entry {
            lines.push(line);
        }
    }
    let (skew_s, backend_error) = match status.backend_url.as_deref().map(Target::parse) {
        Some(Ok(target)) => probe(&target).await,
        _ => (None, None),
    };
    let files = files(&status, envoy).await;
    Ok(Evidence { status, lines, skew_s, backend_error, files })
}

/// The plugins' files as they are now. Where no Envoy has had a word yet, the
/// machine's own is asked for one.
async fn files(status: &InstanceStatus, envoy: Option<&EnvoyBinary>) -> Vec<PluginFile> {
    let envoy = envoy.filter(|_| status.harness == Kind::Embedded.name());
    let mut files = Vec::new();
    for plugin in &status.plugins {
        let Some(path) = &plugin.path else { continue };
        let digest = bundle::read(&plugin.name, path).map(|module| module.digest);
        let refused = match envoy {
            Some(envoy) if digest.is_ok() => {
                let line = missing_import(envoy, path).await;
                line.map(|line| format!("envoy {}: {line}", envoy.version))
            }
            _ => None,
        };
        let why = |error: Error| [vec![error.to_string()], error.causes()].concat().join(": ");
        files.push(PluginFile {
            plugin: plugin.name.clone(),
            path: path.clone(),
            digest: digest.map_err(why),
            refused,
        });
    }
    files
}

/// Connects to the backend; over plain HTTP its `date` tells the time there.
async fn probe(target: &Target) -> (Option<i64>, Option<String>) {
    let resolve = tokio::net::lookup_host((target.host.as_str(), target.port));
    let address: SocketAddr = match resolve.await.map(|mut found| found.next()) {
        Ok(Some(address)) => address,
        Ok(None) => return (None, Some("the name has no address".into())),
        Err(error) => return (None, Some(error.to_string())),
    };
    if target.tls {
        let connected = tokio::time::timeout(PROBE, tokio::net::TcpStream::connect(address)).await;
        return (None, connected.map_or(Some("no connection in time".into()), |tcp| tcp.err().map(|e| e.to_string())));
    }
    match http::ask(address, "GET", "/health", PROBE).await {
        Ok(answer) => {
            let date = answer.headers.get("date").and_then(|date| date.to_str().ok());
            let there = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
            let skew = there.map(|there| there.timestamp().as_second() - jiff::Timestamp::now().as_second());
            (skew, None)
        }
        Err(error) => (None, Some(error.to_string())),
    }
}

fn describe(findings: &[Finding], style: Style) -> String {
    if findings.is_empty() {
        return format!("{} nothing is wrong\n", style.good("✓"));
    }
    let mut text = String::new();
    for finding in findings {
        let head = match (finding.fixed, finding.severity) {
            (true, _) => style.good("fixed  "),
            (false, Severity::Error) => style.bad("error  "),
            (false, Severity::Warning) => style.warn("warning"),
            (false, Severity::Note) => style.dim("note   "),
        };
        text.push_str(&format!("{head} {}\n", style.bold(finding.code)));
        for (what, words) in [("seen", &finding.evidence), ("why", &finding.why), ("fix", &finding.fix)] {
            text.push_str(&format!("          {} {words}\n", style.dim(&format!("{what:<4}"))));
        }
    }
    text
}
