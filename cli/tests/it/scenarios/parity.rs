//! The README's table of parity, from the scenarios: that everything not
//! documented is equal is what the scenario test fails on.

use super::format::{Scenario, VERSIONS};
use super::observe::NORMALISED;

pub fn table(scenarios: &[(String, Scenario)]) -> String {
    let mut out = String::from(
        "| Envoy | scenarios | equal to the embedded host | documented differences |\n|---|---|---|---|\n",
    );
    for version in VERSIONS {
        let documented = scenarios.iter().filter(|(_, s)| s.difference(version).is_some()).count();
        let equal = scenarios.len() - documented;
        out.push_str(&format!("| {version} | {} | {equal} | {documented} |\n", scenarios.len()));
    }
    for (_, scenario) in scenarios {
        for (envoy, difference) in &scenario.differs {
            let which = match envoy.strip_prefix("envoy-") {
                Some(version) => format!("Envoy {version}"),
                None => "Every Envoy".to_owned(),
            };
            out.push_str(&format!("\n{which} differs: *{}*. {}.\n", scenario.name, difference.why));
        }
    }
    out.push_str(&format!("\nNormalised before comparing: {}.\n", NORMALISED.join("; ")));
    out
}
