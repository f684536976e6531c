//! What an instance says of itself: the JSON contract of `status`, `reload`
//! and `quickstart`, and the messages of the control socket.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::PluginSource;
use crate::backend::Serving;
use crate::harness::{Proof, ProxyStatus, Role, Stats};
use crate::logs::{Level, Line};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub name: String,
    pub harness: String,
    /// `running`, or `degraded` when a proxy ended or a plugin failed.
    pub state: String,
    pub pid: u32,
    pub proxy_url: Option<String>,
    pub outbound_url: Option<String>,
    pub admin_url: Option<String>,
    pub backend_url: Option<String>,
    /// Of the proxy's `wasm` logger, as the instance was started.
    pub log_level: Level,
    /// What requests are answered from, while they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
    pub plugins: Vec<PluginStatus>,
    pub proxies: Vec<ProxyStatus>,
    pub counters: Counters,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginStatus {
    pub name: String,
    pub role: Role,
    /// None: the one carried in the binary.
    pub path: Option<PathBuf>,
    pub plugin_digest: String,
    pub source: PluginSource,
    pub config: Option<PathBuf>,
}

impl PluginStatus {
    /// Its name, and for a service that it is one.
    pub fn title(&self) -> String {
        match self.role {
            Role::Filter => self.name.clone(),
            Role::Service => format!("{} (service)", self.name),
            Role::Singleton => format!("{} (singleton service)", self.name),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests that the listeners took.
    pub requests: u64,
    pub captured: u64,
    pub exported: u64,
    pub queued: u64,
    /// By reason.
    pub dropped: BTreeMap<String, u64>,
    pub truncated: u64,
    pub skipped: u64,
    /// Requests that the backend answered from recordings.
    #[serde(default)]
    pub injected: u64,
    /// Lookups that failed; their requests went on.
    #[serde(default)]
    pub inject_failures: u64,
    /// Distinct exchanges that the local backend took.
    pub stored: u64,
    /// Of these, how many its bounds pushed out again.
    pub evicted: u64,
}

impl Counters {
    /// From Envoy's statistics; the store's numbers are added by the instance.
    pub fn from_stats(stats: &Stats) -> Self {
        let of = |name: &str| stats.get(&format!("wasmcustom.{name}")).copied().unwrap_or(0);
        let dropped_prefix = format!("wasmcustom.{}", spctl_plugin::metrics::DROPPED_PREFIX);
        Self {
            requests: stats
                .iter()
                .filter(|(name, _)| name.starts_with("http.") && name.ends_with(".downstream_rq_total"))
                .filter(|(name, _)| !name.starts_with("http.admin.") && !name.starts_with("http.async-client."))
                .map(|(_, count)| count)
                .sum(),
            captured: of(spctl_plugin::metrics::CAPTURED),
            exported: of(spctl_plugin::metrics::EXPORTED),
            queued: of(spctl_plugin::metrics::QUEUED),
            dropped: stats
                .iter()
                .filter(|(_, count)| **count > 0)
                .filter_map(|(name, count)| Some((name.strip_prefix(&dropped_prefix)?.to_owned(), *count)))
                .collect(),
            truncated: of(spctl_plugin::metrics::TRUNCATED),
            skipped: of(spctl_plugin::metrics::SKIPPED),
            injected: of(spctl_plugin::metrics::INJECT_HITS),
            inject_failures: of(spctl_plugin::metrics::INJECT_FAILURES),
            stored: 0,
            evicted: 0,
        }
    }

    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Every captured exchange has reached its end: nothing is on its way.
    pub fn is_settled(&self) -> bool {
        self.queued == 0 && self.captured == self.exported + self.dropped_total()
    }
}

/// What the background process tells the one that started it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    pub status: InstanceStatus,
    pub warnings: Vec<String>,
}

/// A plugin to put in place of the one of that name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadRequest {
    pub plugin: String,
    /// None: as it was.
    pub source: Option<PluginSource>,
    pub config: Option<PathBuf>,
    /// Make a new VM even if nothing changed.
    pub force: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    pub plugin: String,
    /// Plugin digests.
    pub old: String,
    pub new: String,
    pub image_digest: Option<String>,
    pub changed: bool,
    pub took_ms: u64,
    pub rolled_back: bool,
    pub proxies: Vec<Proof>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a follower of the log receives.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogEntry {
    Line(Line),
    /// The reader was too slow for so many lines.
    Lost {
        lost: u64,
    },
}
