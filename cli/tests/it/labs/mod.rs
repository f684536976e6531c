//! Filters as courses teach them, each with its own Envoy bootstrap
//! (`testdata/bootstraps`), on every harness: the same requests get the same
//! answers, leave the same metrics and the same lines.

mod buffer;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use spctl::adapters::http::send;

use crate::common::{Spctl, address, ask, harnesses, runtime, testdata};

const PATIENCE: Duration = Duration::from_secs(10);
/// Envoy merges histograms when it flushes, every 5 s.
const FLUSH: Duration = Duration::from_secs(20);

/// A lab running on a harness.
struct Lab {
    spctl: Spctl,
    proxy: SocketAddr,
    admin: SocketAddr,
}

/// What a client got, without what no two runs share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Lab {
    /// Runs `testdata/bootstraps/{name}.yaml` with its guest built and some of
    /// its text changed: where its clusters and ports are here.
    fn start(harness: &str, name: &str, changes: &[(&str, &str)]) -> Self {
        let wasm = spctl::builder::build(&testdata().join("guests").join(name), &|_| ()).unwrap().path;
        let map = format!("/etc/envoy/wasm={}", wasm.parent().unwrap().display());
        let mut text = std::fs::read_to_string(testdata().join(format!("bootstraps/{name}.yaml"))).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{name}.yaml has no {from}");
            text = text.replace(from, to);
        }
        let spctl = Spctl::new();
        let file = spctl.file("envoy.yaml", text);
        let run = ["run", "--detach", "--harness", harness, "--workers", "1", "--map", &map];
        let data = spctl.data(&[&run[..], &["-c", file.to_str().unwrap()]].concat());
        let instance = &data["instances"][0];
        Self { proxy: address(&instance["proxy_url"]), admin: address(&instance["admin_url"]), spctl }
    }

    #[track_caller]
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = Request::get(path).header("user-agent", "lab");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "lab.test");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = runtime().block_on(send(self.proxy, request, PATIENCE)).unwrap();
        let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
        let shown = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            let varies = name == "x-envoy-upstream-service-time";
            (name.to_string(), if varies { "<time>".to_owned() } else { value.to_str().unwrap().to_owned() })
        };
        Got {
            status: answer.status.as_u16(),
            headers: headers.map(shown).collect(),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        }
    }

    /// Counters, and counts of histograms, by their Prometheus names.
    fn metrics(&self, filter: &str) -> BTreeMap<String, u64> {
        let text = ask(self.admin, "GET", &format!("/stats/prometheus?filter={filter}")).body;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.ends_with(|c: char| c.is_ascii_digit()));
        let values = lines.filter_map(|line| line.split_once(' ')).filter(|(name, _)| !name.contains("_sum{"));
        // Which bucket a duration falls into is the machine's business.
        let bounded = |name: &str| name.contains("_bucket{") && !name.contains("+Inf");
        values
            .filter(|(name, _)| !bounded(name))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// Waits until the metrics are so.
    #[track_caller]
    fn wait_metrics(&self, filter: &str, expected: &[(&str, u64)]) {
        let expected: BTreeMap<_, _> = expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let deadline = Instant::now() + FLUSH;
        while self.metrics(filter) != expected {
            assert!(Instant::now() < deadline, "{:#?}", self.metrics(filter));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the plugin has said, once it has said `last`.
    fn lines(&self, last: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.spctl.run(&["logs", "--output", "json"]).stdout;
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let messages: Vec<_> =
                lines.filter_map(|line| Some(line["data"]["message"].as_str()?.to_owned())).collect();
            if messages.iter().any(|message| message.contains(last)) || Instant::now() > deadline {
                return messages;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The value of a header that reached the upstream, which echoes them.
fn arrived(got: &Got, name: &str) -> Value {
    let echoed: Value = serde_json::from_str(&got.body).unwrap_or_else(|e| panic!("{e}: {got:?}"));
    echoed["headers"][name].clone()
}

/// Where a cluster of the file leads to here.
fn leads(name: &str, port: u16, to: SocketAddr) -> (String, String) {
    let place = |host: &str, port: u16| format!("socket_address: {{address: {host}, port_value: {port}}}");
    (place(name, port), place(&to.ip().to_string(), to.port()))
}

/// Runs a lab on every harness with an upstream, and demands equal results.
fn everywhere<T: PartialEq + std::fmt::Debug>(name: &str, cluster: (&str, u16), steps: impl Fn(&Lab) -> T) {
    let servers = runtime_of_servers();
    let upstream = servers.block_on(upstream::start());
    let mut seen: Vec<(&str, T)> = Vec::new();
    for harness in harnesses() {
        let (from, to) = leads(cluster.0, cluster.1, upstream);
        let (metadata_from, metadata_to) = leads("metadata", 8080, upstream);
        let mut changes =
            vec![("port_value: 9901", "port_value: 0"), ("port_value: 10000", "port_value: 0"), (&*from, &*to)];
        if name == "callout_meta" {
            changes.push((&metadata_from, &metadata_to));
        }
        if name == "hello_body" {
            changes[1].0 = "port_value: 8000";
        }
        let lab = Lab::start(harness, name, &changes);
        seen.push((harness, steps(&lab)));
    }
    let (first, result) = &seen[0];
    for (harness, other) in &seen[1..] {
        assert_eq!(other, result, "{name}: {harness} against {first}");
    }
}

/// Servers live while a test asks from its own thread.
fn runtime_of_servers() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

const HTTPBIN: (&str, u16) = ("httpbin", 80);

/// Lab 1.
#[test]
fn a_header_on_both_sides() {
    everywhere("training_header", HTTPBIN, |lab| {
        let got = lab.get("/headers", &[("x-training", "from the client")]);
        assert_eq!((got.status, got.headers["x-training"].as_str()), (200, "envoy-wasm"));
        assert_eq!(arrived(&got, "x-training"), "envoy-wasm");
        got
    });
}

/// The same in Go, for responses.
#[test]
fn a_header_by_a_filter_in_go() {
    if spctl::toolchain::on_path("go").is_none() {
        return eprintln!("SKIPPED: the guest needs Go, which is not installed");
    }
    everywhere("go_training", HTTPBIN, |lab| {
        let got = lab.get("/headers", &[("x-training", "from the client")]);
        assert_eq!((got.status, got.headers["x-training"].as_str()), (200, "envoy-wasm"));
        assert_eq!(arrived(&got, "x-training"), "from the client");
        got
    });
}

/// Lab 2a.
#[test]
fn secrets_are_redacted_wherever_the_body_is_cut() {
    everywhere("redact_body", HTTPBIN, |lab| {
        let paths = ["/chunks", "/sized", "/coded", "/trailers", "/none", "/large"];
        let got = paths.map(|path| lab.get(path, &[]));
        let bodies = got.each_ref().map(|got| got.body.as_str());
        assert_eq!(bodies[..2], ["a SECRET=[REDACTED] b SECRET=[REDACTED]", "{\"k\": \"SECRET=[REDACTED]\"}"]);
        assert!(!got[1].headers.contains_key("content-length"), "{:?}", got[1]);
        // Bytes in another coding are nobody's to search.
        assert_eq!((bodies[2], got[2].headers["content-length"].as_str()), ("SECRET=coded", "12"));
        assert_eq!(bodies[3], "a SECRET=[REDACTED]");
        assert_eq!((bodies[4], got[4].status), ("", 204));
        assert_eq!(bodies[5].len(), 2 * 1024 * 1024 + "SECRET=[REDACTED]".len());
        got
    });
}

/// Lab 2b.
#[test]
fn hosts_are_blocked_whatever_their_port_and_case() {
    everywhere("block_hosts", HTTPBIN, |lab| {
        let hosts = [
            "a.example.com",
            "A.Example.com:8080",
            "example.com",
            "badexample.com",
            "internal.test",
            "example.com.org",
        ];
        let got = hosts.map(|host| lab.get("/", &[("host", host)]));
        assert_eq!(got.each_ref().map(|got| got.status), [451, 451, 200, 200, 451, 200]);
        assert_eq!((got[0].body.as_str(), got[0].headers["content-type"].as_str()), ("blocked by wasm", "text/plain"));
        got
    });
}

/// Lab 3.
#[test]
fn a_request_waits_for_a_callout() {
    everywhere("callout_meta", HTTPBIN, |lab| {
        let got = lab.get("/headers", &[("x-meta", "from the client")]);
        assert_eq!(arrived(&got, "x-meta"), "1");
        got
    });
}

#[test]
fn a_callout_that_cannot_be_answered_costs_no_request() {
    let servers = runtime_of_servers();
    let upstream = servers.block_on(upstream::start());
    let down = servers.block_on(upstream::nobody());
    let (from, to) = leads("httpbin", 80, upstream);
    let (metadata_from, metadata_to) = leads("metadata", 8080, down);
    let ports = [("port_value: 9901", "port_value: 0"), ("port_value: 10000", "port_value: 0")];
    let refused = [ports[0], ports[1], (&*from, &*to), (&*metadata_from, &*metadata_to)];
    let renamed = [
        ports[0],
        ports[1],
        (&*from, &*to),
        ("  - name: metadata", "  - name: another"),
        ("cluster_name: metadata", "cluster_name: another"),
    ];
    for harness in harnesses() {
        let got = Lab::start(harness, "callout_meta", &refused).get("/headers", &[]);
        // Envoy answers a failed connection with 503 and a reason: a body.
        assert_eq!((got.status, arrived(&got, "x-meta")), (200, "1".into()), "{harness}");
        let got = Lab::start(harness, "callout_meta", &renamed).get("/headers", &[]);
        assert_eq!((got.status, arrived(&got, "x-meta")), (200, Value::Null), "{harness}");
    }
}

/// Lab 4.
#[test]
fn requests_are_logged_and_counted_and_a_panic_fails_open() {
    everywhere("observe", HTTPBIN, |lab| {
        let mut got = vec![lab.get("/a", &[]), lab.get("/status/503", &[])];
        lab.wait_metrics("observe", &[("observe_requests_total{}", 2), ("observe_errors_total{}", 1)]);
        got.push(lab.get("/b", &[("x-panic", "1")]));
        got.push(lab.get("/c", &[]));
        assert_eq!(got.iter().map(|got| got.status).collect::<Vec<_>>(), [200, 503, 503, 200]);
        lab.wait_metrics("observe", &[("observe_requests_total{}", 2), ("observe_errors_total{}", 1)]);
        let lines = lab.lines("asked to by");
        let said = ["GET /a -> 200", "GET /status/503 -> 503", "asked to by `x-panic`"];
        for wanted in said {
            assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}: {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("/c")), "{lines:#?}");
        got
    });
}

/// Lab 6.
#[test]
fn durations_and_classes_are_counted_by_direction() {
    everywhere("http_timing", HTTPBIN, |lab| {
        let long = format!("/long?{}", "x".repeat(300));
        let paths = ["/", "/status/204", "/status/302", "/status/404", "/status/500", "/status/503", &long];
        let got = paths.map(|path| lab.get(path, &[]).status);
        assert_eq!(got, [200, 204, 302, 404, 500, 503, 200]);
        let of = |name: &str| format!("wasm_http_{name}");
        let names = [
            ("inbound_responses_total_2xx{}", 3),
            ("inbound_responses_total_3xx{}", 1),
            ("inbound_responses_total_4xx{}", 1),
            ("inbound_responses_total_5xx{}", 2),
            ("outbound_responses_total_2xx{}", 0),
            ("outbound_responses_total_3xx{}", 0),
            ("outbound_responses_total_4xx{}", 0),
            ("outbound_responses_total_5xx{}", 0),
            ("inbound_duration_ms_bucket{le=\"+Inf\"}", 7),
            ("inbound_duration_ms_count{}", 7),
            ("outbound_duration_ms_bucket{le=\"+Inf\"}", 0),
            ("outbound_duration_ms_count{}", 0),
        ];
        let names = names.map(|(name, value)| (of(name), value));
        lab.wait_metrics("wasm_http", &names.each_ref().map(|(name, value)| (name.as_str(), *value)));
        let lines = lab.lines("/long");
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told: Vec<_> = lines
            .map(|mut line| {
                assert!(line["dur_ms"].as_u64().is_some_and(|ms| ms < 5000), "{line}");
                line["dur_ms"] = 0.into();
                line.to_string()
            })
            .collect();
        assert_eq!(told.len(), 7, "{told:#?}");
        assert!(told[1].contains(r#""dir":"inbound""#) && told[1].contains("204"), "{told:#?}");
        told
    });
}

/// Envoy's own sandbox.
#[test]
fn a_greeting_over_the_beginning_of_a_body() {
    everywhere("hello_body", ("web_service", 9000), |lab| {
        let got = ["/sized", "/chunks", "/none"].map(|path| lab.get(path, &[]));
        assert_eq!(got[0].body, "Hello, worldT=topsecret\"}Hello, world");
        assert_eq!(got[0].headers["x-wasm-custom"], "FOO");
        assert_eq!(got[0].headers["content-type"], "text/plain; charset=utf-8");
        got
    });
}
