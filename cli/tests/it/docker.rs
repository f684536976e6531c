//! What only the Docker harness can meet: no daemon, no image, a container or
//! a daemon that dies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Spctl, image, load, runtime};

#[test]
fn no_daemon_is_said_with_where_it_was_looked_for() {
    let spctl = Spctl::new();
    let socket = spctl.home.path().join("no.sock");
    let output = spctl
        .command(&["run", "--detach", "--harness", "docker", "--output", "json"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(20));
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(envelope["error"]["code"], "docker_missing");
    assert!(envelope["error"]["causes"][0].as_str().unwrap().contains("no.sock"), "{envelope}");
}

#[test]
fn an_image_that_cannot_be_had() {
    let Some(_) = image() else { return };
    let spctl = Spctl::new();
    let error = spctl.error(&["run", "--detach", "--harness", "docker", "--image", "127.0.0.1:1/none:none"]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("image_missing"), Some(20)), "{error}");
}

#[test]
fn an_image_without_envoy_is_refused_and_leaves_nothing() {
    let Some(_) = image() else { return };
    let spctl = Spctl::new();
    let empty = spctl.home.path().join("empty.tar");
    assert!(Command::new("tar").args(["-cf"]).arg(&empty).args(["-T", "/dev/null"]).status().unwrap().success());
    let name = format!("spctl-test/empty-{}:1", std::process::id());
    docker(None, &["import", empty.to_str().unwrap(), &name]);
    let error = spctl.error(&["run", "--detach", "--harness", "docker", "--image", &name]);
    docker(None, &["rmi", &name]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("harness_failed"), Some(30)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("envoy"), "{error}");
    assert_eq!(containers(None, &spctl), "");
}

#[test]
fn a_killed_container_is_told_and_nothing_stays() {
    let Some(_) = image() else { return };
    let spctl = Spctl::new();
    spctl.data(&["run", "--detach", "--harness", "docker"]);
    docker(None, &["kill", &containers(None, &spctl)]);
    let status = spctl.wait_status("the end is seen", |status| status["state"] == "degraded");
    assert!(status["proxies"][0]["state"].as_str().unwrap().contains("137"), "{status}");
    spctl.data(&["down"]);
    assert_eq!(containers(None, &spctl), "");
}

