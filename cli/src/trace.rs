//! What plugins and host say to each other, as users read it: the JSON
//! contract of `run --trace-hostcalls`. Secrets are gone from it already.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

/// Who is told what. Called on a thread of its own, which it may hold up.
#[derive(Clone)]
pub struct Trace {
    /// Beginnings of the names of callbacks and host calls to tell of.
    pub only: Vec<String>,
    pub to: Arc<dyn Fn(Told<'_>) + Send + Sync>,
}

pub enum Told<'a> {
    Frame(&'a Frame),
    /// So many callbacks, with what happened in them, came faster than they
    /// could be told.
    Lost(u64),
}

/// A callback and the host calls that the plugin made in it.
pub struct Frame {
    pub callback: Callback,
    pub calls: Vec<Call>,
}

/// The host calls a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Callback {
    /// RFC 3339, UTC.
    pub time: String,
    /// Ties a callback and its host calls together.
    pub frame: u64,
    pub thread: String,
    pub plugin: String,
    pub context: u32,
    /// Counted from 1; the same for all plugins that one request passes.
    pub stream: Option<u64>,
    pub name: &'static str,
    pub arguments: Map<String, Value>,
    pub returned: String,
    pub took_us: f64,
    /// Host calls that were too many to tell.
    pub left_out: u64,
}

/// A plugin calls the host.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    pub frame: u64,
    pub plugin: String,
    pub context: u32,
    pub stream: Option<u64>,
    pub callback: &'static str,
    pub name: &'static str,
    pub arguments: Map<String, Value>,
    pub status: String,
    pub returned: Map<String, Value>,
    pub took_us: f64,
}

/// A line of the JSON contract.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    Callback(&'a Callback),
    Call(&'a Call),
    Lost { callbacks: u64 },
}

impl Trace {
    /// Whether a function of this name is wanted, `proxy_` left out or not.
    pub fn wants(&self, name: &str) -> bool {
        let short = name.strip_prefix("proxy_").unwrap_or(name);
        self.only.iter().any(|prefix| name.starts_with(prefix.as_str()) || short.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_choose_with_and_without_proxy() {
        let trace =
            |only: &[&str]| Trace { only: only.iter().map(|p| (*p).to_owned()).collect(), to: Arc::new(|_| ()) };
        assert!(trace(&[""]).wants("proxy_log"));
        assert!(trace(&["get_header", "fd_"]).wants("proxy_get_header_map_value"));
        assert!(trace(&["proxy_on_request"]).wants("proxy_on_request_body"));
        assert!(!trace(&["on_response", "fd_"]).wants("proxy_on_request_body"));
    }
}
