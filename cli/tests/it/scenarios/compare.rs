//! What is wrong with what was seen: an expectation not met, a difference that
//! is not documented, or a documented one that is not there.

use serde_json::Value;

use super::format::{Expect, Scenario};
use super::observe::Observed;

/// One place where two harnesses differ.
struct Differing {
    path: String,
    envoy: Value,
    embedded: Value,
}

/// What a scenario expects and did not see.
pub fn unmet(seen: &Observed, expect: &Expect) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |what: &str, wanted: String, got: String| {
        if wanted != got {
            problems.push(format!("{what}: expected {wanted}, got {got}"));
        }
    };
    let status: Vec<u16> = seen.answers.iter().map(|a| a.status).collect();
    check("refused", expect.refused.to_string(), seen.refused.to_string());
    check("status", format!("{:?}", expect.status), format!("{status:?}"));
    if let Some(body) = &expect.body {
        check("body", body.clone(), seen.answers.first().map(|a| a.body.clone()).unwrap_or_default());
    }
    if let Some(count) = expect.upstream {
        check("upstream requests", count.to_string(), seen.upstream.len().to_string());
    }
    if let Some(body) = &expect.upstream_body {
        check("upstream body", body.clone(), seen.upstream.first().map(|s| s.body.clone()).unwrap_or_default());
    }
    if let Some(count) = expect.callouts {
        check("callouts", count.to_string(), seen.callouts.values().flatten().count().to_string());
    }
    for (name, value) in &expect.metrics {
        check(name, value.to_string(), seen.metrics.get(name).map_or_else(|| "none".into(), u64::to_string));
    }
    let mut lines = seen.logs.iter();
    for wanted in &expect.logs {
        if !lines.any(|line| line.contains(wanted.as_str())) {
            problems.push(format!("log: no {wanted:?} (in this place) in {:#?}", seen.logs));
            break;
        }
    }
    problems
}

/// What an Envoy of this release and the embedded host do not agree on, beyond
/// what the scenario documents.
pub fn unexplained(scenario: &Scenario, version: &str, envoy: &Observed, embedded: &Observed) -> Vec<String> {
    let differing = differences(envoy, embedded);
    let Some(documented) = scenario.difference(version) else {
        return differing.iter().take(8).map(|d| show(version, d)).collect();
    };
    let mut problems = Vec::new();
    for found in &differing {
        match documented.shows.get(&found.path) {
            Some(part) if text(&found.envoy).contains(part.as_str()) => {}
            Some(part) => problems.push(format!("documented as {part:?}: {}", show(version, found))),
            None => problems.push(show(version, found)),
        }
    }
    for path in documented.shows.keys().filter(|path| !differing.iter().any(|d| d.path == **path)) {
        problems.push(format!("{path} no longer differs from Envoy {version}: its `differs` is out of date"));
    }
    problems
}

fn show(version: &str, found: &Differing) -> String {
    format!("{}\n      envoy {version}: {}\n      embedded:   {}", found.path, found.envoy, found.embedded)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn differences(envoy: &Observed, embedded: &Observed) -> Vec<Differing> {
    let mut found = Vec::new();
    if envoy != embedded {
        collect("", &serde_json::to_value(envoy).unwrap(), &serde_json::to_value(embedded).unwrap(), &mut found);
    }
    found
}

fn collect(path: &str, envoy: &Value, embedded: &Value, found: &mut Vec<Differing>) {
    use Value::{Array, Object};
    match (envoy, embedded) {
        (Array(a), Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                collect(&format!("{path}[{n}]"), a, b, found);
            }
        }
        (Object(a), Object(b)) if a.keys().eq(b.keys()) => {
            for (key, a) in a {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, a, &b[key], found);
            }
        }
        (a, b) if a != b => {
            found.push(Differing { path: path.to_owned(), envoy: a.clone(), embedded: b.clone() });
        }
        _ => {}
    }
}
