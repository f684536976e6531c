//! `spctl.yaml`: a project's own defaults. The order is file < environment <
//! flags; the parser has joined the latter two already.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::harness::{FailurePolicy, Kind};
use crate::state::read_small;

pub const FILE: &str = "spctl.yaml";
const FILE_MAX: u64 = 1 << 20;

/// The keys of `spctl.yaml`; each is the flag of the same name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    pub harness: Option<Kind>,
    pub envoy_path: Option<PathBuf>,
    pub image: Option<String>,
    pub listen: Option<std::net::SocketAddr>,
    pub upstream: Option<String>,
    pub outbound: Option<String>,
    pub cluster: Vec<String>,
    pub plugin: Vec<String>,
    pub config: Vec<String>,
    pub backend: Option<String>,
    pub key_file: Option<PathBuf>,
    pub workers: Option<usize>,
    pub fail_policy: Option<FailurePolicy>,
}

impl Settings {
    /// The file of the current directory; without one, nothing.
    pub fn load() -> Result<Self> {
        let path = Path::new(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        Self::parse(path, &read_small(path, FILE_MAX)?)
    }

    /// Only what says where to run.
    pub fn place_alone(self) -> Self {
        Self {
            harness: self.harness,
            envoy_path: self.envoy_path,
            image: self.image,
            workers: self.workers,
            backend: self.backend,
            key_file: self.key_file,
            ..Self::default()
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_yaml::from_str(text).map_err(|e| Error::Settings { path: path.to_owned(), reason: e.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Settings::parse(Path::new(FILE), b"upstreams: http://x").unwrap_err().to_string();
        assert!(error.contains("upstreams"), "{error}");
    }

    #[test]
    fn keys_are_the_flags() {
        let settings =
            Settings::parse(Path::new(FILE), b"harness: envoy\nfail-policy: fail-open\nplugin: [a.wasm]").unwrap();
        assert_eq!(settings.harness, Some(Kind::Envoy));
        assert_eq!(settings.fail_policy, Some(FailurePolicy::FailOpen));
        assert_eq!(Settings::parse(Path::new(FILE), b"# nothing\n").unwrap(), Settings::default());
    }
}
