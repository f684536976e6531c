//! Envoy is the truth: every scenario runs on the embedded host and on real
//! Envoys of several releases, and everything observable must be the same.

mod ask;
mod compare;
pub mod format;
mod grpc;
pub mod guests;
pub mod observe;
pub mod parity;
mod run;
mod servers;

use std::collections::{BTreeMap, BTreeSet};

use format::{Scenario, VERSIONS};
use observe::NORMALISED;

use crate::common::{envoys, testdata};

/// Scenarios under way at once: most of each is waiting.
const AT_ONCE: usize = 6;
/// Where a chunk ends is the network's business: a problem must show in the
/// crowd, and so many times with nothing else running.
const ALONE: usize = 2;

#[test]
fn the_embedded_host_behaves_as_envoy_does() {
    let scenarios = format::load(&testdata().join("scenarios"));
    assert!(scenarios.len() >= 150, "{} scenarios", scenarios.len());
    let only = std::env::var("SPCTL_SCENARIO").ok();
    let wanted = |name: &str| only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let named: Vec<_> = scenarios
        .iter()
        .map(|(file, scenario)| (format!("{file}: {}", scenario.name), scenario))
        .filter(|(name, _)| wanted(name))
        .collect();
    let runner = run::Runner::new(guests::Guests::default(), &envoys());
    let (skipped, named): (Vec<_>, Vec<_>) = named.into_iter().partition(|(_, s)| runner.lacks_tools(s));
    for (name, _) in &skipped {
        eprintln!("SKIPPED: {name}: its guest needs Go, which is not installed");
    }
    let mut failures = BTreeMap::new();
    for ((name, scenario), verdict) in named.iter().zip(runner.all(named.iter().map(|(_, s)| *s), AT_ONCE)) {
        let problems = (0..ALONE).fold(verdict, |problems, _| match problems.is_empty() {
            true => problems,
            false => runner.all([*scenario], 1).remove(0),
        });
        if !problems.is_empty() {
            failures.insert(name.clone(), problems);
        }
    }
    report(&runner.versions(), named.len(), &failures, named.iter().map(|(_, s)| *s));
    let text: Vec<_> =
        failures.iter().map(|(name, problems)| format!("{name}\n    {}", problems.join("\n    "))).collect();
    assert!(text.is_empty(), "\n{}", text.join("\n"));
    if std::env::var_os("CI").is_some() && only.is_none() {
        let compared: BTreeSet<_> = runner.versions().into_iter().collect();
        let missing: Vec<_> = VERSIONS.iter().filter(|v| !compared.contains(**v)).collect();
        assert!(missing.is_empty(), "CI compares with every release: {missing:?} are missing, run .ci/test");
    }
}

/// One line for each Envoy, so that a log shows what has been compared.
fn report<'a>(
    versions: &[String],
    run: usize,
    failures: &BTreeMap<String, Vec<String>>,
    scenarios: impl Iterator<Item = &'a Scenario> + Clone,
) {
    for version in versions {
        let documented = scenarios.clone().filter(|s| s.difference(version).is_some()).count();
        eprintln!("Envoy {version}: {run} scenarios, {documented} with a documented difference");
    }
    if versions.is_empty() {
        eprintln!("no Envoy: {run} scenarios on the embedded host alone, NOT compared");
    }
    eprintln!("{} failures; normalised: {}", failures.len(), NORMALISED.join("; "));
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

/// A difference documented for a release that nobody compares with is never
/// checked.
#[test]
fn differences_name_releases_that_are_compared() {
    for (file, scenario) in format::load(&testdata().join("scenarios")) {
        for key in scenario.differs.keys() {
            let known = key == "envoy" || key.strip_prefix("envoy-").is_some_and(|v| VERSIONS.contains(&v));
            assert!(known, "{file}: {}: {key}", scenario.name);
        }
    }
}
