//! What is wrong with this machine, and what dead instances left on it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{doctor, expect, find};
use crate::common::{Spctl, envoy, image};

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

fn kill_instance(spctl: &Spctl) {
    let record = std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap();
    let pid = serde_json::from_slice::<Value>(&record).unwrap()["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(5);
    // Its lock is held until the last of its threads is gone.
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut fds| fds.next().is_some());
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1);
    while files() || threads() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_daemon_that_is_down() {
    let spctl = Spctl::new();
    let output = spctl
        .command(&["doctor", "--output", "json"])
        .env("DOCKER_HOST", format!("unix://{}/no.sock", spctl.home.path().display()))
        .output()
        .unwrap();
    expect(&findings(&output), "docker_missing", "note", "no.sock");
}

fn findings(output: &std::process::Output) -> Vec<Value> {
    let envelope: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    envelope["data"]["findings"].as_array().unwrap().clone()
}

/// As root no socket is forbidden: then another user asks.
#[test]
fn a_socket_that_is_somebody_elses() {
    const NOBODY: u32 = 65534;
    let spctl = Spctl::new();
    let home = spctl.home.path();
    let socket = home.join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o000)).unwrap();
    let program = home.join("spctl");
    std::fs::copy(env!("CARGO_BIN_EXE_spctl"), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["doctor", "--output", "json"])
        .current_dir("/")
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("SPCTL_HOME", home.join("state"));
    if rustix::process::getuid().is_root() {
        std::fs::set_permissions(home, PermissionsExt::from_mode(0o777)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    expect(&findings(&command.output().unwrap()), "docker_forbidden", "note", "docker.sock");
}

#[test]
fn an_envoy_without_wasm() {
    if envoy().is_none() {
        return;
    }
    let spctl = Spctl::new();
    // Answers as an Envoy without a Wasm runtime does.
    let script = spctl.file(
        "envoy-without-wasm",
        "#!/bin/sh\ncase \"$*\" in *--version*) echo 'x  version: 0000/1.40.0/Clean/RELEASE/BoringSSL';; *) echo 'Failed to create Wasm VM using envoy.wasm.runtime.v8 runtime. Envoy was compiled without support for it' >&2; exit 1;; esac\n",
    );
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let found = doctor(&spctl, &["--envoy-path", script.to_str().unwrap()]).1;
    expect(&found, "envoy_unfit", "note", "compiled without support");
    expect(&doctor(&spctl, &["--envoy-path", "/nowhere/envoy"]).1, "envoy_missing", "note", "/nowhere/envoy");
}

/// A file system of its own, unmounted at the end.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_disk_with_no_space_to_speak_of() {
    let spctl = Spctl::new();
    let state = spctl.home.path().join("small");
    std::fs::create_dir(&state).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&state).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a small file system needs root");
        return;
    }
    let _small = Small(&state);
    let output = spctl.command(&["doctor", "--output", "json"]).env("SPCTL_HOME", &state).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    expect(&findings(&output), "disk_full", "error", "16 MB are free");
}
