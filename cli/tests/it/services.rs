//! `WasmService` in users' own bootstraps: taken on every harness, shown by
//! `status` and `logs`, reloaded where that can be, examined by `doctor`.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::{Spctl, address, ask, harnesses, testdata};

/// A singleton that shares its configuration with the filter before a local answer.
fn bootstrap(wasm: &str, vm_id: &str) -> String {
    format!(
        r#"
bootstrap_extensions:
- name: envoy.bootstrap.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService
    singleton: true
    config:
      name: poller
      root_id: poller
      configuration:
        "@type": type.googleapis.com/google.protobuf.StringValue
        value: '{{"configure": [{{"shared_set": ["word", "first", 0]}}, {{"log": "configured"}}]}}'
      vm_config:
        vm_id: both
        runtime: envoy.wasm.runtime.v8
        code: {{local: {{filename: {wasm}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, direct_response: {{status: 200}}}}]}}]
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: reader
                root_id: reader
                configuration:
                  "@type": type.googleapis.com/google.protobuf.StringValue
                  value: '{{"request_headers": [{{"if": {{"shared": ["word", "first"]}}, "then": [{{"reply": {{"status": 201}}}}], "else": [{{"reply": {{"status": 202}}}}]}}]}}'
                vm_config: {{vm_id: {vm_id}, runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {wasm}}}}}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )
}

fn script() -> PathBuf {
    spctl::builder::build(&testdata().join("guests/script"), &|_| ()).unwrap().path
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name}: {list}"))
}

#[test]
fn a_service_runs_beside_its_filters_and_is_shown() {
    let wasm = script();
    let map = format!("/etc/envoy/wasm={}", wasm.parent().unwrap().display());
    let inside = format!("/etc/envoy/wasm/{}", wasm.file_name().unwrap().to_str().unwrap());
    for harness in harnesses() {
        let spctl = Spctl::new();
        let file = spctl.file("envoy.yaml", bootstrap(&inside, "both"));
        let file = file.to_str().unwrap();
        let data = spctl.data(&["run", "--detach", "--harness", harness, "-c", file, "--map", &map]);
        let proxy = address(&data["instances"][0]["proxy_url"]);
        assert_eq!(ask(proxy, "GET", "/").status, 201, "{harness}");

        let status = spctl.status();
        assert_eq!(status["state"], "running", "{harness}");
        assert_eq!(named(&status["plugins"], "poller")["role"], "singleton", "{harness}");
        assert_eq!(named(&status["plugins"], "reader")["role"], "filter", "{harness}");
        let wanted = &named(&status["plugins"], "poller")["plugin_digest"];
        let served = &status["proxies"][0]["plugins"];
        assert_eq!(&named(served, "poller")["plugin_digest"], wanted, "{harness}");
        let shown = spctl.run(&["status"]).stdout;
        assert!(shown.contains("poller (singleton service)"), "{harness}: {shown}");

        let logs = spctl.run(&["logs"]).stdout;
        assert!(logs.lines().any(|line| line.contains("poller") && line.ends_with("configured")), "{harness}: {logs}");

        let new = spctl.file("new.json", r#"{"configure": [{"shared_set": ["word", "second", 0]}]}"#);
        let config = format!("poller={}", new.display());
        let reload = ["reload", "--config", &config];
        if harness == "embedded" {
            let done = spctl.data(&reload);
            assert_eq!(
                (&done["changed"], &done["proxies"][0]["proof"]),
                (&true.into(), &"the main thread runs it".into())
            );
            assert_eq!(ask(proxy, "GET", "/").status, 202);
        } else {
            let error = spctl.error(&reload);
            assert_eq!((&error["code"], &error["exit"]), (&"service_not_reloadable".into(), &2.into()), "{error}");
            assert_eq!(ask(proxy, "GET", "/").status, 201, "{harness}");
        }
        // The filter beside it can be reloaded everywhere.
        let new = spctl.file("new.json", r#"{"request_headers": [{"reply": {"status": 203}}]}"#);
        spctl.data(&["reload", "--config", &format!("reader={}", new.display())]);
        assert_eq!(ask(proxy, "GET", "/").status, 203, "{harness}");
    }
}

#[test]
fn services_alone_need_no_listener() {
    let wasm = script();
    let text = bootstrap(wasm.to_str().unwrap(), "both");
    let text = text.split("static_resources:").next().unwrap().to_owned();
    for harness in harnesses() {
        let spctl = Spctl::new();
        let file = spctl.file("envoy.yaml", &text);
        let run = spctl.run(&["run", "--detach", "--harness", harness, "-c", file.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{harness}: {}", run.stderr);
        assert!(
            run.stdout.contains("poller (singleton service)") && run.stdout.contains("spctl logs"),
            "{}",
            run.stdout
        );
        assert!(spctl.run(&["logs"]).stdout.contains("configured"), "{harness}");
    }
}

#[test]
fn other_extensions_of_the_bootstrap_are_refused_by_key() {
    let spctl = Spctl::new();
    let other = "bootstrap_extensions: [{name: a, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener}}]";
    let file = spctl.file("envoy.yaml", other);
    let error = spctl.error(&["run", "--detach", "-c", file.to_str().unwrap()]);
    assert_eq!(error["code"], "config_rejected", "{error}");
    assert!(error["message"].as_str().unwrap().contains("bootstrap_extensions[0].typed_config"), "{error}");
}

#[test]
fn doctor_looks_at_services_too() {
    let spctl = Spctl::new();
    let file = spctl.file("envoy.yaml", bootstrap("/nowhere/service.wasm", "another"));
    let ended = spctl.run(&["doctor", "--quiet", "--output", "json", "-c", file.to_str().unwrap()]);
    let envelope: Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings = envelope["data"]["findings"].as_array().unwrap();
    let evidence = |code: &str| -> Vec<&str> {
        let of = findings.iter().filter(|finding| finding["code"] == code);
        of.map(|finding| finding["evidence"].as_str().unwrap()).collect()
    };
    assert!(evidence("plugin_file_missing").iter().any(|seen| seen.contains("`poller`")), "{findings:?}");
    assert_eq!(evidence("service_alone"), ["the service `poller` has the vm_id `both`; `reader` has `another`"]);
}
