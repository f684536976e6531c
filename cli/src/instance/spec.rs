//! What an instance is started from: every input resolved, nothing read yet.
//! It crosses to the background process as a private file.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::CAPTURE;
use crate::bootstrap::Bootstrap;
use crate::error::{Error, Result};
use crate::harness::{FailurePolicy, Kind, Limits, Role};
use crate::logs::Level;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    /// The service name of captured exchanges, unless the configuration says one.
    pub service: String,
    pub harness: Kind,
    pub envoy_path: Option<PathBuf>,
    /// The image of the Docker harness.
    pub image: String,
    /// None: a well-known port if it is free, else any.
    pub listen: Option<SocketAddr>,
    pub upstream: Upstream,
    /// What the outbound listener leads to; none: no outbound listener.
    pub outbound: Option<Upstream>,
    /// More clusters, for the callouts of plugins.
    pub clusters: Vec<(String, Upstream)>,
    pub plugins: Vec<PluginSpec>,
    /// The user's own bootstrap, its Wasm plugins taken out, instead of
    /// listeners and clusters of ours.
    #[serde(default)]
    pub bootstrap: Option<Bootstrap>,
    pub backend: BackendSpec,
    pub workers: usize,
    pub log_level: Level,
    pub limits: Limits,
}

/// What stands behind a listener or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// spctl's own httpbin-compatible service.
    BuiltIn,
    /// The demo's shop (inbound) or inventory (outbound).
    Demo,
    Url(Target),
}

/// Scheme, host and port of a URL; the path is the client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginSpec {
    pub name: String,
    #[serde(default)]
    pub role: Role,
    pub source: PluginSource,
    pub config: Option<PathBuf>,
    pub root_id: String,
    pub failure_policy: FailurePolicy,
    /// What a bootstrap says of it besides.
    #[serde(default)]
    pub given: Option<Given>,
}

/// A plugin's settings as a user's bootstrap has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// The name that the plugin sees.
    pub name: String,
    pub vm_id: String,
    pub configuration: Vec<u8>,
    pub vm_configuration: Vec<u8>,
    pub allow_on_headers_stop_iteration: bool,
    pub environment: Vec<(String, String)>,
    #[serde(default)]
    pub capabilities: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginSource {
    /// The capture filter carried in the binary.
    Capture,
    File(PathBuf),
    /// A source directory and the module built from it.
    Directory {
        source: PathBuf,
        module: PathBuf,
    },
    /// An image as it was named, and the module that it held when it was pulled.
    Image {
        reference: String,
        image_digest: String,
        module: PathBuf,
    },
}

impl PluginSource {
    /// Of an image: its digest.
    pub fn image_digest(&self) -> Option<&String> {
        match self {
            Self::Image { image_digest, .. } => Some(image_digest),
            Self::Capture | Self::File(_) | Self::Directory { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendSpec {
    Local {
        listen: SocketAddr,
    },
    /// Softprobe or any OTLP collector; the key stays in its file.
    Remote {
        target: Target,
        key_file: Option<PathBuf>,
    },
}

impl Target {
    /// `http[s]://host[:port][/path]`.
    pub fn parse(url: &str) -> Result<Self> {
        let bad = |why: &str| Error::Usage(format!("`{url}` is not a usable URL: {why}"));
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(bad("it must begin with http:// or https://")),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(bad("credentials do not belong into a URL; use --key-file"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| bad("the port is not a number below 65536"))?)
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == 0 {
            return Err(bad("it names no host or no port"));
        }
        Ok(Self { tls, host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() })
    }

    /// The URL again, without credentials by construction.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}{}", self.port, self.path)
    }
}

impl BackendSpec {
    /// spctl's own, on a free loopback port unless told where.
    pub fn local(listen: Option<SocketAddr>) -> Self {
        Self::Local { listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))) }
    }
}

/// Envoy's own default: one worker a core.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

impl PluginSpec {
    /// The capture filter; it fails open, because live traffic comes first.
    pub fn capture(name: Option<String>, policy: Option<FailurePolicy>) -> Self {
        Self {
            name: name.unwrap_or_else(|| CAPTURE.to_owned()),
            role: Role::Filter,
            source: PluginSource::Capture,
            config: None,
            root_id: String::new(),
            failure_policy: policy.unwrap_or(FailurePolicy::FailOpen),
            given: None,
        }
    }

    /// The file the module is read from; none for the one in the binary.
    pub fn module_path(&self) -> Option<&PathBuf> {
        match &self.source {
            PluginSource::Capture => None,
            PluginSource::File(path)
            | PluginSource::Directory { module: path, .. }
            | PluginSource::Image { module: path, .. } => Some(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scheme_host_port_and_base_path() {
        let target = Target::parse("https://o.softprobe.ai/base/").unwrap();
        assert_eq!(
            (target.tls, target.host.as_str(), target.port, target.path.as_str()),
            (true, "o.softprobe.ai", 443, "/base")
        );
        assert_eq!(Target::parse("http://[::1]:8080").unwrap().url(), "http://[::1]:8080");
    }

    #[test]
    fn refuses_what_it_could_not_honour() {
        for url in ["example.com", "ftp://x", "http://", "http://h:99999", "http://user:key@h"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
