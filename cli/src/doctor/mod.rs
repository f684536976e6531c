//! What can be wrong, found by its evidence: rules over what an instance, a
//! file or the machine say of themselves.

mod bootstrap;
mod instance;
mod machine;

pub use bootstrap::{Examiner, examine as examine_bootstrap};
pub use instance::{Evidence, PluginFile, examine as examine_instance};
pub use machine::examine as examine_machine;

use serde::Serialize;

/// One thing that is wrong or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, snake case.
    pub code: &'static str,
    pub severity: Severity,
    /// What was seen: a log line, a count, a path.
    pub evidence: String,
    pub why: String,
    /// What to do.
    pub fix: String,
    pub fixed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something is lost, or soon will be.
    Warning,
    /// Good to know; nothing has to be done.
    Note,
}

impl Finding {
    fn new(
        code: &'static str,
        severity: Severity,
        evidence: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { code, severity, evidence: evidence.into(), why: why.into(), fix: fix.into(), fixed: false }
    }
}
