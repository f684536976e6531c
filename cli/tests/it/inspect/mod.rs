//! What `inspect` says of modules, and whether real Envoys agree.

mod hosts;
mod makers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{Spctl, envoys};

/// The verdicts of `loads_in`: host and version to what stands against it.
pub fn verdicts(inspected: &Value) -> BTreeMap<String, Option<String>> {
    let list = inspected["loads_in"].as_array().unwrap();
    let verdicts = list.iter().map(|host| {
        assert_eq!(host["ok"] == true, host["why"].is_null(), "{host}");
        assert!(!host["source"].as_str().unwrap().is_empty(), "{host}");
        let name = match host["host"].as_str().unwrap() {
            "embedded" => "embedded".to_owned(),
            other => format!("{other} {}", host["version"].as_str().unwrap()),
        };
        (name, host["why"].as_str().map(str::to_owned))
    });
    verdicts.collect()
}

/// A real Envoy and how `inspect` calls it: `envoy 1.40`.
pub fn real_envoys() -> Vec<(String, PathBuf)> {
    let name = |path: &Path| {
        let said = Command::new(path).arg("--version").output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version =
            said.split("version:").nth(1).unwrap().split('/').nth(1).unwrap().rsplit_once('.').unwrap().0.to_owned();
        format!("envoy {version}")
    };
    envoys().into_iter().map(|path| (name(&path), path)).collect()
}

/// Whether this Envoy loads, starts and configures the module; else its words.
pub fn loads(envoy: &Path, module: &Path) -> Result<(), String> {
    let template = include_str!("../../../../templates/envoy/wasm-check.yaml");
    let (before, rest) = template.split_once("inline_bytes: \"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    let config = module.with_extension(format!("{}.yaml", std::process::id()));
    std::fs::write(&config, format!("{before}filename: \"{}\"{after}", module.display())).unwrap();
    let ended = Command::new(envoy)
        .args(["--mode", "validate", "--disable-hot-restart", "-l", "error", "-c"])
        .arg(&config)
        .output()
        .unwrap();
    std::fs::remove_file(config).unwrap();
    if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
}

/// What V8 has of WebAssembly and the embedded host has not; it says so.
pub const ENVOY_ALONE: &[&str] = &["no memory", "gc", "exceptions"];

/// Where `inspect`'s verdicts on a module differ from what every real Envoy
/// here does, and the embedded host from the first of them.
pub fn differences(spctl: &Spctl, what: &str, module: &Path) -> Vec<String> {
    let inspected = spctl.data(&["inspect", module.to_str().unwrap()]);
    let verdicts = verdicts(&inspected);
    let mut found = Vec::new();
    if ENVOY_ALONE.contains(&what) {
        assert!(verdicts["embedded"].is_some(), "{what}: the embedded host takes it by now");
    }
    for (at, (name, path)) in real_envoys().into_iter().enumerate() {
        let real = loads(&path, module);
        let names =
            if at == 0 && !ENVOY_ALONE.contains(&what) { vec![name.as_str(), "embedded"] } else { vec![name.as_str()] };
        for ours in names {
            let verdict = &verdicts[ours];
            if real.is_ok() != verdict.is_none() {
                found.push(format!("{what}: {name} says {real:?}, for {ours} inspect says {verdict:?}"));
            }
        }
    }
    found
}

#[test]
fn a_module_writes_nothing_but_text_on_the_terminal() {
    let spctl = Spctl::new();
    let text = r#"(module (import "env" "\1b]0;mine\07\1b[2J\nloads in" (func)) (export "\1b[31mred" (func 0)))"#;
    let module = spctl.file("evil.wasm", wat::parse_str(text).unwrap());
    let ended = spctl.run(&["inspect", module.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stdout.contains(['\x1b', '\x07']), "{:?}", ended.stdout);
    assert_eq!(ended.stdout.lines().filter(|line| line.starts_with("loads in")).count(), 1, "{}", ended.stdout);
}
