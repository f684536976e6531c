//! `doctor` against real faults: each found with its evidence, some mended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::sink::{Backend, Mood};
use crate::common::{Spctl, address, harnesses, image, load, runtime};

/// Exit code and findings.
fn doctor(spctl: &Spctl, args: &[&str]) -> (i32, Vec<Value>) {
    let ended = spctl.run(&[&["doctor", "--quiet", "--output", "json"], args].concat());
    let envelope: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
    (ended.code, envelope["data"]["findings"].as_array().unwrap().clone())
}

fn find<'a>(findings: &'a [Value], code: &str) -> Option<&'a Value> {
    findings.iter().find(|finding| finding["code"] == code)
}

/// Waits until `doctor` exits with 3 and names the fault.
#[track_caller]
fn wait_for(spctl: &Spctl, code: &str, evidence: &str) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let (exit, findings) = doctor(spctl, &[]);
        if let Some(finding) = find(&findings, code)
            && finding["evidence"].as_str().unwrap().contains(evidence)
        {
            assert_eq!((exit, &finding["severity"]), (3, &Value::from("error")), "{finding}");
            assert!(!finding["fix"].as_str().unwrap().is_empty(), "{finding}");
            return;
        }
        assert!(Instant::now() < deadline, "no {code} with {evidence}: {findings:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

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
fn what_dead_instances_left_is_found_and_mended() {
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach"]);
    kill_instance(&spctl);
    let (exit, findings) = doctor(&spctl, &[]);
    assert_eq!(exit, 0, "{findings:?}");
    assert_eq!(find(&findings, "instance_stale").unwrap()["fixed"], false);
    assert_eq!(find(&doctor(&spctl, &["--fix"]).1, "instance_stale").unwrap()["fixed"], true);
    assert!(find(&doctor(&spctl, &[]).1, "instance_stale").is_none());
}

#[test]
fn a_container_without_its_instance_is_removed() {
    let Some(_) = image() else { return };
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach", "--harness", "docker"]);
    kill_instance(&spctl);
    std::fs::remove_dir_all(spctl.instance_dir("default")).unwrap();
    assert!(find(&doctor(&spctl, &[]).1, "container_stale").is_some());
    assert_eq!(find(&doctor(&spctl, &["--fix"]).1, "container_stale").unwrap()["fixed"], true);
    assert!(find(&doctor(&spctl, &[]).1, "container_stale").is_none());
}

#[test]
fn a_bootstrap_of_past_years_is_explained_and_repaired() {
    let spctl = Spctl::new();
    let file = spctl.file(
        "envoy.yaml",
        r#"
static_resources:
  clusters: [{name: a, connect_timeout: 1s, hosts: [{socket_address: {address: 127.0.0.1, port_value: 1}}]}]
  listeners:
  - filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          http_filters:
          - name: envoy.filters.http.wasm
            config:
              config:
                name: capture
                configuration: '{"sp_backend_url": "http://x", "backend_cluster": "nobody"}'
                vm_config: {code: {local: {filename: /etc/envoy/capture.wasm}}}
          - {name: envoy.router}
"#,
    );
    let file = file.to_str().unwrap();
    let (exit, findings) = doctor(&spctl, &["-c", file]);
    assert_eq!(exit, 3);
    for code in ["config_outdated", "plugin_file_missing", "cluster_missing"] {
        assert!(find(&findings, code).is_some(), "{code}: {findings:?}");
    }
    assert_eq!(find(&doctor(&spctl, &["-c", file, "--fix"]).1, "config_outdated").unwrap()["fixed"], true);
    let repaired = spctl.home.path().join("envoy.fixed.yaml");
    let (_, findings) = doctor(&spctl, &["-c", repaired.to_str().unwrap()]);
    assert!(find(&findings, "config_outdated").is_none(), "{findings:?}");
}

fn kill_instance(spctl: &Spctl) {
    let record = std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap();
    let pid = serde_json::from_slice::<Value>(&record).unwrap()["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut fds| fds.next().is_some()) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
}
