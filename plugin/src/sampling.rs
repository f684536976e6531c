//! APIClarity's choice of what is traced: its sampling manager is asked for the
//! hosts every minute; until it has answered once, nothing is traced.

use crate::config::Sampling;
use crate::exchange::Exchange;
use crate::host::{Buffer, Call, Host, Map};
use crate::policy::split_authority;
use crate::wire::full_host;
use serde_json::Value;

const PERIOD_NS: u64 = 60_000_000_000;
const TIMEOUT_MS: u64 = 15_000;
/// Longest list that is read.
const MAX_LIST: usize = 4 << 20;

/// The hosts that are traced, as `host:port` or `*`.
#[derive(Debug, Default)]
pub struct Sampled {
    hosts: Vec<String>,
    due_ns: u64,
    call: Option<u32>,
}

impl Sampled {
    /// Asks when it is time to; milliseconds until it is again.
    pub fn ask(&mut self, host: &impl Host, sampling: &Sampling, now_ns: u64) -> u64 {
        if now_ns >= self.due_ns {
            self.due_ns = now_ns + PERIOD_NS;
            let headers = [
                (":method", "GET"),
                (":path", "/api/hostsToTrace"),
                (":authority", "apiclarity"),
                (":scheme", "http"),
                ("accept", "application/json"),
            ];
            let call = Call { cluster: &sampling.cluster, headers: &headers, body: &[], timeout_ms: TIMEOUT_MS };
            self.call = host.call(&call).ok();
        }
        (self.due_ns - now_ns).div_ceil(1_000_000)
    }

    /// Takes an answer; `false`: it is not ours. One that failed changes nothing.
    pub fn answered(&mut self, host: &impl Host, token: u32, num_headers: usize, body_size: usize) -> bool {
        if self.call != Some(token) {
            return false;
        }
        self.call = None;
        let ok = num_headers > 0 && host.headers(Map::CallHeaders).get(":status") == Some(b"200");
        if ok && body_size <= MAX_LIST {
            let body = host.buffer(Buffer::CallBody, 0, body_size);
            let list: Option<Value> = serde_json::from_slice(&body).ok();
            let hosts = list.as_ref().and_then(|list| list.get("hosts")?.as_array());
            if let Some(hosts) = hosts {
                self.hosts = hosts.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            }
        }
        true
    }

    pub fn contains(&self, exchange: &Exchange) -> bool {
        let peers = &exchange.peers;
        let authority = String::from_utf8_lossy(exchange.request.headers.get(":authority").unwrap_or_default());
        let host = full_host(&authority, peers.namespace.as_deref().unwrap_or_default());
        let port = peers.destination.as_deref().and_then(|address| split_authority(address.as_bytes()).1);
        let wanted = format!("{host}:{}", port.unwrap_or(80));
        self.hosts.iter().any(|traced| traced == "*" || *traced == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    #[test]
    fn asks_every_minute_and_keeps_the_list_when_that_fails() {
        let host = FakeHost::new();
        let sampling = Sampling { cluster: "trace-sampling-manager".to_owned() };
        let mut sampled = Sampled::default();
        assert_eq!(sampled.ask(&host, &sampling, 5), 60_000);
        let sent = host.with(|s| s.calls.remove(0));
        assert_eq!(
            (sent.cluster.as_str(), sent.headers[1].1.as_str()),
            ("trace-sampling-manager", "/api/hostsToTrace")
        );
        host.set_map(Map::CallHeaders, &[(":status", b"200")]);
        host.set_buffer(Buffer::CallBody, br#"{"hosts":["shop:80"]}"#);
        assert!(!sampled.answered(&host, sent.token + 1, 1, 21));
        assert!(sampled.answered(&host, sent.token, 1, 21));
        assert_eq!(sampled.hosts, ["shop:80"]);
        assert_eq!(sampled.ask(&host, &sampling, 5 + PERIOD_NS), 60_000);
        let again = host.with(|s| s.calls.remove(0));
        assert!(sampled.answered(&host, again.token, 0, 0));
        assert_eq!(sampled.hosts, ["shop:80"]);
    }
}
