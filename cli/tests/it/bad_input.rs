//! Bad input of every kind: each is a situation with a code, an exit code and
//! a hint, and leaves nothing behind.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Spctl, address, envoy, harnesses, load, runtime};

/// A module with the parts that every plugin has, and `rest`.
fn plugin(rest: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            {rest}
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) i32.const 1024))"#
    ))
    .unwrap()
}

/// Starts `module` on every harness; each must refuse it in the same words.
#[track_caller]
fn refused(module: &[u8], code: &str, exit: u64, says: &str) {
    for harness in harnesses() {
        let spctl = Spctl::new();
        let file = spctl.file("bad.wasm", module);
        let error = spctl.error(&[
            "run",
            "--detach",
            "--harness",
            harness,
            "--deadline",
            "300",
            "--memory-limit",
            "16",
            "--plugin",
            file.to_str().unwrap(),
        ]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(exit)), "{harness}: {error:#}");
        assert!(error.to_string().contains(says), "{harness}: {says:?} is not in {error:#}");
        assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{harness}: no hint: {error}");
        assert!(!spctl.instance_dir("default").exists(), "{harness}: something is left");
    }
}

#[test]
fn not_wasm() {
    refused(b"#!/bin/sh\necho hello\n", "plugin_not_wasm", 11, "bad.wasm");
}

#[test]
fn truncated_wasm() {
    let whole = spctl::bundle::capture().bytes.to_vec();
    refused(&whole[..whole.len() / 2], "plugin_corrupt", 11, "bad");
}

#[test]
fn no_abi_export() {
    let module = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "malloc") (param i32) (result i32) i32.const 8))"#,
    )
    .unwrap();
    refused(&module, "plugin_no_abi", 11, "0.2.1");
}

