//! `build --in-docker`: in a real container with this machine's own Rust.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Spctl, image};

/// An image with Cargo and the Wasm target. Missing, it fails in CI.
fn rust() -> Option<String> {
    let image = std::env::var("SPCTL_TEST_BUILD_IMAGE").ok().filter(|image| !image.is_empty());
    assert!(image.is_some() || std::env::var_os("CI").is_none(), "CI needs Docker and a Rust image: run .ci/test");
    if image.is_none() {
        eprintln!("SKIPPED: no Docker with a Rust image (SPCTL_TEST_BUILD_IMAGE is not set; .ci/test sets it)");
    }
    image
}

const PLUGIN: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut u8 {
    Vec::with_capacity(size).leak().as_mut_ptr()
}
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_: u32, _: u32) {}
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_: u32, _: u32, _: u32) -> u32 {
    helper::CONTINUE
}
"#;

/// A workspace whose plugin needs the crate beside it: neither needs a registry.
fn workspace(spctl: &Spctl, plugin: &str) -> PathBuf {
    let root = spctl.home.path().join("source");
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[workspace]\nresolver = \"2\"\nmembers = [\"plugin\", \"helper\"]\n");
    write("helper/Cargo.toml", "[package]\nname = \"helper\"\nversion = \"0.0.0\"\nedition = \"2024\"\n");
    write("helper/src/lib.rs", "pub const CONTINUE: u32 = 0;\n");
    write(
        "plugin/Cargo.toml",
        "[package]\nname = \"my-plugin\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nhelper = { path = \"../helper\" }\n",
    );
    write("plugin/src/lib.rs", plugin);
    // Not for the container: what was built here, and version control.
    write("target/CACHEDIR.TAG", "");
    write("target/large", &"x".repeat(1 << 20));
    root
}

