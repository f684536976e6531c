//! What others make of our uploads: the official protobufs of another
//! language, and a real OpenTelemetry Collector.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spctl_plugin::config::{KEYS, parse};

use crate::common::{self, Spctl, address, sink, testdata, tool};

/// The demo's traffic through both listeners, to a backend that keeps uploads.
fn uploads(config: &str) -> Vec<Vec<u8>> {
    let backend = common::in_background(sink::Backend::start());
    let spctl = Spctl::new();
    let config = spctl.file("c.json", config);
    let url = format!("http://{}/base", backend.address);
    spctl.data(&["run", "--detach", "--backend", &url, "--config", config.to_str().unwrap()]);
    let proxy = address(&spctl.status()["proxy_url"]);
    let paths =
        ["/get?a=1", "/status/503?access_token=s3cret", "/gzip", "/bytes/100", "/stream/2", "/response-headers?x=y"];
    for path in paths {
        let answer = Command::new("curl")
            .args(["-s", "-m", "5", "-H", "x-session-id: s-1", "-H", "x-many: a", "-H", "x-many: b"])
            .args(["-H", "authorization: Bearer s3cret", "-d", "{\"password\": \"s3cret\", \"n\": 1}"])
            .args(["-H", "content-type: application/json", "-o", "/dev/null"])
            .arg(format!("http://{proxy}{path}"))
            .status();
        assert!(answer.unwrap().success(), "{path}");
    }
    spctl.wait_status("all exported", |s| s["counters"]["exported"] == paths.len() as u64);
    spctl.data(&["down"]);
    let bodies = std::mem::take(&mut *backend.bodies.lock().unwrap());
    bodies.into_iter().map(|(_, body)| body.to_vec()).collect()
}

