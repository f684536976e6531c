//! The surface: help, version, envelope, exit codes.

use serde_json::Value;

use crate::common::{Spctl, harnesses};

pub const VERBS: &[&str] = &[
    "quickstart",
    "run",
    "build",
    "reload",
    "status",
    "logs",
    "captures",
    "push",
    "pull",
    "inspect",
    "login",
    "logout",
    "config",
    "demo",
    "doctor",
    "down",
    "completions",
];

#[test]
fn help_names_every_command_and_exit_code() {
    let spctl = Spctl::new();
    let help = spctl.run(&["--help"]);
    assert_eq!(help.code, 0);
    for verb in VERBS {
        assert!(help.stdout.lines().any(|line| line.trim_start().starts_with(verb)), "{verb}\n{}", help.stdout);
        let own = spctl.run(&[verb, "--help"]);
        assert_eq!(own.code, 0, "{verb}");
        assert!(own.stdout.contains("Usage: spctl"), "{verb}: {}", own.stdout);
    }
    for (code, meaning) in spctl::error::exit::TABLE {
        assert!(help.stdout.contains(&format!("{code}  {meaning}")), "{code}");
    }
}

#[test]
fn version_is_one_line() {
    assert_eq!(Spctl::new().run(&["--version"]).stdout, format!("spctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn misuse_is_exit_two_in_both_formats() {
    let spctl = Spctl::new();
    assert_eq!(spctl.run(&["frobnicate"]).code, 2);
    let error = spctl.error(&["run", "--no-such-flag"]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("usage"), Some(2)));
    assert_eq!(spctl.error(&["run", "--detach", "--upstream", "example.com"])["code"], "usage");
    assert_eq!(spctl.error(&["status", "--name", "a/../b"])["exit"], 21);
}

#[test]
fn nothing_running_is_exit_21_with_what_to_do() {
    let spctl = Spctl::new();
    for args in [
        &["reload"][..],
        &["logs"],
        &["captures", "list"],
        &["captures", "show", "00"],
        &["down"],
        &["status", "--name", "x"],
    ] {
        let error = spctl.error(args);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("not_running"), Some(21)), "{args:?}");
        assert!(error["hint"].as_str().unwrap().contains("spctl quickstart"), "{error}");
    }
    // Asking what runs is no error when the answer is nothing.
    assert_eq!(spctl.data(&["status"])["instances"], Value::Array(vec![]));
}

#[test]
fn errors_as_text_have_message_and_hint() {
    let ended = Spctl::new().run(&["down"]);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("error: nothing is running under the name `default`\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: start one with `spctl quickstart`"), "{}", ended.stderr);
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Spctl::new().run(&["completions", shell]);
        assert!(script.code == 0 && script.stdout.contains("quickstart"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let spctl = Spctl::new();
    let shell = std::process::Command::new("sh")
        .args([
            "-c",
            "\"$0\" completions bash | head -c 10 >/dev/null; \"$0\" --help | head -n 1",
            env!("CARGO_BIN_EXE_spctl"),
        ])
        .env("SPCTL_HOME", spctl.home.path())
        .output()
        .unwrap();
    assert!(shell.status.success() && shell.stderr.is_empty(), "{}", String::from_utf8_lossy(&shell.stderr));
}

#[test]
fn a_plain_proxy_without_any_plugin() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        let data = spctl.data(&["run", "--detach", "--no-plugin", "--harness", harness]);
        assert_eq!(data["instances"][0]["state"], "running", "{harness}: {data}");
        assert_eq!(spctl.status()["plugins"].as_array().unwrap().len(), 0, "{harness}");
    }
}