#[test]
fn unknown_imports_are_all_named() {
    let module =
        plugin(r#"(import "env" "proxy_teleport" (func)) (import "wasi_snapshot_preview1" "sock_fly" (func))"#);
    refused(&module, "plugin_unknown_imports", 11, "env.proxy_teleport");
    refused(&module, "plugin_unknown_imports", 11, "wasi_snapshot_preview1.sock_fly");
}

#[test]
fn a_network_plugin_is_refused_by_name() {
    refused(
        &plugin(r#"(func (export "proxy_on_new_connection") (param i32) (result i32) i32.const 0)"#),
        "plugin_network",
        11,
        "proxy_on_new_connection",
    );
}

#[test]
fn a_trap_at_start() {
    refused(
        &plugin(r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) unreachable)"#),
        "plugin_trapped",
        11,
        "proxy_on_vm_start",
    );
}

#[test]
fn a_refused_configuration() {
    refused(
        &plugin(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 0)"#),
        "plugin_refused",
        11,
        "proxy_on_configure",
    );
}

#[test]
fn an_endless_loop_is_stopped_and_reported_as_a_blocked_worker() {
    refused(
        &plugin(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (loop (br 0)) i32.const 1)"#),
        "plugin_endless",
        11,
        "would have blocked an Envoy worker",
    );
}

#[test]
fn a_memory_hog_traps_at_the_cap() {
    // Grows by 1 MiB until it is refused, then gives up as allocators do.
    let module = plugin(
        r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
             (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
             unreachable)"#,
    );
    refused(&module, "plugin_trapped", 11, "proxy_on_vm_start");
}

#[test]
fn an_endless_loop_in_traffic_fails_the_request_not_the_instance() {
    let spctl = Spctl::new();
    let module = plugin(
        r#"(func (export "proxy_on_context_create") (param i32 i32)) (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (loop (br 0)) i32.const 0)"#,
    );
    let file = spctl.file("loop.wasm", module);
    let data =
        spctl.data(&["run", "--detach", "--deadline", "200", "--plugin", file.to_str().unwrap(), "--workers", "1"]);
    let served =
        runtime().block_on(load::run(address(&data["instances"][0]["proxy_url"]), 0, 1, 1, Default::default()));
    assert_eq!(served.failed, 1, "fail-closed: 503");
    let logs = spctl.run(&["logs", "--output", "json"]).stdout;
    assert!(logs.contains("blocked"), "{logs}");
    assert_eq!(spctl.status()["state"], "degraded");
}

#[test]
fn broken_configurations_name_file_and_place() {
    let spctl = Spctl::new();
    for (name, content, code, says) in [
        ("broken.json", "{\"limits\": ", "config_unparsable", "broken.json"),
        ("broken.yaml", "a: [1, 2\nb: }", "config_unparsable", "broken.yaml"),
        ("type.json", r#"{"limits": {"queue_bytes": "much"}}"#, "config_rejected", "limits.queue_bytes"),
        ("regex.json", r#"{"collectionRules": {"http": {"server": [{"path": "("}]}}}"#, "config_rejected", "path"),
        ("list.yaml", "- a\n- b\n", "config_rejected", "list.yaml"),
    ] {
        let file = spctl.file(name, content);
        let error = spctl.error(&["run", "--detach", "--config", file.to_str().unwrap()]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some(code), Some(10)), "{name}: {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{name}: {error}");
    }
}

#[test]
fn unknown_keys_warn_and_start() {
    let spctl = Spctl::new();
    let file = spctl.file("typo.json", r#"{"service_nam": "x"}"#);
    let ended = spctl.run(&["run", "--detach", "--output", "json", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let envelope: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(envelope["warnings"].to_string().contains("service_nam"), "{envelope}");
}

#[test]
fn a_port_in_use() {
    for harness in harnesses() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let spctl = Spctl::new();
        let listen = taken.local_addr().unwrap().to_string();
        let error = spctl.error(&["run", "--detach", "--harness", harness, "--listen", &listen]);
        assert_eq!(
            (error["code"].as_str(), error["exit"].as_u64()),
            (Some("port_in_use"), Some(20)),
            "{harness}: {error}"
        );
        assert!(error["message"].as_str().unwrap().contains(&listen), "{harness}: {error}");
    }
}

#[test]
fn an_upstream_that_is_down_is_a_503_and_captured() {
    for harness in harnesses() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let spctl = Spctl::new();
        let data = spctl.data(&["run", "--detach", "--harness", harness, "--upstream", &format!("http://{nobody}")]);
        runtime().block_on(load::run(address(&data["instances"][0]["proxy_url"]), 0, 3, 1, Default::default()));
        spctl.wait_status("they arrive", |s| s["counters"]["stored"] == 3);
        let page = spctl.data(&["captures", "list"]);
        for exchange in page["exchanges"].as_array().unwrap() {
            assert_eq!(exchange["status"], 503, "{harness}: {exchange}");
        }
    }
}

#[test]
fn no_envoy_and_an_envoy_that_is_none() {
    let spctl = Spctl::new();
    let error = spctl.error(&["quickstart", "--harness", "envoy", "--envoy-path", "/nowhere/envoy"]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("envoy_missing"), Some(20)), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--envoy-path"), "{error}");
    let error = spctl.error(&["quickstart", "--harness", "envoy", "--envoy-path", "/bin/true"]);
    assert_eq!(error["code"], "envoy_unfit", "{error}");
}

#[test]
fn an_envoy_without_wasm_says_so() {
    if envoy().is_none() {
        return;
    }
    let spctl = Spctl::new();
    // A real Envoy whose validation fails as one without a Wasm runtime does.
    let script = spctl.file(
        "envoy-without-wasm",
        "#!/bin/sh\ncase \"$*\" in *--version*) echo 'x  version: 0000/1.40.0/Clean/RELEASE/BoringSSL';; *) echo 'Failed to create Wasm VM using envoy.wasm.runtime.v8 runtime. Envoy was compiled without support for it' >&2; exit 1;; esac\n",
    );
    make_executable(&script);
    let error = spctl.error(&["run", "--detach", "--harness", "envoy", "--envoy-path", script.to_str().unwrap()]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("envoy_unfit"), Some(20)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("compiled without support"), "{error}");
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let spctl = Spctl::new();
    let file = spctl.file("a-file", "");
    let output =
        spctl.command(&["run", "--detach", "--output", "json"]).env("SPCTL_HOME", file.join("below")).output().unwrap();
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(envelope["error"]["code"], "state_dir_unusable", "{envelope}");
    assert_eq!(output.status.code(), Some(20));
}

#[test]
fn a_full_disk_costs_no_request_and_is_counted() {
    let spctl = Spctl::new();
    let small = spctl.home.path().join("small");
    std::fs::create_dir(&small).unwrap();
    // The compiled capture filter takes some 550 kB of it.
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=900k", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a small tmpfs");
        eprintln!("SKIPPED: a small file system cannot be mounted here (root is needed)");
        return;
    }
    let full = FullDisk { spctl: &spctl, path: &small };
    let data = full.data(&["run", "--detach", "--workers", "1"]);
    let proxy = address(&data["instances"][0]["proxy_url"]);
    let served = runtime().block_on(load::run(proxy, 0, 2000, 8, Default::default()));
    // The built-in upstream answers 404 to the load's paths: answered is what counts.
    assert_eq!(served.failed, 2000);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let counters = full.data(&["status"])["instances"][0]["counters"].clone();
        let lost = crate::common::dropped(&counters);
        let (captured, queued, exported) = (
            counters["captured"].as_u64().unwrap(),
            counters["queued"].as_u64().unwrap(),
            counters["exported"].as_u64().unwrap(),
        );
        if captured == 2000 && captured == queued + exported + lost && exported < 2000 {
            assert_eq!(counters["stored"], exported, "{counters}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{counters}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A home on a file system of 900 KiB; unmounted at the end.
struct FullDisk<'a> {
    spctl: &'a Spctl,
    path: &'a Path,
}

impl FullDisk<'_> {
    #[track_caller]
    fn data(&self, args: &[&str]) -> Value {
        let output =
            self.spctl.command(&[args, &["--output", "json"]].concat()).env("SPCTL_HOME", self.path).output().unwrap();
        let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(envelope["error"].is_null(), "{envelope}");
        envelope["data"].clone()
    }
}

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        let _ = self.spctl.command(&["down", "--all"]).env("SPCTL_HOME", self.path).output();
        let _ = std::process::Command::new("umount").arg("-l").arg(self.path).status();
    }
}

