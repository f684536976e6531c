//! What Envoy's admin port tells: statistics, served filters, addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::adapters::http;
use crate::error::{Error, Result};
use crate::harness::Stats;
use crate::logs::Level;

/// The admin port answers at once or not at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Name and module path of an extension as dumped.
fn named_module(extension: &Value) -> Option<(String, String)> {
    let path = extension.pointer("/typed_config/config/vm_config/code/local/filename")?;
    Some((extension.get("name")?.as_str()?.to_owned(), path.as_str()?.to_owned()))
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Admin(pub(super) SocketAddr);

/// How the ECDS subscription of one filter stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Discovery {
    pub(super) reloads: u64,
    /// Refused or failed updates of any kind.
    pub(super) failures: u64,
}

impl Admin {
    pub(super) async fn ready(self) -> bool {
        self.ask("GET", "/ready").await.is_ok_and(|body| body.starts_with("LIVE"))
    }

    /// Of `<commit>/1.40.0/Clean/RELEASE/BoringSSL`.
    pub(super) async fn version(self) -> Result<String> {
        let info = self.json("/server_info").await?;
        let version = info.get("version").and_then(Value::as_str).unwrap_or_default();
        Ok(version.split('/').nth(1).unwrap_or("unknown").to_owned())
    }

    /// Counters and gauges whose name matches.
    pub(super) async fn stats(self, filter: &str) -> Result<Stats> {
        let path = format!("/stats?format=json&filter={filter}");
        let json = self.json(&path).await?;
        let list = json.get("stats").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(list
            .iter()
            .filter_map(|stat| Some((stat.get("name")?.as_str()?.to_owned(), stat.get("value")?.as_u64()?)))
            .collect())
    }

    pub(super) async fn discovery(self, filter: &str) -> Result<Discovery> {
        let prefix = format!("extension_config_discovery.http_filter.{filter}.");
        let stats = self.stats("extension_config_discovery").await?;
        // One subscription a listener: the names differ before `.http_filter`.
        let sum = |names: &[&str]| {
            stats
                .iter()
                .filter(|(name, _)| names.iter().any(|n| name.ends_with(&format!("{prefix}{n}"))))
                .map(|(_, value)| value)
                .sum()
        };
        Ok(Discovery { reloads: sum(&["config_reload"]), failures: sum(&["config_fail"]) })
    }

    /// Filter name → module path, from the ECDS config dump.
    pub(super) async fn modules(self) -> Result<BTreeMap<String, String>> {
        let json = self.json("/config_dump?resource=ecds_filters").await?;
        let configs = json.get("configs").and_then(Value::as_array).into_iter().flatten();
        Ok(configs.filter_map(|config| named_module(config.get("ecds_filter")?)).collect())
    }

    /// Service name → module path, from the bootstrap that it runs.
    pub(super) async fn services(self) -> Result<BTreeMap<String, String>> {
        let json = self.json("/config_dump?mask=bootstrap.bootstrap_extensions").await?;
        let extensions = json.pointer("/configs/0/bootstrap/bootstrap_extensions").and_then(Value::as_array);
        Ok(extensions.into_iter().flatten().filter_map(named_module).collect())
    }

    /// Listener name → the address it got.
    pub(super) async fn listeners(self) -> Result<BTreeMap<String, SocketAddr>> {
        let json = self.json("/listeners?format=json").await?;
        let list = json.get("listener_statuses").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(list
            .iter()
            .filter_map(|listener| {
                let socket = listener.pointer("/local_address/socket_address")?;
                let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
                let ip = socket.get("address")?.as_str()?.parse().ok()?;
                Some((listener.get("name")?.as_str()?.to_owned(), SocketAddr::new(ip, port)))
            })
            .collect())
    }

    /// Sets the `wasm` logger's level.
    pub(super) async fn set_log_level(self, level: Level) -> Result<()> {
        self.ask("POST", &format!("/logging?wasm={}", level.name())).await.map(|_| ())
    }

    pub(super) async fn ask(self, method: &str, path: &str) -> Result<String> {
        let failed = |reason: String| Error::Harness { harness: "envoy", reason, log: Vec::new() };
        let answer = http::ask(self.0, method, path, TIMEOUT)
            .await
            .map_err(|e| failed(format!("its admin port does not answer: {e}")))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status.is_success() {
            Ok(body)
        } else {
            Err(failed(format!("its admin port answered {} to {path}", answer.status)))
        }
    }

    async fn json(self, path: &str) -> Result<Value> {
        let body = self.ask("GET", path).await?;
        serde_json::from_str(&body).map_err(|e| Error::Protocol(format!("Envoy's {path}: {e}")))
    }
}
