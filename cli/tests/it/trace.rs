//! `run --trace-hostcalls`: what a filter author sees, what nobody sees, and
//! what it costs the traffic.

#![allow(clippy::zombie_processes, reason = "`Spctl` takes down what a failed test left")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::sink::background_upstream;
use crate::common::{Spctl, load, runtime};

/// Reads a header that holds a secret and one that does not, logs, pauses never.
const READER: &str = r#"(module
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 65536)
  (data (i32.const 16) "authorization")
  (data (i32.const 32) "user-agent")
  (data (i32.const 48) "x-new")
  (data (i32.const 56) "value")
  (data (i32.const 64) "request\00path")
  (data (i32.const 80) "\60\00\00\00\05\00\00\00")
  (data (i32.const 96) "wrote")
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_delete") (param i32))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 0) (i32.const 4)))
    i32.const 1)
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get (i32.const 0) (i32.const 16) (i32.const 13) (i32.const 0) (i32.const 4)))
    (drop (call $get (i32.const 0) (i32.const 32) (i32.const 10) (i32.const 0) (i32.const 4)))
    (drop (call $add (i32.const 0) (i32.const 48) (i32.const 5) (i32.const 56) (i32.const 5)))
    (drop (call $property (i32.const 64) (i32.const 12) (i32.const 0) (i32.const 4)))
    (drop (call $write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 8)))
    i32.const 0))"#;

struct Run {
    child: Child,
    proxy: std::net::SocketAddr,
}

