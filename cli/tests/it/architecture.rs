//! Dependencies point one way; SDK types stay in their rooms. Crate
//! boundaries hold most of it, this test the rest.

use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{dir}");
    found
}

/// What each room of the library must not name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "src/adapters",
        &[
            "crate::commands",
            "crate::instance",
            "crate::harness",
            "crate::backend",
            "crate::ui",
            "crate::demo",
            "crate::oci",
            "crate::inspection",
        ],
    ),
    (
        "src/backend",
        &[
            "crate::commands",
            "crate::instance",
            "crate::harness",
            "crate::ui",
            "crate::demo",
            "spctl_proxy",
            "spctl_host",
        ],
    ),
    (
        "src/oci",
        &[
            "crate::commands",
            "crate::instance",
            "crate::ui",
            "crate::backend",
            "crate::demo",
            "crate::inspection",
            "spctl_proxy",
            "spctl_host",
        ],
    ),
    ("src/inspection", &["crate::commands", "crate::instance", "crate::harness", "crate::ui", "crate::adapters"]),
    (
        "src/bootstrap",
        &["crate::commands", "crate::instance", "crate::harness", "crate::ui", "crate::backend", "crate::demo"],
    ),
    ("src/doctor", &["crate::commands", "crate::ui", "crate::backend", "crate::demo", "spctl_proxy", "spctl_host"]),
    (
        "src/builder",
        &[
            "crate::commands",
            "crate::instance",
            "crate::ui",
            "crate::backend",
            "crate::demo",
            "spctl_proxy",
            "spctl_host",
        ],
    ),
    ("src/export", &["crate::commands", "crate::instance", "crate::harness", "crate::ui", "crate::demo"]),
    ("src/demo", &["crate::commands", "crate::instance", "crate::harness", "crate::ui", "crate::backend"]),
    ("src/logs", &["crate::commands", "crate::instance", "crate::harness", "crate::ui", "spctl_proxy", "spctl_host"]),
    (
        "src/filter_config",
        &["crate::commands", "crate::instance", "crate::harness", "crate::ui", "crate::backend", "crate::demo"],
    ),
    ("src/harness", &["crate::commands", "crate::instance", "crate::ui", "crate::backend", "crate::demo"]),
    ("src/instance", &["crate::commands", "crate::ui", "spctl_proxy", "spctl_host"]),
    ("src/commands", &["spctl_proxy", "spctl_host", "crate::harness::embedded", "crate::harness::envoy", "rusqlite"]),
    ("host/src", &["spctl::", "spctl_proxy", "spctl_plugin", "hyper", "tokio"]),
    ("proxy/src", &["spctl::", "spctl_plugin", "wasmtime"]),
    ("../plugin/src", &["spctl::", "spctl_host", "spctl_proxy"]),
];

#[test]
fn arrows_point_down() {
    for (room, names) in FORBIDDEN {
        for (path, text) in sources(room) {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for name in *names {
                    assert!(!code.contains(name), "{}:{} names {name}", path.display(), number + 1);
                }
            }
        }
    }
}

#[test]
fn commands_never_import_each_other() {
    for (path, text) in sources("src/commands") {
        for line in text.lines().filter(|line| line.starts_with("use ")) {
            assert!(
                !line.contains("crate::commands::") && !line.starts_with("use super::run"),
                "{}: {line}",
                path.display()
            );
        }
    }
}

#[test]
fn only_their_rooms_name_the_big_libraries() {
    for (name, room) in [
        ("wasmtime::", "host/src"),
        ("rusqlite::", "src/backend"),
        ("spctl_proxy::", "src/harness/embedded"),
        ("bollard::", "src/adapters/docker"),
        ("oras::", "src/adapters/registry"),
        ("reqwest::", "src/adapters/registry"),
        ("docker_credential::", "src/adapters/registry"),
        ("wasmparser::", "src/inspection"),
        ("indicatif::", "src/ui"),
        ("notify::", "src/commands/reload.rs"),
    ] {
        for dir in ["src", "host/src", "proxy/src"] {
            for (path, text) in sources(dir) {
                let shown = path.display().to_string();
                assert!(!text.contains(name) || shown.contains(room), "{shown} names {name}");
            }
        }
    }
}

#[test]
fn no_file_outgrows_a_head() {
    for dir in ["src", "host/src", "proxy/src", "../plugin/src"] {
        for (path, text) in sources(dir) {
            let lines = text.lines().count();
            assert!(lines <= 450, "{} has {lines} lines: split it by concept", path.display());
        }
    }
}