/// One JSON value a span, as Python's official protobufs read it.
fn decoded_by_python(packages: &Path, uploads: &[Vec<u8>]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = uploads
        .iter()
        .enumerate()
        .map(|(at, body)| {
            let path = dir.path().join(format!("{at}.pb"));
            std::fs::write(&path, body).unwrap();
            path
        })
        .collect();
    let ended = Command::new("python3")
        .arg(testdata().join("interop/decode.py"))
        .args(&files)
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_official_protobufs_of_python_read_both_wires_to_the_last_byte() {
    let Some(packages) = tool("SPCTL_TEST_PYTHON", "a directory with Python's opentelemetry-proto") else { return };
    for (config, session_key) in [("{}", "session.id"), (r#"{"wire": "softprobe"}"#, "sp.session.id")] {
        let uploads = uploads(config);
        let all = uploads.concat();
        assert!(!all.windows(6).any(|window| window == b"s3cret"), "a secret left");
        let spans = decoded_by_python(&packages, &uploads);
        assert_eq!(spans.len(), 6, "{config}");
        for span in &spans {
            assert_eq!((span["scope"].as_str(), span["name"].as_str()), (Some("spctl"), Some("POST")));
            assert_eq!((span["trace_id"].as_str().unwrap().len(), span["span_id"].as_str().unwrap().len()), (32, 16));
            assert_eq!(span["kind"], 2, "inbound: a server's span");
            assert!(span["took_ns"].as_i64().unwrap() > 0);
            let attributes = &span["attributes"];
            assert_eq!((&attributes[session_key], &attributes["http.request.method"]), (&"s-1".into(), &"POST".into()));
            let failed = attributes["http.response.status_code"] == 503;
            assert_eq!(span["status"], if failed { 2 } else { 0 });
            let many = &attributes["http.request.header.x-many"];
            let wanted: Value = if config == "{}" { json!(["a", "b"]) } else { "a, b".into() };
            assert_eq!(*many, wanted);
        }
    }
}

/// One exchange with the built-in upstream.
fn exchange(proxy: std::net::SocketAddr, path: &str) {
    let mut stream = std::net::TcpStream::connect(proxy).unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: shop\r\nx-twice: a\r\nx-twice: b\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_local_backend_reads_every_wire() {
    for harness in common::harnesses() {
        for wire in ["otlp", "softprobe", "apiclarity", "apiclarity-v1"] {
            let spctl = Spctl::new();
            let config = spctl.file("c.json", format!(r#"{{"wire": "{wire}"}}"#));
            spctl.data(&["run", "--detach", "--harness", harness, "--config", config.to_str().unwrap()]);
            exchange(address(&spctl.status()["proxy_url"]), "/status/418?a=b");
            spctl.wait_status("it is stored", |s| s["counters"]["stored"] == 1);
            let list = spctl.data(&["captures", "list"]);
            let shown = spctl.data(&["captures", "show", list["exchanges"][0]["id"].as_str().unwrap()]);
            let what = format!("{harness} {wire}: {shown}");
            assert_eq!((&shown["method"], &shown["status"]), (&"POST".into(), &418.into()), "{what}");
            assert_eq!(shown["url"], "http://shop/status/418?a=b", "{what}");
            assert_eq!(shown["request"]["body"]["data"], "hello", "{what}");
            let twice = shown["request"]["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == "x-twice");
            let twice: Vec<&str> = twice.map(|pair| pair[1].as_str().unwrap()).collect();
            assert_eq!(twice.join(", "), "a, b", "{what}");
        }
    }
}

/// Its sampling manager is asked first, and names every host.
#[test]
fn apiclaritys_choice_of_hosts_is_asked_for() {
    for harness in common::harnesses() {
        let spctl = Spctl::new();
        let config = r#"{"wire": "apiclarity", "trace_sampling_enabled": "true", "sampling_cluster": "CLUSTER"}"#;
        for (cluster, stored) in [("spctl_backend", true), ("nobody", false)] {
            let config = spctl.file("c.json", config.replace("CLUSTER", cluster));
            spctl.data(&[
                "run",
                "--detach",
                "--harness",
                harness,
                "--workers",
                "1",
                "--config",
                config.to_str().unwrap(),
            ]);
            let proxy = address(&spctl.status()["proxy_url"]);
            let seen = (0..40).any(|_| {
                exchange(proxy, "/get");
                std::thread::sleep(Duration::from_millis(50));
                spctl.status()["counters"]["stored"] != 0
            });
            assert_eq!(seen, stored, "{harness} {cluster}");
            spctl.data(&["down"]);
        }
    }
}

/// A process that ends with its owner.
struct Collector(std::process::Child);

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_collector_takes_what_the_filter_sends() {
    let Some(binary) = tool("SPCTL_TEST_COLLECTOR", "an OpenTelemetry Collector") else { return };
    let spctl = Spctl::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = spctl.file(
        "collector.yaml",
        format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: 127.0.0.1:{port}}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}\n"
        ),
    );
    let log = spctl.file("collector.log", "");
    let output = std::fs::File::create(&log).unwrap();
    let child = Command::new(binary)
        .arg("--config")
        .arg(format!("file:{}", config.display()))
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .unwrap();
    let _collector = Collector(child);
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    let headers = spctl.file("c.json", r#"{"export": {"headers": {"x-tenant": "a"}}}"#);
    let url = format!("http://127.0.0.1:{port}");
    spctl.data(&["run", "--detach", "--backend", &url, "--config", headers.to_str().unwrap()]);
    let proxy = address(&spctl.status()["proxy_url"]);
    for path in ["/get?a=1", "/status/404", "/gzip"] {
        let mut stream = std::net::TcpStream::connect(proxy).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let counters = spctl.wait_status("all exported", |s| s["counters"]["exported"] == 3)["counters"].clone();
    assert_eq!(common::dropped(&counters), 0, "{counters}");
    let shown = std::fs::read_to_string(&log).unwrap();
    assert_eq!(shown.matches("Span #").count(), 3, "{shown}");
    for wanted in ["http.request.method: Str(GET)", "url.path: Str(/get)", "http.response.status_code: Int(404)"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
}

/// What may stand at any key, most of it wrong at most of them. Names in lower
/// case: the schema has them so, the filter takes either.
fn candidates() -> Vec<Value> {
    let texts = ["", "x", "true", "otlp", "both", "bearer", "http://a:1/b", "ftp://a", "a(", "inbound", "info"];
    let mut all: Vec<Value> = texts.iter().map(|text| (*text).into()).collect();
    all.extend([json!(true), json!(0), json!(1), json!(-1), json!(1.5), json!(1000), json!(1_u64 << 60)]);
    all.extend([json!([]), json!(["x"]), json!(["a("]), json!(["protocol"]), json!([1]), json!([{}])]);
    all.extend([json!({}), json!({"x-a": "b"}), json!({"add": ["x"]}), json!({"add": "x"}), json!({"no_such_key": 1})]);
    all
}

/// A document with one value at the place of a key.
fn document(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |value, part| match part.strip_suffix("[]") {
        Some(name) => json!({name: [value]}),
        None => json!({part: value}),
    })
}

#[test]
fn an_independent_validator_judges_by_the_schema_as_the_filter_does() {
    let Some(packages) = tool("SPCTL_TEST_PYTHON", "a directory with Python's jsonschema") else { return };
    let spctl = Spctl::new();
    let schema = spctl.file("schema.json", spctl.run(&["config", "schema"]).stdout);
    let documents: Vec<Value> =
        KEYS.iter().flat_map(|key| candidates().into_iter().map(|value| document(key.path, value))).collect();
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    let ended = Command::new("python3")
        .arg(testdata().join("interop/validate.py"))
        .args([schema, spctl.file("documents", lines)])
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let verdicts = String::from_utf8(ended.stdout).unwrap();
    let mut agreed = [0, 0];
    let mut differing = Vec::new();
    for (document, verdict) in documents.iter().zip(verdicts.lines()) {
        let parsed = parse(document.to_string().as_bytes());
        let taken = parsed.as_ref().is_ok_and(|parsed| parsed.warnings.is_empty());
        if taken == (verdict == "true") {
            agreed[usize::from(taken)] += 1;
        } else {
            differing.push(format!("{document}: schema {verdict}, filter {:?}", parsed.map(|parsed| parsed.warnings)));
        }
    }
    assert_eq!(verdicts.lines().count(), documents.len());
    eprintln!("{} refused and {} taken by both", agreed[0], agreed[1]);
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}