impl Run {
    /// In the foreground, its first document read from stdout.
    fn start(spctl: &Spctl, args: &[&str]) -> (Self, BufReader<std::process::ChildStdout>, Vec<Value>) {
        let mut child = spctl
            .command(&[&["run", "--output", "json"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut before = Vec::new();
        loop {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended");
            let document: Value = serde_json::from_str(&line).unwrap();
            let url = &document["data"]["instances"][0]["proxy_url"];
            if url.is_string() {
                let proxy = crate::common::address(url);
                return (Self { child, proxy }, stdout, before);
            }
            before.push(document);
        }
    }

    /// Ctrl-C; what it still wrote.
    fn end(mut self, mut stdout: impl Read) -> (Vec<Value>, String) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(self.child.wait().unwrap().success(), "{stderr}");
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
    }
}

fn ask(proxy: std::net::SocketAddr) {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(proxy).unwrap();
    stream
        .write_all(
            b"GET /get?token=hidden-1&a=b HTTP/1.1\r\nhost: a\r\nuser-agent: me\r\n\
              authorization: Bearer hidden-2\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn each_call_is_one_document_and_secrets_are_in_none() {
    let spctl = Spctl::new();
    let plugin = spctl.file("reader.wasm", wat::parse_str(READER).unwrap());
    let config = spctl.file("reader.json", r#"{"key": "hidden-3"}"#);
    let args = ["--workers", "1", "--plugin", plugin.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let (run, stdout, started) = Run::start(&spctl, &[&args[..], &["--trace-hostcalls"]].concat());
    let proxy = run.proxy;
    ask(proxy);
    let (lines, stderr) = run.end(stdout);
    let all: Vec<Value> = started.into_iter().chain(lines).collect();
    assert!(all.iter().all(|line| line["schema"] == "spctl/v1" && line["command"] == "run"));
    let data: Vec<&Value> = all.iter().map(|line| &line["data"]).collect();
    let configured = data.iter().find(|d| d["event"] == "call" && d["callback"] == "proxy_on_configure").unwrap();
    assert_eq!(configured["arguments"]["buffer"], "plugin_configuration");
    assert_eq!(configured["returned"]["bytes"]["bytes"], 19);

    let at = data.iter().position(|d| d["event"] == "callback" && d["name"] == "proxy_on_request_headers").unwrap();
    let callback = data[at];
    assert_eq!((&callback["plugin"], &callback["returned"]), (&"reader".into(), &"Continue".into()));
    assert_eq!((&callback["stream"], &callback["arguments"]["end_of_stream"]), (&1.into(), &true.into()));
    let calls: Vec<&Value> = data[at + 1..].iter().take(5).copied().collect();
    assert!(calls.iter().all(|call| call["frame"] == callback["frame"] && call["context"] == callback["context"]));
    assert!(calls.iter().all(|call| call["took_us"].is_number()));
    assert_eq!(calls[0]["returned"]["value"], "REDACTED");
    assert_eq!(calls[1]["returned"]["value"], "me");
    assert_eq!((&calls[2]["arguments"]["value"], &calls[2]["status"]), (&"value".into(), &"Ok".into()));
    assert_eq!(calls[3]["arguments"]["path"], "request.path");
    assert_eq!(calls[3]["returned"]["value"], "/get?token=REDACTED&a=b");
    assert_eq!((&calls[4]["name"], &calls[4]["arguments"]["text"]), (&"fd_write".into(), &"wrote".into()));
    assert_eq!(calls[4]["status"], "SUCCESS");
    // The root's farewell comes last, and is not lost on the way out.
    let last = data.iter().rfind(|d| d["event"] == "callback").unwrap();
    assert_eq!((&last["name"], &last["stream"]), (&"proxy_on_delete".into(), &Value::Null));
    for n in 1..=3 {
        let secret = format!("hidden-{n}");
        assert!(!stderr.contains(&secret) && !all.iter().any(|line| line.to_string().contains(&secret)), "{secret}");
    }
}

#[test]
fn people_read_it_on_stderr_and_can_choose() {
    let spctl = Spctl::new();
    let plugin = spctl.file("reader.wasm", wat::parse_str(READER).unwrap());
    let args = ["--output", "text", "--plugin", plugin.to_str().unwrap(), "--trace-hostcalls=get_header,fd_"];
    let mut child = spctl
        .command(&[&["run", "--listen", "127.0.0.1:0"], &args[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("proxy     ") {
        assert!(stdout.read_line(&mut told).unwrap() > 0, "{told}");
    }
    let proxy = told.split("http://").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();
    ask(proxy);
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let lines: Vec<&str> = text.lines().collect();
    let at =
        lines.iter().position(|line| line.contains("proxy_on_request_headers(")).unwrap_or_else(|| panic!("{text}"));
    assert!(lines[at].contains(" reader stream 1 context ") && lines[at].contains(" = Continue "), "{}", lines[at]);
    assert!(
        lines[at + 1].ends_with(r#"proxy_get_header_map_value(request_headers, "authorization") = Ok "REDACTED""#),
        "{text}"
    );
    assert!(
        lines[at + 2].ends_with(r#"proxy_get_header_map_value(request_headers, "user-agent") = Ok "me""#),
        "{text}"
    );
    assert!(lines[at + 3].ends_with(r#"fd_write(fd: 1, "wrote") = SUCCESS written: 5"#), "{text}");
    assert!(!text.contains("proxy_get_property") && !text.contains("proxy_on_configure"), "{text}");
}

#[test]
fn a_reader_that_does_not_read_slows_nothing_down_and_hears_of_its_loss() {
    let spctl = Spctl::new();
    let plugin = spctl.file("reader.wasm", wat::parse_str(READER).unwrap());
    let upstream = format!("http://{}", background_upstream());
    let (run, stdout, _) =
        Run::start(&spctl, &["--upstream", &upstream, "--plugin", plugin.to_str().unwrap(), "--trace-hostcalls"]);
    // Nobody reads stdout meanwhile: the pipe is full after the first.
    let began = Instant::now();
    let served = runtime().block_on(load::run(run.proxy, 0, 3000, 8, Arc::default()));
    assert_eq!((served.ok + served.failed, served.failed), (3000, 0));
    assert!(began.elapsed() < Duration::from_secs(30));
    let (lines, _) = run.end(stdout);
    let lost: u64 =
        lines.iter().filter(|l| l["data"]["event"] == "lost").filter_map(|l| l["data"]["callbacks"].as_u64()).sum();
    assert!(lost > 0, "{} lines", lines.len());
    let told = lines.iter().filter(|l| l["data"]["event"] == "callback").count() as u64;
    // For each request: its context created, its headers, its context deleted.
    assert!(told + lost >= 9000, "{told} + {lost}");
}

#[test]
fn other_harnesses_and_the_background_refuse_it() {
    let spctl = Spctl::new();
    let error = spctl.error(&["run", "--harness", "envoy", "--trace-hostcalls"]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("usage"), Some(2)));
    assert!(error["message"].as_str().unwrap().contains("--harness embedded"), "{error}");
    assert_eq!(spctl.error(&["run", "--detach", "--trace-hostcalls"])["exit"], 2);
}
