//! What is wrong with a running instance.

use std::io::{Read, Write};
use std::sync::Arc;

use super::{TOO_NEW, doctor, expect, find, old_envoy, wait_for};
use crate::common::sink::{Backend, Mood};
use crate::common::{Spctl, address, harnesses, load, runtime};

#[test]
fn a_healthy_instance_is_healthy() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        spctl.data(&["quickstart", "--harness", harness]);
        let (exit, findings) = doctor(&spctl, &[]);
        assert_eq!(exit, 0, "{harness}: {findings:?}");
        assert!(findings.iter().all(|finding| finding["severity"] == "note"), "{harness}: {findings:?}");
    }
}

#[test]
fn a_plugin_that_traps_and_fails_closed() {
    const TRAPPING: &str = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) i32.const 1024)
      (func (export "proxy_on_context_create") (param i32 i32))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    for harness in harnesses() {
        let spctl = Spctl::new();
        let plugin = spctl.file("trapping.wasm", wat::parse_str(TRAPPING).unwrap());
        let data = spctl.data(&["run", "--detach", "--harness", harness, "--plugin", plugin.to_str().unwrap()]);
        let proxy = address(&data["instances"][0]["proxy_url"]);
        runtime().block_on(load::run(proxy, 0, 1, 1, Arc::default()));
        wait_for(&spctl, "plugin_failed", "");
    }
}

#[test]
fn a_backend_that_is_not_there_or_refuses_the_key() {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            tx.send(Backend::start().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let forbidding = rx.recv().unwrap();
    forbidding.set(Mood::Forbidding);
    let cases = [
        ("http://127.0.0.1:9".to_owned(), "backend_unreachable", "127.0.0.1:9"),
        (format!("http://{}", forbidding.address), "backend_refuses_key", "status=403"),
    ];
    for (backend, code, evidence) in cases {
        let spctl = Spctl::new();
        let data = spctl.data(&["run", "--detach", "--backend", &backend]);
        let proxy = address(&data["instances"][0]["proxy_url"]);
        runtime().block_on(load::run(proxy, 0, 1, 1, Arc::default()));
        wait_for(&spctl, code, evidence);
    }
}

#[test]
fn a_backend_whose_clock_is_wrong() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 200 OK\r\ndate: Sat, 01 Jan 2022 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach", "--backend", &format!("http://{backend}")]);
    let (exit, findings) = doctor(&spctl, &[]);
    assert_eq!(exit, 0, "{findings:?}");
    expect(&findings, "clock_skew", "warning", "s behind");
}

#[test]
fn a_log_level_that_hides_what_plugins_say() {
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach", "--log-level", "error"]);
    expect(&doctor(&spctl, &[]).1, "log_level_hides", "note", "at error");
}

#[test]
fn a_plugin_whose_file_is_another_by_now() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        let bytes = spctl::bundle::capture().bytes.to_vec();
        let file = spctl.file("plugin.wasm", &bytes);
        spctl.data(&["run", "--detach", "--harness", harness, "--plugin", file.to_str().unwrap()]);
        assert!(find(&doctor(&spctl, &[]).1, "plugin_file_changed").is_none(), "{harness}");
        // A custom section more.
        std::fs::write(&file, [&bytes[..], &[0, 5, 4, b't', b'w', b'o', b'!']].concat()).unwrap();
        let digest = spctl.status()["plugins"][0]["plugin_digest"].as_str().unwrap().to_owned();
        expect(&doctor(&spctl, &[]).1, "plugin_file_changed", "warning", &digest);
        spctl.data(&["reload"]);
        assert!(find(&doctor(&spctl, &[]).1, "plugin_file_changed").is_none(), "{harness}");
        std::fs::remove_file(&file).unwrap();
        expect(&doctor(&spctl, &[]).1, "plugin_file_missing", "warning", "plugin.wasm");
    }
}

#[test]
fn a_plugin_that_runs_here_and_not_on_the_machines_envoy() {
    let Some(old) = old_envoy() else { return };
    let spctl = Spctl::new();
    let plugin = spctl.file("too_new.wasm", wat::parse_str(TOO_NEW).unwrap());
    spctl.data(&["run", "--detach", "--plugin", plugin.to_str().unwrap()]);
    let (exit, findings) = doctor(&spctl, &["--envoy-path", &old]);
    assert_eq!(exit, 0, "{findings:?}");
    expect(&findings, "plugin_too_new", "warning", "fd_pread");
    assert!(find(&doctor(&spctl, &[]).1, "plugin_too_new").is_none());
}
