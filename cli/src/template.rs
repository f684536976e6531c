//! `templates/`, compiled in. Rendering is strict: an unknown variable is an
//! error, never an empty string.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use crate::error::{Error, Result};

/// Envoy's bootstrap for an instance.
pub const ENVOY_BOOTSTRAP: &str = include_str!("../../templates/envoy/bootstrap.yaml");
/// One filter's ECDS resource.
pub const ENVOY_FILTER: &str = include_str!("../../templates/envoy/filter.yaml");

/// Renders one of the templates above.
pub fn render(template: &str, variables: &serde_json::Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.render_str(template, Serde(variables)).map_err(|e| Error::Protocol(format!("a template: {e:#}")))
}
