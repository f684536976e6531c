//! What a plugin is configured with, and the identity of the proxy it runs in.
//!
//! Plain values with Envoy's names and defaults; nothing here reads files.

use std::time::Duration;

use bytes::Bytes;

/// What happens to traffic when a plugin's VM has failed (`failure_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FailurePolicy {
    /// Answer 503 until the plugin is replaced. What Envoy does when unset.
    #[default]
    FailClosed,
    /// Leave the plugin out of later requests.
    FailOpen,
    /// Make a new VM once the back-off has passed; 503 until then.
    FailReload,
    /// The deprecated `fail_open: true`: like `FailOpen`, and the request
    /// during which the VM failed goes on too.
    LegacyFailOpen,
}

/// Back-off between two attempts of `FailReload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadBackoff {
    /// The wait is drawn from one to one and a half times this.
    pub base_interval: Duration,
}

impl Default for ReloadBackoff {
    fn default() -> Self {
        Self { base_interval: Duration::from_secs(1) }
    }
}

/// One plugin as a filter: Envoy's `PluginConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginConfig {
    pub name: String,
    pub root_id: String,
    pub vm_id: String,
    /// What the guest reads as buffer 7.
    pub configuration: Bytes,
    /// What the guest reads as buffer 6.
    pub vm_configuration: Bytes,
    /// Seen by WASI guests only.
    pub environment: Vec<(String, String)>,
    pub failure_policy: FailurePolicy,
    pub reload_backoff: ReloadBackoff,
    /// Let `StopIteration` from a headers callback mean what it says, instead
    /// of stopping all iteration.
    pub allow_on_headers_stop_iteration: bool,
    /// Names of the only ABI functions the plugin may use; empty: all.
    pub allowed_capabilities: Vec<String>,
}

/// Caps on what a guest may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one VM, in bytes.
    pub memory: usize,
    /// Longest time one call into a guest may take. Envoy has no such cap: an
    /// endless loop there blocks the worker thread for good.
    pub deadline: Duration,
}

impl Limits {
    /// Proxy-Wasm C++ host, `limits.h`: `PROXY_WASM_HOST_MAX_WASM_MEMORY_SIZE_BYTES`.
    pub const ENVOY_MEMORY: usize = 1 << 30;
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: Self::ENVOY_MEMORY, deadline: Duration::from_secs(5) }
    }
}

/// Which way a listener's traffic flows, as `xds.listener_direction` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Direction {
    #[default]
    Unspecified = 0,
    Inbound = 1,
    Outbound = 2,
}

/// A value of a protobuf `Struct`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    List(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

/// Envoy's `Metadata`: one struct per namespace (`filter_metadata`).
pub type Metadata = Vec<(String, Vec<(String, Value)>)>;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
}

/// The proxy's identity: what plugins read under `xds.node`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub metadata: Vec<(String, Value)>,
    pub locality: Locality,
}
