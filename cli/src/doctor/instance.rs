//! Rules about a running instance.

use super::{Finding, Severity};
use crate::harness::Kind;
use crate::instance::InstanceStatus;
use crate::logs::{Level, Line};

/// What an instance says of itself.
pub struct Evidence {
    pub status: InstanceStatus,
    /// Its kept log lines, oldest first.
    pub lines: Vec<Line>,
    /// Seconds that the backend's clock is ahead; none where it was not asked or did not say.
    pub skew_s: Option<i64>,
    /// Why no connection to the backend could be made.
    pub backend_error: Option<String>,
}

/// More than this between the clocks and traces of several machines fall apart.
const SKEW_MAX_S: i64 = 5;

/// All findings, in the order of what they break.
pub fn examine(evidence: &Evidence) -> Vec<Finding> {
    let rules = [proxies, traps, backend, exports, drops, configuration, levels, evictions];
    rules.iter().flat_map(|rule| rule(evidence)).collect()
}

fn proxies(evidence: &Evidence) -> Vec<Finding> {
    let status = &evidence.status;
    let mut findings = Vec::new();
    for proxy in &status.proxies {
        if proxy.state.starts_with("ended") {
            let evidence = format!("{}: {}", proxy.name, proxy.state);
            let (why, fix) = ("the proxy is gone, requests are not answered", "`spctl down`, then start it again");
            findings.push(Finding::new("proxy_ended", Severity::Error, evidence, why, fix));
        } else if proxy.state != "serving" {
            let evidence = format!("{}: {}", proxy.name, proxy.state);
            findings.push(Finding::new("plugin_failed", Severity::Error, evidence, FAILED, RELOAD));
        }
        for served in &proxy.plugins {
            let wanted = status.plugins.iter().find(|plugin| plugin.name == served.name);
            if let Some(wanted) = wanted.filter(|wanted| wanted.plugin_digest != served.plugin_digest) {
                let evidence = format!(
                    "{} serves {} of `{}`, not {}",
                    proxy.name, served.plugin_digest, served.name, wanted.plugin_digest
                );
                let why = "the proxy did not take the plugin that it was given";
                findings.push(Finding::new("digest_differs", Severity::Error, evidence, why, "`spctl reload --force`"));
            }
        }
    }
    findings
}

const FAILED: &str = "its VM trapped; with fail-closed, Envoy's default, requests get 503 from then on";
const RELOAD: &str = "mend the plugin and `spctl reload`; `run --fail-policy fail-open` lets requests pass without it";

/// A trap in the log of an Envoy, whose admin port does not tell of one.
fn traps(evidence: &Evidence) -> Vec<Finding> {
    if evidence.status.harness == Kind::Embedded.name() {
        return Vec::new();
    }
    let trap = evidence.lines.iter().rev().find(|line| line.message.starts_with("Function: "));
    let found = trap.map(|line| Finding::new("plugin_failed", Severity::Error, quoted(line), FAILED, RELOAD));
    found.into_iter().collect()
}

fn backend(evidence: &Evidence) -> Vec<Finding> {
    let url = evidence.status.backend_url.clone().unwrap_or_default();
    let mut findings = Vec::new();
    if let Some(error) = &evidence.backend_error {
        let why = "captures wait in the filter's queue and are dropped when it is full";
        let fix = "start the backend, or name another with `run --backend`";
        findings.push(Finding::new("backend_unreachable", Severity::Error, format!("{url}: {error}"), why, fix));
    }
    if let Some(skew) = evidence.skew_s.filter(|skew| skew.abs() > SKEW_MAX_S) {
        let evidence = format!("{url} is {} s {}", skew.abs(), if skew > 0 { "ahead" } else { "behind" });
        let why = "times in traces of several machines do not fit together";
        findings.push(Finding::new(
            "clock_skew",
            Severity::Warning,
            evidence,
            why,
            "set the clock (NTP) of the one that is off",
        ));
    }
    findings
}

/// The last upload failed: by what the backend said.
fn exports(evidence: &Evidence) -> Vec<Finding> {
    let of_event = |line: &&Line, events: &[&str]| {
        let event = line.message.strip_prefix("SP ").and_then(|rest| rest.split(' ').next());
        event.is_some_and(|event| events.contains(&event))
    };
    let events = ["export_retry", "export_recovered", "dropped"];
    let Some(last) = evidence.lines.iter().rev().find(|line| of_event(line, &events)) else { return Vec::new() };
    if of_event(&last, &["export_recovered"]) {
        return Vec::new();
    }
    let status = last.message.split(' ').find_map(|word| word.strip_prefix("status="));
    let (code, why, fix) = match status {
        Some("401" | "403") => {
            ("backend_refuses_key", "the backend does not take the key", "check the key's file (`run --key-file`)")
        }
        Some("0" | "503" | "504") if evidence.backend_error.is_none() => (
            "backend_unreachable",
            "uploads are not answered",
            "check that the backend runs and that its cluster leads to it",
        ),
        Some("404") => {
            ("backend_path", "nothing takes OTLP at that path", "name the base path of the collector in `--backend`")
        }
        Some(code) if code.starts_with(['4', '5']) => {
            ("backend_errors", "the backend refuses uploads", "see the backend's own log")
        }
        _ => return Vec::new(),
    };
    vec![Finding::new(code, Severity::Error, quoted(last), why, fix)]
}

