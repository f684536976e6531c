//! `logs`: levels raised and put back, panics shown, times.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Spctl, address, harnesses, load, runtime};

fn request(proxy: std::net::SocketAddr) {
    runtime().block_on(load::run(proxy, 0, 1, 1, Arc::default()));
}

fn lines(spctl: &Spctl, args: &[&str]) -> Vec<Value> {
    let ended = spctl.run(&[&["logs", "--output", "json"], args].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["data"].clone()).collect()
}

fn debug_lines(spctl: &Spctl) -> usize {
    lines(spctl, &[]).iter().filter(|line| line["level"] == "debug" && line["plugin"] == "capture").count()
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_follower_raises_the_level_and_even_its_death_puts_it_back() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        let data = spctl.data(&["run", "--detach", "--harness", harness]);
        let proxy = address(&data["instances"][0]["proxy_url"]);
        request(proxy);
        spctl.wait_status("it is exported", |s| s["counters"]["exported"] == 1);
        assert_eq!(debug_lines(&spctl), 0, "{harness}");
        let mut follower =
            spctl.command(&["logs", "--follow", "--level", "debug"]).stdout(Stdio::null()).spawn().unwrap();
        // The filter polls the level, on requests, once a second.
        wait("debug lines come", || {
            request(proxy);
            debug_lines(&spctl) > 0
        });
        follower.kill().unwrap();
        follower.wait().unwrap();
        let mut seen = usize::MAX;
        wait("debug lines end", || {
            request(proxy);
            std::thread::sleep(Duration::from_millis(1200));
            let now = debug_lines(&spctl);
            std::mem::replace(&mut seen, now) == now
        });
    }
}

/// Traps below a function with a mangled name.
const TRAPPING: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func $_ZN3app6filter4boom17h0123456789abcdefE unreachable)
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    call $_ZN3app6filter4boom17h0123456789abcdefE
    i32.const 0))"#;

#[test]
fn a_trap_is_shown_with_its_demangled_stack() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        let plugin = spctl.file("trapping.wasm", wat::parse_str(TRAPPING).unwrap());
        let data = spctl.data(&["run", "--detach", "--harness", harness, "--plugin", plugin.to_str().unwrap()]);
        request(address(&data["instances"][0]["proxy_url"]));
        wait(&format!("{harness}: the stack is in the log"), || {
            lines(&spctl, &[]).iter().any(|line| line["message"].as_str().unwrap().contains("app::filter::boom"))
        });
    }
}

#[test]
fn lines_since_a_time_and_of_a_level() {
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach"]);
    assert!(!lines(&spctl, &["--since", "1h"]).is_empty());
    assert!(!lines(&spctl, &["--since", "2020-01-01T00:00:00Z"]).is_empty());
    assert!(lines(&spctl, &["--since", "2200-01-01T00:00:00Z"]).is_empty());
    assert!(lines(&spctl, &["--level", "error"]).is_empty());
    assert_eq!(spctl.error(&["logs", "--since", "yesterday"])["exit"], 2);
}
