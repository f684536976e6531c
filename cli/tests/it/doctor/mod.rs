//! `doctor` against real faults: each found with its evidence, some mended.

mod bootstrap;
mod instance;
mod machine;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::Spctl;

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

/// The finding of that code, with this in its evidence, of that severity; it
/// says why and what to do.
#[track_caller]
fn expect<'a>(findings: &'a [Value], code: &str, severity: &str, evidence: &str) -> &'a Value {
    let of = |finding: &&Value| finding["code"] == code && finding["evidence"].as_str().unwrap().contains(evidence);
    let finding = findings.iter().find(of).unwrap_or_else(|| panic!("no {code} with {evidence}: {findings:#?}"));
    assert_eq!(finding["severity"], severity, "{finding}");
    assert!(!finding["why"].as_str().unwrap().is_empty() && !finding["fix"].as_str().unwrap().is_empty(), "{finding}");
    finding
}

/// Imports what Envoy 1.37 does not have.
const TOO_NEW: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_pread" (func (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "proxy_on_context_create") (param i32 i32)))"#;

/// An Envoy of the past.
fn old_envoy() -> Option<String> {
    let old = crate::common::envoys().into_iter().find(|path| path.to_string_lossy().contains("1.37"));
    if old.is_none() {
        eprintln!("SKIPPED: no Envoy 1.37 (SPCTL_TEST_ENVOYS is not set; .ci/test sets it)");
    }
    old.map(|path| path.display().to_string())
}