fn drops(evidence: &Evidence) -> Vec<Finding> {
    let counters = &evidence.status.counters;
    let found = counters.dropped.iter().map(|(reason, count)| {
        let (why, fix) = match reason.as_str() {
            "queue_full" => (
                "the backend was slower than the traffic",
                "raise `limits.queue_bytes`, or capture less (rules, sampling)",
            ),
            "retries_exhausted" => ("the backend was away for too long", "raise `export.retry.max_age_ms`"),
            "rejected" => ("the backend refused them", "see the backend's own log"),
            "too_large" => ("they were larger than allowed", "raise `limits.exchange_bytes`"),
            _ => ("they could not be sent", "see `spctl logs`"),
        };
        Finding::new("exchanges_dropped", Severity::Warning, format!("{count} dropped: {reason}"), why, fix)
    });
    found.collect()
}

fn configuration(evidence: &Evidence) -> Vec<Finding> {
    let lines = evidence.lines.iter().filter(|line| line.message.starts_with("SP config_"));
    let mut seen: Vec<&str> = Vec::new();
    let mut findings = Vec::new();
    for line in lines {
        // Each VM says it once.
        if seen.contains(&line.message.as_str()) {
            continue;
        }
        seen.push(&line.message);
        let refused = line.message.starts_with("SP config_refused");
        let (code, severity) =
            if refused { ("configure_refused", Severity::Error) } else { ("config_warning", Severity::Warning) };
        let why = if refused { "the filter does not start with it" } else { "the key has no effect" };
        findings.push(Finding::new(code, severity, quoted(line), why, "correct the key; the README lists all"));
    }
    findings
}

fn levels(evidence: &Evidence) -> Vec<Finding> {
    let level = evidence.status.log_level;
    if level <= Level::Info {
        return Vec::new();
    }
    let evidence = format!("the `wasm` logger is at {}", level.name());
    let fix = "`spctl logs --follow --level info`, or start with `--log-level info`";
    vec![Finding::new("log_level_hides", Severity::Note, evidence, "the plugin's info lines are hidden", fix)]
}

fn evictions(evidence: &Evidence) -> Vec<Finding> {
    let count = evidence.status.counters.evicted;
    if count == 0 {
        return Vec::new();
    }
    let (why, fix) = ("the local database keeps the newest within its bounds", "`spctl captures export` what you need");
    vec![Finding::new("captures_evicted", Severity::Note, format!("{count} of the oldest"), why, fix)]
}

fn quoted(line: &Line) -> String {
    let first = line.message.lines().next().unwrap_or_default();
    format!("{} {} {first}", line.source, line.level.name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::instance::Counters;

    fn evidence(messages: &[&str]) -> Evidence {
        let line = |message: &&str| Line {
            time: String::new(),
            source: "envoy".into(),
            level: Level::Warning,
            message: (*message).to_owned(),
            plugin: None,
        };
        Evidence {
            status: InstanceStatus {
                serving: None,
                name: "default".into(),
                harness: "envoy".into(),
                state: "running".into(),
                pid: 1,
                proxy_url: None,
                outbound_url: None,
                admin_url: None,
                backend_url: Some("http://b".into()),
                log_level: Level::Info,
                plugins: Vec::new(),
                proxies: Vec::new(),
                counters: Counters::default(),
            },
            lines: messages.iter().map(line).collect(),
            skew_s: None,
            backend_error: None,
        }
    }

    fn codes(evidence: &Evidence) -> Vec<&'static str> {
        examine(evidence).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn what_the_backend_says_decides() {
        assert_eq!(codes(&evidence(&["SP export_retry status=401 exchanges=1"])), ["backend_refuses_key"]);
        assert_eq!(codes(&evidence(&["SP export_retry status=0 exchanges=1"])), ["backend_unreachable"]);
        assert_eq!(codes(&evidence(&["SP export_retry status=0 x=1", "SP export_recovered failures=1"])), [""; 0]);
    }

    #[test]
    fn traps_levels_skew_and_drops() {
        let mut given = evidence(&["Function: proxy_on_tick failed: unreachable\n at x"]);
        given.status.log_level = Level::Error;
        given.status.counters.dropped = BTreeMap::from([("queue_full".to_owned(), 3)]);
        given.skew_s = Some(-90);
        assert_eq!(codes(&given), ["plugin_failed", "clock_skew", "exchanges_dropped", "log_level_hides"]);
    }

    #[test]
    fn a_healthy_instance_has_no_findings() {
        assert_eq!(codes(&evidence(&["SP started version=1"])), [""; 0]);
    }
}
