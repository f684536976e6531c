//! The configuration that both plugins take.

use std::time::Duration;

use serde_json::Value;

/// Where the control plane is and how long to be patient. Times in ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The authority of requests to the control plane.
    pub authority: String,
    /// The cluster that leads to it.
    pub cluster: String,
    /// Between two questions for the list.
    pub poll_ms: u64,
    /// Between two looks at who may go on.
    pub tick_ms: u64,
    /// For one answer of the control plane.
    pub timeout_ms: u64,
    /// A list older than this holds nobody.
    pub max_age_ms: u64,
    /// A request that has waited so long is answered 503.
    pub max_wait_ms: u64,
    /// Between two pokes for one host.
    pub poke_ms: u64,
    /// Requests that may wait for one host, and for all, on each worker thread.
    pub max_per_host: usize,
    pub max_total: usize,
    /// What a refused client is told to wait, in seconds.
    pub retry_after_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            authority: String::new(),
            cluster: String::new(),
            poll_ms: 2000,
            tick_ms: 1000,
            timeout_ms: 5000,
            max_age_ms: 15_000,
            max_wait_ms: 30_000,
            poke_ms: 1000,
            max_per_host: 100,
            max_total: 1000,
            retry_after_s: 5,
        }
    }
}

impl Settings {
    /// Reads the configuration; an error says what is wrong with it.
    pub fn parse(configuration: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(configuration).map_err(|e| e.to_string())?;
        let text = |key: &str| match &value[key] {
            Value::String(text) if !text.is_empty() => Ok(text.clone()),
            _ => Err(format!("`{key}` is missing")),
        };
        let number = |key: &str, default: u64| match &value[key] {
            Value::Null => Ok(default),
            given => given.as_u64().filter(|n| *n > 0).ok_or_else(|| format!("`{key}` is no number above 0")),
        };
        let count =
            |key: &str, default: usize| number(key, default as u64).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let default = Self::default();
        Ok(Self {
            authority: text("control-plane-url")?,
            cluster: text("control-plane-cluster")?,
            poll_ms: number("poll-ms", default.poll_ms)?,
            tick_ms: number("tick-ms", default.tick_ms)?,
            timeout_ms: number("timeout-ms", default.timeout_ms)?,
            max_age_ms: number("max-age-ms", default.max_age_ms)?,
            max_wait_ms: number("max-wait-ms", default.max_wait_ms)?,
            poke_ms: number("poke-ms", default.poke_ms)?,
            max_per_host: count("max-per-host", default.max_per_host)?,
            max_total: count("max-total", default.max_total)?,
            retry_after_s: number("retry-after-s", default.retry_after_s)?,
        })
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_control_plane_must_be_named() {
        let settings = Settings::parse(br#"{"control-plane-url": "cp", "control-plane-cluster": "c"}"#).unwrap();
        assert_eq!(settings, Settings { authority: "cp".into(), cluster: "c".into(), ..Settings::default() });
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"control-plane-url": "cp"}"#,
            r#"{"control-plane-url": "cp", "control-plane-cluster": "c", "poll-ms": 0}"#,
            r#"{"control-plane-url": "cp", "control-plane-cluster": "c", "max-total": "many"}"#,
        ] {
            assert!(Settings::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