/// Names of the containers that builds have left.
fn left() -> String {
    let output =
        Command::new("docker").args(["ps", "-aq", "--filter", "label=ai.softprobe.spctl.build"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[track_caller]
fn none_left(of: u32) {
    let output =
        Command::new("docker").args(["ps", "-aq", "--filter", &format!("name=spctl-build-{of}$")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "");
}

#[test]
fn a_workspace_member_is_built_and_runs() {
    let Some(rust) = rust() else { return };
    let spctl = Spctl::new();
    let root = workspace(&spctl, PLUGIN);
    // No toolchain of this machine is used.
    let output = spctl
        .command(&["build", "source/plugin", "--in-docker", &rust, "--output", "json"])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    let data = &envelope["data"];
    let module = root.join("target/wasm32-unknown-unknown/release/my_plugin.wasm");
    assert_eq!(data["path"], module.canonicalize().unwrap().to_str().unwrap(), "{envelope}");
    assert_eq!((&data["abi"], &data["toolchain"]), (&"0.2.1".into(), &format!("{rust} in Docker").into()));
    // Cargo's own words, as they came.
    assert!(stderr.contains("Compiling my-plugin") && stderr.contains("Finished `release`"), "{stderr}");
    owned(&module);
    owned(&root.join("Cargo.lock"));
    let run = spctl.data(&["run", "--detach", "--plugin", module.to_str().unwrap()]);
    assert_eq!(run["instances"][0]["plugins"][0]["plugin_digest"], data["plugin_digest"]);
}

/// It is the user's, not root's of the container.
fn owned(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(path).unwrap().uid(), rustix::process::getuid().as_raw(), "{}", path.display());
}

#[test]
fn an_image_whose_user_is_not_root() {
    let Some(rust) = rust() else { return };
    let spctl = Spctl::new();
    workspace(&spctl, PLUGIN);
    let name = format!("spctl-test/rust-user:{}", std::process::id());
    let docker = |args: &[&str]| {
        let output = Command::new("docker").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let made = docker(&["create", "--network", "host", &rust, "cargo"]);
    docker(&["commit", "-c", "USER builder", &made, &name]);
    docker(&["rm", &made]);
    let built = spctl.run(&["build", "source/plugin", "--in-docker", &name]);
    docker(&["rmi", &name]);
    assert_eq!(built.code, 0, "{}", built.stderr);
}

#[test]
fn a_compiler_error_is_shown_once_and_is_in_the_document() {
    let Some(rust) = rust() else { return };
    let spctl = Spctl::new();
    workspace(&spctl, "fn broken( {}");
    let shown = spctl.run(&["build", "source/plugin", "--in-docker", &rust]);
    assert_eq!(shown.code, 12, "{}", shown.stderr);
    assert_eq!(shown.stderr.matches("src/lib.rs:1").count(), 1, "{}", shown.stderr);
    let quiet = spctl.run(&["build", "source/plugin", "--in-docker", &rust, "--quiet"]);
    assert_eq!(quiet.stderr.matches("src/lib.rs:1").count(), 1, "{}", quiet.stderr);
    let error = spctl.error(&["build", "source/plugin", "--in-docker", &rust]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("build_failed"), Some(12)));
    assert!(error["causes"].to_string().contains("src/lib.rs:1"), "{error}");
}

#[test]
fn what_an_image_lacks_is_said_with_the_way_to_it() {
    let Some(rust) = rust() else { return };
    let spctl = Spctl::new();
    let root = workspace(&spctl, PLUGIN);
    std::fs::create_dir(root.join(".cargo")).unwrap();
    std::fs::write(root.join(".cargo/config.toml"), "[build]\ntarget = \"wasm32-wasip1\"\n").unwrap();
    let lacks = |image: &str, what: &str| {
        let error = spctl.error(&["build", "source/plugin", "--in-docker", image]);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("image_unfit"), Some(20)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(what), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("rustup target add"), "{error}");
    };
    lacks(&rust, "no standard library for wasm32-wasip1");
    if let Some(envoy) = image() {
        lacks(&envoy, "it has no `cargo`");
    }
    let error = spctl.error(&["build", "source/plugin", "--in-docker", "127.0.0.1:1/none:none"]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("image_missing"), Some(20)), "{error}");
}

#[test]
fn no_daemon_is_a_missing_prerequisite() {
    let spctl = Spctl::new();
    workspace(&spctl, PLUGIN);
    let output = spctl
        .command(&["build", "source/plugin", "--in-docker", "rust:1", "--output", "json"])
        .env("DOCKER_HOST", format!("unix://{}/no.sock", spctl.home.path().display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(20));
    let envelope: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(envelope["error"]["code"], "docker_missing");
}

/// A plugin that takes for ever to compile.
const ENDLESS: &str = "#![allow(long_running_const_eval)]\nconst N: u64 = { let mut n = 0; while n < u64::MAX { n += 1 } n };\n#[unsafe(no_mangle)]\npub extern \"C\" fn n() -> u64 { N }\n";

#[test]
fn an_interrupted_build_leaves_no_container_and_a_killed_one_is_found() {
    let Some(rust) = rust() else { return };
    let spctl = Spctl::new();
    workspace(&spctl, ENDLESS);
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(130)), ("-KILL", None)] {
        let mut build = spctl
            .command(&["build", "source/plugin", "--in-docker", &rust])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while left().is_empty() {
            assert!(Instant::now() < deadline, "the container is not there");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(500));
        assert!(Command::new("kill").args([signal, &build.id().to_string()]).status().unwrap().success());
        assert_eq!(build.wait().unwrap().code(), code, "{signal}");
        if code.is_some() {
            none_left(build.id());
            continue;
        }
        let stale = |args: &[&str]| {
            let ended = spctl.run(&[&["doctor", "--output", "json", "--quiet"], args].concat());
            let envelope: Value = serde_json::from_str(&ended.stdout).unwrap();
            let findings = envelope["data"]["findings"].as_array().unwrap().clone();
            findings.into_iter().find(|f| f["code"] == "container_stale" && f["why"].to_string().contains("build"))
        };
        assert_eq!(stale(&[]).unwrap()["fixed"], false);
        assert_eq!(stale(&["--fix"]).unwrap()["fixed"], true);
        none_left(build.id());
    }
}
