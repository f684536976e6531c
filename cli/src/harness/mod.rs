//! The seam: a place where filters run. Every harness takes the same topology
//! and answers the same questions; none imports another.

mod embedded;
mod envoy;

pub use embedded::Embedded;
pub use envoy::{
    Binary as EnvoyBinary, CONTAINER_LABEL, DEFAULT_IMAGE, Envoy, find_envoy, missing_import, prepare_image,
};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::bootstrap::Role;
use crate::error::Result;
use crate::logs::Level;
use crate::state::hex;
use crate::trace::Trace;

/// The kinds of harness of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The embedded Proxy-Wasm host: no installation at all.
    Embedded,
    /// A native Envoy binary.
    Envoy,
    /// Envoy in a container, by Docker or Podman.
    Docker,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Envoy => "envoy",
            Self::Docker => "docker",
        }
    }
}

/// What a harness has to bring up.
#[derive(Clone)]
pub struct Topology {
    pub instance: String,
    /// The user's own bootstrap; its listeners and clusters come before ours.
    pub own: Option<Own>,
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
    /// Plugins: filters, which listeners name or the user's bootstrap does, then services.
    pub filters: Vec<Filter>,
    /// Worker threads (Envoy's concurrency).
    pub workers: usize,
    pub log_level: Level,
    pub limits: Limits,
    /// Who is told of host calls; only the embedded harness can.
    pub trace: Option<Trace>,
}

/// A user's bootstrap whose Wasm filters and services were taken out.
#[derive(Clone)]
pub struct Own {
    pub document: serde_json::Value,
    /// Files it names.
    pub files: Vec<PathBuf>,
}

impl Own {
    pub fn cluster_names(&self) -> Vec<String> {
        let clusters = self.document.pointer("/static_resources/clusters").and_then(serde_json::Value::as_array);
        let names = clusters.into_iter().flatten().filter_map(|cluster| cluster.get("name")?.as_str());
        names.map(str::to_owned).collect()
    }
}

/// Guest limits that only the embedded host can hold to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: usize,
    pub deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // Envoy's memory cap; it has no deadline.
        Self { memory_bytes: 1 << 30, deadline_ms: 5000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// An address, the chain its requests pass, and the cluster behind it.
#[derive(Debug, Clone)]
pub struct Listener {
    pub direction: Direction,
    pub address: SocketAddr,
    /// Names of filters, in chain order.
    pub filters: Vec<String>,
    pub cluster: String,
    /// Send the upstream's own host name instead of the client's.
    pub rewrite_host: bool,
    /// Bytes that filters may hold back of a body; none: Envoy's 1 MiB.
    pub buffer_limit: Option<u32>,
}

/// Named endpoints, for routes and for the callouts of plugins.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// It speaks HTTP/2 without asking, as gRPC servers do.
    pub http2: bool,
}

/// A plugin's bytes with their digest.
#[derive(Clone)]
pub struct Module {
    pub bytes: Arc<[u8]>,
    /// The plugin digest, hexadecimal.
    pub digest: String,
}

impl Module {
    pub fn new(bytes: Vec<u8>) -> Self {
        let digest = hex(&Sha256::digest(&bytes));
        Self { bytes: bytes.into(), digest }
    }
}

/// A plugin placed in a chain, or as a service. One plugin may be placed more
/// than once (the capture filter stands in both directions): its filters are
/// replaced together.
#[derive(Clone)]
pub struct Filter {
    /// Unique in the topology.
    pub name: String,
    pub role: Role,
    /// The plugin's name, as users know it.
    pub plugin: String,
    /// The name that the plugin itself sees.
    pub seen_as: String,
    pub module: Module,
    pub configuration: Vec<u8>,
    /// What the plugin's VM is started with.
    pub vm_configuration: Vec<u8>,
    /// Let a headers callback's "stop" mean that alone (Envoy 1.35 and newer).
    pub allow_on_headers_stop_iteration: bool,
    pub root_id: String,
    pub vm_id: String,
    pub failure_policy: FailurePolicy,
    /// What a WASI guest sees of the environment, besides spctl's own entry.
    pub environment: BTreeMap<String, String>,
    /// The only ABI functions that the plugin may use; none named: all.
    pub capabilities: Vec<String>,
    /// Raised to make a new VM of unchanged bytes.
    pub generation: u32,
}

/// What becomes of traffic when a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// Requests get 503.
    FailClosed,
    /// Requests pass without the plugin.
    FailOpen,
    /// A new VM is made after a back-off.
    FailReload,
    /// Envoy's deprecated `fail_open`: like `fail-open`, and the request during
    /// which the plugin failed passes too.
    #[value(skip)]
    LegacyFailOpen,
}

/// Where a harness serves.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub inbound: Option<SocketAddr>,
    pub outbound: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// A proxy and what it really serves, as it says itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProxyStatus {
    pub name: String,
    pub state: String,
    pub plugins: Vec<ServedPlugin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedPlugin {
    pub name: String,
    pub plugin_digest: String,
    /// Only plugins loaded from a registry have one.
    pub image_digest: Option<String>,
}

/// How a proxy proved that it serves a plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    pub name: String,
    pub plugin_digest: String,
    pub image_digest: Option<String>,
    pub proof: String,
}

/// Statistics by Envoy's names; histograms are left out.
pub type Stats = BTreeMap<String, u64>;

/// A running harness.
pub trait Harness: Send + Sync {
    fn kind(&self) -> Kind;

    fn addresses(&self) -> Addresses;

    /// Replaces filters by name, all of one plugin, and proves that the new
    /// ones serve. On an error the old ones serve. A service can be replaced on
    /// the embedded harness alone: Envoy reads its bootstrap once.
    fn reload(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Vec<Proof>>>;

    fn stats(&self) -> BoxFuture<'_, Result<Stats>>;

    fn proxies(&self) -> BoxFuture<'_, Result<Vec<ProxyStatus>>>;

    /// Sets the level of the `wasm` logger.
    fn set_log_level(&self, level: Level) -> BoxFuture<'_, Result<()>>;

    /// Accepts no more requests, lets those in flight end and plugins flush.
    fn drain(&self, deadline: Duration) -> BoxFuture<'_, Result<()>>;

    /// Ends it at once; leaves nothing behind.
    fn stop(&self) -> BoxFuture<'_, ()>;
}
