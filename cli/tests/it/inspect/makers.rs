//! Modules of several SDK versions and toolchains, each built here from a small
//! source: who made them, and whether real Envoys agree on where they load.
//!
//! TinyGo is not among them: no package registry has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{differences, real_envoys};
use crate::common::{Spctl, testdata, tool};

/// Builds a source directory with `spctl build`.
fn built(spctl: &Spctl, source: &str) -> PathBuf {
    let data = spctl.data(&["build", testdata().join(source).to_str().unwrap()]);
    PathBuf::from(data["path"].as_str().unwrap())
}

/// A compiler's run in the home of `spctl`.
#[track_caller]
fn compile(spctl: &Spctl, program: &Path, args: &[&str]) {
    let ended = Command::new(program).args(args).current_dir(spctl.home.path()).output().unwrap();
    assert!(ended.status.success(), "{program:?}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// What is said of a module, held against every real Envoy here.
#[track_caller]
fn inspected(spctl: &Spctl, what: &str, module: &Path) -> Value {
    let wrong = differences(spctl, what, module);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let data = spctl.data(&["inspect", module.to_str().unwrap()]);
    for host in data["loads_in"].as_array().unwrap() {
        assert_eq!(host["ok"], true, "{what}: {host}");
    }
    data
}

#[test]
fn rust_modules_tell_their_sdk_and_its_version() {
    let spctl = Spctl::new();
    for (source, abi, version) in [
        ("makers/rust_sdk_0_1_4", "0.1.0", "0.1.4"),
        ("makers/rust_sdk_0_2_0", "0.2.1", "0.2.0"),
        ("guests/noop", "0.2.1", "0.2.5"),
    ] {
        let data = inspected(&spctl, source, &built(&spctl, source));
        assert_eq!(data["abi"], abi, "{source}");
        let sdk = serde_json::json!({"name": "proxy-wasm-rust-sdk", "version": version});
        assert_eq!((&data["sdk"], &data["language"], &data["root_ids"]), (&sdk, &"Rust".into(), &"any".into()));
        assert!(data["compiler"].as_str().unwrap().starts_with("rustc "), "{data}");
    }
}

#[test]
fn the_capture_filter_is_known_though_it_is_stripped() {
    let spctl = Spctl::new();
    let module = spctl.file("capture.wasm", &*spctl::bundle::capture().bytes);
    let data = inspected(&spctl, "capture", &module);
    assert_eq!(data["sdk"]["name"], "proxy-wasm-rust-sdk");
    assert_eq!(data["plugin_digest"], spctl::bundle::capture().digest);
    let groups: Vec<&str> =
        data["imports"].as_array().unwrap().iter().map(|import| import["group"].as_str().unwrap()).collect();
    assert!(groups.contains(&"proxy-wasm") && !groups.contains(&"other"), "{groups:?}");
}

#[test]
fn go_modules_tell_their_compiler() {
    if spctl::toolchain::on_path("go").is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI needs Go");
        eprintln!("SKIPPED: no Go on PATH");
        return;
    }
    let spctl = Spctl::new();
    let data = inspected(&spctl, "go", &built(&spctl, "guests/go_headers"));
    assert_eq!((&data["language"], &data["sdk"]), (&"Go".into(), &Value::Null));
    assert!(data["compiler"].as_str().unwrap().contains("go1."), "{data}");
}

#[test]
fn cpp_modules_tell_their_compiler() {
    let Some(clang) = tool("SPCTL_TEST_CLANG", "clang++ with wasm-ld") else { return };
    let spctl = Spctl::new();
    let source = testdata().join("makers/cpp_headers/plugin.cc");
    let options =
        ["--target=wasm32", "-O2", "-nostdlib", "-fno-exceptions", "-fno-rtti", "-Wl,--no-entry", "-o", "cpp.wasm"];
    compile(&spctl, &clang, &[&options[..], &[source.to_str().unwrap()]].concat());
    let data = inspected(&spctl, "c++", &spctl.home.path().join("cpp.wasm"));
    assert_eq!(data["language"], "C++", "{data}");
    assert!(data["compiler"].as_str().unwrap().contains("clang"), "{data}");
}

#[test]
fn assemblyscript_modules_tell_their_sdk() {
    let Some(packages) = tool("SPCTL_TEST_ASC", "a directory with npm's assemblyscript and @solo-io/proxy-runtime")
    else {
        return;
    };
    let spctl = Spctl::new();
    std::os::unix::fs::symlink(packages.join("node_modules"), spctl.home.path().join("node_modules")).unwrap();
    std::fs::copy(testdata().join("makers/as_headers/plugin.ts"), spctl.home.path().join("plugin.ts")).unwrap();
    let compiler = packages.join("node_modules/.bin/asc");
    let options = ["plugin.ts", "-b", "as.wasm", "--optimize", "--use", "abort=abort_proc_exit"];
    compile(&spctl, &compiler, &options);
    let data = inspected(&spctl, "assemblyscript", &spctl.home.path().join("as.wasm"));
    assert_eq!(data["language"], "AssemblyScript", "{data}");
    assert_eq!(data["sdk"]["name"], "solo-io/proxy-runtime", "{data}");
}

#[test]
fn the_versions_told_of_include_the_envoys_that_are_here() {
    let spctl = Spctl::new();
    let module = spctl.file("capture.wasm", &*spctl::bundle::capture().bytes);
    let verdicts = super::verdicts(&spctl.data(&["inspect", module.to_str().unwrap()]));
    for (name, _) in real_envoys() {
        assert!(verdicts.contains_key(&name), "{name}: {verdicts:?}");
    }
}