#[test]
fn an_interrupt_while_starting_and_while_serving_leaves_nothing() {
    let Some(_) = image() else { return };
    for pause in [Duration::from_millis(250), Duration::from_secs(2)] {
        let spctl = Spctl::new();
        let mut run =
            spctl.command(&["run", "--harness", "docker"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(pause);
        assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
        run.wait().unwrap();
        assert_eq!(containers(None, &spctl), "", "after {pause:?}");
        assert!(!spctl.instance_dir("default").exists(), "after {pause:?}");
    }
}

/// Killing the daemon leaves Envoy running: `status` says so. The daemon's next
/// start ends it, which `status` says too.
#[test]
fn a_daemon_that_dies_and_comes_back() {
    let (Some(image), Some(tar)) = (image(), std::env::var_os("SPCTL_TEST_IMAGE_TAR")) else { return };
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: a Docker daemon of its own needs root");
        return;
    }
    let mut engine = Engine::start(&[]);
    docker(Some(&engine), &["import", tar.to_str().unwrap(), &image]);
    let spctl = Spctl::new();
    let host = engine_host(&engine.directory);
    let run = |args: &[&str]| -> Value {
        let output = spctl
            .command(&[args, &["--output", "json", "--quiet"]].concat())
            .env("DOCKER_HOST", &host)
            .output()
            .unwrap();
        let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(envelope["error"].is_null(), "{args:?}: {envelope}");
        envelope["data"].clone()
    };
    run(&["run", "--detach", "--harness", "docker"]);
    engine.kill();
    assert_eq!(run(&["status"])["instances"][0]["state"], "running");
    engine.serve();
    let deadline = Instant::now() + Duration::from_secs(20);
    while run(&["status"])["instances"][0]["state"] != "degraded" {
        assert!(Instant::now() < deadline, "the end of the container is not seen");
        std::thread::sleep(Duration::from_millis(100));
    }
    run(&["down"]);
    assert_eq!(containers(Some(&engine), &spctl), "");
}

/// With live-restore Envoy outlives its daemon, and what it logs meanwhile is
/// neither lost nor told twice.
#[test]
fn the_log_goes_on_where_it_was_when_a_daemon_comes_back() {
    let (Some(image), Some(tar)) = (image(), std::env::var_os("SPCTL_TEST_IMAGE_TAR")) else { return };
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: a Docker daemon of its own needs root");
        return;
    }
    let mut engine = Engine::start(&["--live-restore"]);
    docker(Some(&engine), &["import", tar.to_str().unwrap(), &image]);
    let spctl = Spctl::new();
    let host = engine_host(&engine.directory);
    let run = |args: &[&str]| -> String {
        let output =
            spctl.command(&[args, &["--output", "json", "--quiet"]].concat()).env("DOCKER_HOST", &host).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    };
    let plugin = spctl.file("paths.wasm", wat::parse_str(LOGS_PATHS).unwrap());
    let started = run(&["run", "--detach", "--harness", "docker", "--plugin", plugin.to_str().unwrap()]);
    let started: Value = serde_json::from_str(&started).unwrap();
    let proxy = crate::common::address(&started["data"]["instances"][0]["proxy_url"]);
    let request = |from: u64| {
        runtime().block_on(load::run(proxy, from, 20, 2, Arc::default()));
    };
    let seen = || -> Vec<String> {
        let text = run(&["logs"]);
        let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["message"].clone());
        let mut paths: Vec<String> =
            messages.filter_map(|m| m.as_str()?.strip_prefix("/load/").map(str::to_owned)).collect();
        paths.sort_by_key(|n| n.parse::<u64>().unwrap());
        paths
    };
    let wait = |count: u64| {
        let wanted: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        while seen() != wanted {
            assert!(Instant::now() < deadline, "{:?}", seen());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    request(0);
    wait(20);
    for round in 0..2 {
        engine.kill();
        // Envoy serves and logs with nobody there to read it.
        request(20 + 40 * round);
        engine.serve();
        request(40 + 40 * round);
        wait(60 + 40 * round);
    }
    let status: Value = serde_json::from_str(&run(&["status"])).unwrap();
    assert_eq!(status["data"]["instances"][0]["state"], "running");
    run(&["down"]);
    assert_eq!(containers(Some(&engine), &spctl), "");
}

const LOGS_PATHS: &str = r#"(module
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) ":path")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 65536)
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)))
    (drop (call $log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
    i32.const 0))"#;

/// A Docker daemon with all its state in one directory.
struct Engine {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    flags: &'static [&'static str],
}

impl Engine {
    fn start(flags: &'static [&'static str]) -> Self {
        let directory = tempfile::Builder::new().prefix("spctl-docker-").tempdir().unwrap();
        let mut engine = Self { directory, daemon: None, flags };
        engine.serve();
        engine
    }

    fn serve(&mut self) {
        let at = |name: &str| self.directory.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args(["--host", &engine_host(&self.directory)])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--bridge", "none", "--iptables=false"])
            .args(self.flags)
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !answers(self) {
            let log = std::fs::read_to_string(at("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd does not answer: {log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let _ = std::fs::remove_file(self.directory.path().join("pid"));
        // Its containerd dies with it, a moment later; a daemon that starts
        // within that moment would wait for it in vain.
        let containerd = self.directory.path().join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&containerd).unwrap();
        while Path::new("/proc").join(pid.trim()).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_file(containerd);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
        // What a daemon mounts outlives it.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let own = self.directory.path().display().to_string();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&own)) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

fn engine_host(directory: &tempfile::TempDir) -> String {
    format!("unix://{}", directory.path().join("docker.sock").display())
}

fn answers(engine: &Engine) -> bool {
    let mut info = Command::new("docker");
    info.arg("info").env("DOCKER_HOST", engine_host(&engine.directory));
    info.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[track_caller]
fn docker(engine: Option<&Engine>, args: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(args);
    if let Some(engine) = engine {
        command.env("DOCKER_HOST", engine_host(&engine.directory));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Ids of the containers, running or not, that this home's instance has.
fn containers(engine: Option<&Engine>, spctl: &Spctl) -> String {
    let directory: PathBuf = Path::new(&spctl.instance_dir("default")).join("envoy");
    let label = format!("label=ai.softprobe.spctl.directory={}", directory.display());
    docker(engine, &["ps", "-aq", "--filter", &label])
}