#[test]
fn an_instance_killed_outright_is_found_dead_cleaned_up_and_said_so() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        spctl.data(&["run", "--detach", "--harness", harness]);
        let record: Value =
            serde_json::from_slice(&std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap()).unwrap();
        kill(&record["pid"]);
        let error = spctl.error(&["captures", "list"]);
        assert_eq!(
            (error["code"].as_str(), error["exit"].as_u64()),
            (Some("instance_died"), Some(21)),
            "{harness}: {error}"
        );
        assert!(!spctl.instance_dir("default").exists(), "{harness}");
        for child in record["children"].as_array().unwrap() {
            let gone = || {
                !Path::new(&format!("/proc/{}/cmdline", child["pid"])).exists()
                    || std::fs::read(format!("/proc/{}/cmdline", child["pid"])).unwrap().is_empty()
            };
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while !gone() {
                assert!(std::time::Instant::now() < deadline, "{harness}: its Envoy still runs");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert_eq!(spctl.error(&["down"])["code"], "not_running");
        spctl.data(&["run", "--detach", "--harness", harness]);
    }
}

#[test]
fn a_killed_envoy_is_told_and_the_next_run_starts_clean() {
    let Some(_) = envoy() else { return };
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach", "--harness", "envoy"]);
    let record: Value =
        serde_json::from_slice(&std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap()).unwrap();
    kill(&record["children"][0]["pid"]);
    let status = spctl.wait_status("the end is seen", |status| status["state"] == "degraded");
    assert!(status["proxies"][0]["state"].as_str().unwrap().contains("signal: 9"), "{status}");
    spctl.data(&["down"]);
    spctl.data(&["run", "--detach", "--harness", "envoy"]);
    assert_eq!(spctl.status()["state"], "running");
}

fn kill(pid: &Value) {
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
        && std::time::Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
