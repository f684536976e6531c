//! Log lines of everything an instance runs: one shape, one place, bounded.

mod envoy;
mod hub;

pub use envoy::EnvoyLines;
pub use hub::{Following, LogHub, Mark};

use serde::{Deserialize, Serialize};

/// Severity, by Envoy's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off]
            .into_iter()
            .find(|level| level.name() == name)
    }
}

/// One line; its serialisation is the JSON contract of `logs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// RFC 3339, UTC.
    pub time: String,
    /// Which proxy (or `spctl` itself) it comes from.
    pub source: String,
    pub level: Level,
    pub message: String,
    /// The plugin that spoke; none for the proxy's own lines.
    pub plugin: Option<String>,
}
