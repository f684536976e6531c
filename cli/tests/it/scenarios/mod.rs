//! Envoy is the truth: every scenario runs on the embedded host and on a real
//! Envoy, and everything observable must be the same.

pub mod format;
mod guests;
pub mod observe;
mod run;
mod servers;

use format::{Expect, Scenario};
use observe::{NORMALISED, Observed};

use crate::common::{envoy, testdata};

#[test]
fn the_embedded_host_behaves_as_envoy_does() {
    let scenarios = format::load(&testdata().join("scenarios"));
    let only = std::env::var("SPCTL_SCENARIO").ok();
    let wanted = |name: &str| only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    assert!(scenarios.len() >= 40, "{} scenarios", scenarios.len());
    let guests = guests::Guests::build();
    let native = envoy();
    let runner = run::Runner::new(guests, native.as_deref());
    let (mut equal, mut documented, mut failures) = (0, 0, Vec::new());
    for (file, scenario) in scenarios.iter().filter(|(file, s)| wanted(&format!("{file}: {}", s.name))) {
        let name = format!("{file}: {}", scenario.name);
        // Where a chunk ends is the network's business: a problem must show twice.
        let problems = match judge(&runner, scenario, native.is_some()) {
            none if none.is_empty() => none,
            _ => judge(&runner, scenario, native.is_some()),
        };
        if problems.is_empty() {
            equal += u32::from(scenario.differs.is_none());
            documented += u32::from(scenario.differs.is_some());
        } else {
            failures.push(format!("{name}\n    {}", problems.join("\n    ")));
        }
    }
    let compared = if native.is_some() {
        "equal on embedded and Envoy"
    } else {
        "as expected on embedded (no Envoy: NOT compared)"
    };
    eprintln!(
        "{equal} scenarios {compared}, {documented} documented differences, {} failures; normalised: {}",
        failures.len(),
        NORMALISED.join("; ")
    );
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// What is wrong with a scenario on both hosts, if anything.
fn judge(runner: &run::Runner, scenario: &Scenario, native: bool) -> Vec<String> {
    let embedded = runner.embedded(scenario);
    let truth = if native { runner.envoy(scenario) } else { embedded.clone() };
    let mut problems: Vec<String> =
        unmet(&truth, &scenario.expect).into_iter().map(|p| format!("Envoy: {p}")).collect();
    let differing = differences(&truth, &embedded);
    match &scenario.differs {
        Some(_) if !differing.is_empty() => {}
        Some(why) if native => problems.push(format!("no longer differs: remove `differs: {why}`")),
        _ => problems.extend(differing),
    }
    problems
}

/// What a scenario expects and did not see.
fn unmet(seen: &Observed, expect: &Expect) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |what: &str, wanted: String, got: String| {
        if wanted != got {
            problems.push(format!("{what}: expected {wanted}, got {got}"));
        }
    };
    let status: Vec<u16> = seen.answers.iter().map(|a| a.status).collect();
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

fn differences(truth: &Observed, embedded: &Observed) -> Vec<String> {
    if truth == embedded {
        return Vec::new();
    }
    let (truth, embedded) = (serde_json::to_value(truth).unwrap(), serde_json::to_value(embedded).unwrap());
    let mut found = Vec::new();
    compare("", &truth, &embedded, &mut found);
    found.truncate(8);
    found
}

fn compare(path: &str, truth: &serde_json::Value, embedded: &serde_json::Value, found: &mut Vec<String>) {
    use serde_json::Value::{Array, Object};
    match (truth, embedded) {
        (Array(a), Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{n}]"), a, b, found);
            }
        }
        (Object(a), Object(b)) if a.keys().eq(b.keys()) => {
            for (key, a) in a {
                compare(&format!("{path}.{key}"), a, &b[key], found);
            }
        }
        (a, b) if a != b => found.push(format!("{path}\n      envoy:    {a}\n      embedded: {b}")),
        _ => {}
    }
}

/// Names are unique: a failure names one place.
#[test]
fn every_scenario_has_a_name_of_its_own() {
    let mut names: Vec<String> = format::load(&testdata().join("scenarios"))
        .into_iter()
        .map(|(file, Scenario { name, .. })| format!("{file}: {name}"))
        .collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
