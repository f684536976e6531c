//! What is wrong with a user's own bootstrap, before anything runs it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::Router;

use super::{TOO_NEW, doctor, expect, find, old_envoy};
use crate::common::{Spctl, envoy, runtime};

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

/// A bootstrap of today whose one plugin has this code and configuration.
fn bootstrap(spctl: &Spctl, port: u16, code: &str) -> PathBuf {
    spctl.file(
        "envoy.yaml",
        format!(
            r#"
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, direct_response: {{status: 200}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: mine
                vm_config: {{runtime: envoy.wasm.runtime.v8, code: {code}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
        ),
    )
}

fn file(spctl: &Spctl, wat: &str) -> (PathBuf, PathBuf) {
    let module = spctl.file("mine.wasm", wat::parse_str(wat).unwrap());
    let code = format!("{{local: {{filename: {}}}}}", module.display());
    (bootstrap(spctl, 0, &code), module)
}

fn examined(spctl: &Spctl, file: &Path, more: &[&str]) -> (i32, Vec<serde_json::Value>) {
    doctor(spctl, &[&["-c", file.to_str().unwrap()], more].concat())
}

const FIT: &str = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "proxy_on_context_create") (param i32 i32)))"#;

#[test]
fn a_bootstrap_that_works() {
    let spctl = Spctl::new();
    let (yaml, module) = file(&spctl, FIT);
    public(&spctl, &module);
    let (exit, findings) = examined(&spctl, &yaml, &[]);
    assert_eq!(exit, 0, "{findings:?}");
    assert!(!findings.iter().any(|f| f["code"].as_str().unwrap().starts_with("plugin")), "{findings:?}");
}

fn public(spctl: &Spctl, module: &Path) {
    std::fs::set_permissions(spctl.home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(module, PermissionsExt::from_mode(0o644)).unwrap();
}

#[test]
fn a_plugin_of_another_abi_or_of_none() {
    for (marker, code) in [("proxy_abi_version_9_9_9", "plugin_no_abi"), ("nothing", "plugin_no_abi")] {
        let spctl = Spctl::new();
        let (yaml, _) = file(&spctl, &FIT.replace("proxy_abi_version_0_2_1", marker));
        let (exit, findings) = examined(&spctl, &yaml, &[]);
        assert_eq!(exit, 3, "{findings:?}");
        expect(&findings, code, "error", "0.2.1");
    }
}

#[test]
fn a_plugin_that_refuses_its_configuration() {
    let spctl = Spctl::new();
    let refusal = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 0) (memory"#;
    let refusing = FIT.replacen("(memory", refusal, 1);
    let (yaml, _) = file(&spctl, &refusing);
    let (exit, findings) = examined(&spctl, &yaml, &[]);
    assert_eq!(exit, 3, "{findings:?}");
    expect(&findings, "configure_refused", "error", "proxy_on_configure");
}

#[test]
fn an_envoy_too_old_for_an_import() {
    let (Some(old), Some(_)) = (old_envoy(), envoy()) else { return };
    let spctl = Spctl::new();
    let (yaml, _) = file(&spctl, TOO_NEW);
    let (exit, findings) = examined(&spctl, &yaml, &["--envoy-path", &old]);
    assert_eq!(exit, 3, "{findings:?}");
    expect(&findings, "plugin_too_new", "error", "fd_pread");
    assert!(find(&examined(&spctl, &yaml, &[]).1, "plugin_too_new").is_none());
}

#[test]
fn a_file_that_envoys_user_cannot_read() {
    let spctl = Spctl::new();
    let (yaml, module) = file(&spctl, FIT);
    public(&spctl, &module);
    let readable = |module: &Path| {
        let mut cat = Command::new("cat");
        cat.arg(module).uid(101).gid(101);
        rustix::process::getuid().is_root().then(|| cat.output().unwrap().status.success())
    };
    assert_ne!(readable(&module), Some(false));
    std::fs::set_permissions(&module, PermissionsExt::from_mode(0o600)).unwrap();
    assert_ne!(readable(&module), Some(true));
    expect(&examined(&spctl, &yaml, &[]).1, "plugin_file_private", "note", "mine.wasm has mode 600");
    public(&spctl, &module);
    std::fs::set_permissions(spctl.home.path(), PermissionsExt::from_mode(0o700)).unwrap();
    assert_ne!(readable(&module), Some(true));
    let directory = format!("{} has mode 700", spctl.home.path().display());
    let findings = examined(&spctl, &yaml, &[]).1;
    let finding = expect(&findings, "plugin_file_private", "note", &directory);
    assert!(finding["fix"].as_str().unwrap().starts_with("`chmod a+x "), "{finding}");
}

#[test]
fn an_address_that_is_taken() {
    let spctl = Spctl::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (_, module) = file(&spctl, FIT);
    let yaml = bootstrap(&spctl, port, &format!("{{local: {{filename: {}}}}}", module.display()));
    let (exit, findings) = examined(&spctl, &yaml, &[]);
    assert_eq!(exit, 3, "{findings:?}");
    expect(&findings, "port_in_use", "error", &format!("static_resources.listeners[0]: 127.0.0.1:{port} is in use"));
    drop(taken);
    // An instance of ours may well be this very configuration.
    let listen = format!("127.0.0.1:{port}");
    spctl.data(&["run", "--detach", "--listen", &listen]);
    let (exit, findings) = examined(&spctl, &yaml, &[]);
    assert_eq!(exit, 0, "{findings:?}");
    expect(&findings, "port_in_use", "note", "by the instance `default`");
}

#[test]
fn a_remote_module_of_another_digest() {
    let (tx, rx) = std::sync::mpsc::channel();
    let bytes = wat::parse_str(FIT).unwrap();
    let digest = spctl::harness::Module::new(bytes.clone()).digest;
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tx.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, Router::new().fallback(move || async { bytes })).await.unwrap();
        });
    });
    let server = rx.recv().unwrap().port();
    let spctl = Spctl::new();
    // Fetched from its cluster, whatever host the URL names.
    let remote = |port: u16, sha256: &str| {
        let uri = "{uri: \"http://modules/mine.wasm\", cluster: modules, timeout: 5s}";
        let yaml = bootstrap(&spctl, 0, &format!("{{remote: {{http_uri: {uri}, sha256: \"{sha256}\"}}}}"));
        let clusters = format!(
            "static_resources:\n  clusters: [{{name: modules, connect_timeout: 1s, load_assignment: {{cluster_name: modules, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}]\n"
        );
        let text = std::fs::read_to_string(&yaml).unwrap().replacen("static_resources:\n", &clusters, 1);
        std::fs::write(&yaml, text).unwrap();
        yaml
    };
    let wrong = "0".repeat(64);
    let (exit, findings) = examined(&spctl, &remote(server, &wrong), &[]);
    assert_eq!(exit, 3, "{findings:?}");
    expect(&findings, "sha256_mismatch", "error", &digest);
    // Right, until the file beside is built anew.
    let (exit, findings) = examined(&spctl, &remote(server, &digest), &[]);
    assert_eq!((exit, find(&findings, "sha256_mismatch")), (0, None), "{findings:?}");
    spctl.file("mine.wasm", b"\0asm\x01\0\0\0");
    let (exit, findings) = examined(&spctl, &remote(server, &digest), &[]);
    assert_eq!(exit, 0, "{findings:?}");
    expect(&findings, "sha256_mismatch", "warning", "mine.wasm");
    expect(&examined(&spctl, &remote(9, &digest), &[]).1, "plugin_not_fetched", "warning", "modules/mine.wasm");
}
