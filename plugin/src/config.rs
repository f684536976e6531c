//! The plugin configuration: one JSON object, parsed strictly where a value is
//! impossible and leniently where a key is unknown, because a filter that
//! refuses its configuration on first load answers users with 500.
//!
//! Pure, so that `spctl` checks the same schema before anything is sent
//! anywhere. `KEYS` describes it; `parse` implements it.

mod keys;
mod object;
mod parse;

pub use keys::{IGNORED, KEYS, Key, Kind};
pub use parse::parse;

use crate::exchange::Direction;
use crate::host::Level;
use crate::policy::{Policy, Rule};
use crate::redact::Redactor;
use std::fmt;

const UNKNOWN: &str = "unknown key";

/// A configuration and what was odd about it.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub config: Config,
    pub warnings: Vec<Warning>,
}

/// A key that has no effect: unknown, retired, or not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub path: String,
    pub message: String,
}

impl Warning {
    /// Nobody ever knew the key: most likely a typo.
    pub fn is_unknown(&self) -> bool {
        self.message == UNKNOWN
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A value that cannot be used, with the JSON path of its key; the path is
/// empty when the document itself is bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub path: String,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for ConfigError {}

/// What the exported bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireKind {
    Otlp,
    Softprobe,
    ApiClarity,
    ApiClarityV1,
}

impl WireKind {
    pub fn name(self) -> &'static str {
        match self {
            WireKind::Otlp => "otlp",
            WireKind::Softprobe => "softprobe",
            WireKind::ApiClarity => "apiclarity",
            WireKind::ApiClarityV1 => "apiclarity-v1",
        }
    }

    pub fn is_apiclarity(self) -> bool {
        matches!(self, WireKind::ApiClarity | WireKind::ApiClarityV1)
    }
}

/// How the key travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    Both,
    PublicKey,
    Bearer,
    None,
}

/// Where exports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub scheme: String,
    /// Host, and port unless it is the scheme's default.
    pub authority: String,
    pub host: String,
    pub port: u16,
    /// Path of the backend's URL, without `/v1/traces`.
    pub base: String,
    /// Envoy cluster that reaches it.
    pub cluster: String,
}

/// Bounds, in bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub streams_bytes: usize,
    pub request_body_bytes: usize,
    pub response_body_bytes: usize,
    pub exchange_bytes: usize,
    pub queue_bytes: usize,
    pub batch_bytes: usize,
    pub batch_exchanges: usize,
    pub linger_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub initial_ms: u64,
    pub max_ms: u64,
    pub max_age_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub timeout_ms: u64,
    pub concurrency: usize,
    pub drain_ms: u64,
    /// Numbers the loads of the filter, upwards; 0: unknown.
    pub load: u64,
    pub retry: Retry,
    /// Sent with every upload.
    pub headers: Vec<(String, String)>,
}

/// Who names the namespace of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    Istio,
    Kuma,
}

/// APIClarity's choice of the hosts that are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Envoy cluster of its sampling manager.
    pub cluster: String,
}

/// Which requests are answered by the backend, and how.
#[derive(Clone, Debug)]
pub struct Inject {
    pub enabled: bool,
    /// `None`: both.
    pub direction: Option<Direction>,
    /// None at all: every request.
    pub rules: Vec<Rule>,
    pub timeout_ms: u64,
    /// Whether the host lets bodies through while headers wait.
    pub body: bool,
    pub body_bytes: usize,
    /// A failed lookup is answered with 503.
    pub strict: bool,
}

/// Whether captured exchanges take part in W3C tracing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    W3c,
    None,
}

/// What becomes of a request without a session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Read,
    Generate,
}

/// Which connection facts are fetched for each captured exchange; each costs a
/// host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub protocol: bool,
    pub source: bool,
    pub destination: bool,
    pub upstream: bool,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub wire: WireKind,
    pub backend: Backend,
    pub public_key: Option<String>,
    pub auth: Auth,
    pub service_name: Option<String>,
    /// `None`: ask the listener.
    pub direction: Option<Direction>,
    pub policy: Policy,
    pub redact: Redactor,
    pub inject: Inject,
    pub mesh: Mesh,
    pub sampling: Option<Sampling>,
    pub limits: Limits,
    pub export: Export,
    pub propagation: Propagation,
    pub session: Session,
    pub skip_gateways: bool,
    pub attributes: Attributes,
    /// Nothing below this is logged, whatever the proxy's level.
    pub log_level: Level,
}

#[cfg(test)]
mod tests;
