//! `run -c`: users' own bootstraps, as courses and blogs have them.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::{Spctl, address, harnesses, runtime, testdata};

/// A course's file: a bare router, a string as configuration, a container's path.
fn course(wasm: &str, upstream: std::net::SocketAddr) -> String {
    format!(
        r#"
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
          codec_type: AUTO
          route_config:
            name: local_route
            virtual_hosts:
            - name: local_service
              domains: ["*"]
              routes:
              - match: {{path: "/renamed"}}
                route: {{cluster: httpbin, prefix_rewrite: "/anything", timeout: 5s}}
              - match: {{prefix: "/"}}
                route: {{cluster: httpbin, host_rewrite_literal: httpbin.org}}
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: rust_header
                root_id: rust_header
                configuration: '{{"response_headers": [{{"add": [2, "x-training", "envoy-wasm"]}}]}}'
                vm_config: {{vm_id: v, runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {wasm}}}}}}}
          - name: envoy.filters.http.router
  clusters:
  - name: httpbin
    type: STRICT_DNS
    connect_timeout: 1s
    load_assignment:
      cluster_name: httpbin
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]
"#,
        upstream.ip(),
        upstream.port()
    )
}

fn script() -> PathBuf {
    spctl::builder::build(&testdata().join("guests/script"), &|_| ()).unwrap().path
}

/// Status, `x-training` and the body of a GET.
fn get(proxy: std::net::SocketAddr, path: &str) -> (u16, Option<String>, Value) {
    use http_body_util::BodyExt;
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "example.test").body(String::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let training = response.headers().get("x-training").map(|v| v.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, training, serde_json::from_slice(&body).unwrap_or_default())
    })
}

#[test]
fn a_course_file_is_explained_repaired_and_the_same_everywhere() {
    let upstream = Spctl::new();
    let data = upstream.data(&["run", "--detach", "--no-plugin"]);
    let upstream_at = address(&data["instances"][0]["proxy_url"]);
    let wasm = script();
    let (dir, name) = (wasm.parent().unwrap(), wasm.file_name().unwrap().to_str().unwrap());
    let mut seen = Vec::new();
    for harness in harnesses() {
        let spctl = Spctl::new();
        let file = spctl.file("envoy.yaml", course(&format!("/etc/envoy/wasm/{name}"), upstream_at));
        let file = file.to_str().unwrap();
        let run = ["run", "--detach", "--harness", harness, "-c", file];

        let error = spctl.error(&run);
        assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("config_outdated"), Some(10)), "{error}");
        let causes = error["causes"].to_string();
        assert!(causes.contains("http_filters[1].typed_config") && causes.contains("found by type"), "{causes}");

        let error = spctl.error(&[&run[..], &["--fix"]].concat());
        assert_eq!(error["code"], "config_rejected", "{error}");
        assert!(error["message"].as_str().unwrap().contains("--map /etc/envoy/wasm="), "{error}");

        let map = format!("/etc/envoy/wasm={}", dir.display());
        let data = spctl.data(&[&run[..], &["--fix", "--map", &map]].concat());
        let proxy = address(&data["instances"][0]["proxy_url"]);
        let (status, training, body) = get(proxy, "/headers");
        assert_eq!((status, training.as_deref()), (200, Some("envoy-wasm")), "{harness}");
        assert_eq!(body["headers"]["Host"], "httpbin.org", "{harness}");
        let (status, _, renamed) = get(proxy, "/renamed");
        assert_eq!(
            (status, renamed["url"].as_str().unwrap().ends_with("/anything")),
            (200, true),
            "{harness}: {renamed}"
        );
        let names = |body: &Value| -> Vec<String> { body["headers"].as_object().unwrap().keys().cloned().collect() };
        seen.push([names(&body), names(&renamed)]);

        // Its inline filter can be replaced while it runs.
        let config = spctl.file("new.json", r#"{"response_headers": [{"add": [2, "x-training", "reloaded"]}]}"#);
        let reloaded = spctl.data(&["reload", "--config", config.to_str().unwrap()]);
        assert_eq!(reloaded["changed"], true, "{harness}");
        assert_eq!(get(proxy, "/headers").1.as_deref(), Some("reloaded"), "{harness}");
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "the upstream saw other headers: {seen:?}");
}

/// Every string, number and nested value of a bootstrap's metadata reads the
/// same on each harness.
#[test]
fn plugins_read_what_the_bootstrap_says_of_itself() {
    let upstream = Spctl::new();
    let data = upstream.data(&["run", "--detach", "--no-plugin"]);
    let upstream_at = address(&data["instances"][0]["proxy_url"]);
    let paths = [
        "node,id",
        "node,cluster",
        "node,locality,zone",
        "node,metadata,NAME",
        "node,metadata,LABELS,app",
        "node,metadata,PORTS,1",
        "node,metadata,READY",
        "node,metadata,NONE",
        "listener_metadata,filter_metadata,lab,team",
        "route_metadata,filter_metadata,lab,cost",
        "route_metadata",
        "cluster_metadata,filter_metadata,lab,deep,er",
        "cluster_metadata,filter_metadata,other",
        "route_name",
        "virtual_host_name",
    ];
    let ops: Vec<_> = paths.map(|path| format!(r#"{{"property": ["xds", "{}"]}}"#, path.replace(',', "\", \""))).into();
    let script = format!(r#"{{"request_headers": [{}], "configure": [{}]}}"#, ops.join(", "), ops[..8].join(", "));
    let node = "node: {id: n-1, cluster: c-1, locality: {zone: z-1}, metadata: {NAME: pod-1, LABELS: {app: shop}, PORTS: [80, 81.5], READY: true, NONE: null}}\n";
    let text = course(script_wasm().as_str(), upstream_at)
        .replace(r#"'{"response_headers": [{"add": [2, "x-training", "envoy-wasm"]}]}'"#, &format!("'{script}'"))
        .replace("  - name: main\n", "  - name: main\n    metadata: {filter_metadata: {lab: {team: blue}}}\n")
        .replace("              - match: {prefix: \"/\"}\n", "              - match: {prefix: \"/\"}\n                name: all\n                metadata: {filter_metadata: {lab: {cost: 2.5}}}\n")
        .replace("    connect_timeout: 1s\n", "    connect_timeout: 1s\n    metadata: {filter_metadata: {lab: {deep: {er: here}}}}\n");
    let mut seen = Vec::new();
    for harness in harnesses() {
        let spctl = Spctl::new();
        let file = spctl.file("envoy.yaml", format!("{node}{text}"));
        let data = spctl.data(&[
            "run",
            "--detach",
            "--fix",
            "--workers",
            "1",
            "--harness",
            harness,
            "-c",
            file.to_str().unwrap(),
        ]);
        assert_eq!(get(address(&data["instances"][0]["proxy_url"]), "/headers").0, 200, "{harness}");
        let mut lines = properties(&spctl);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !lines.iter().any(|line| line.contains("virtual_host_name")) && std::time::Instant::now() < deadline {
            lines = properties(&spctl);
        }
        // How many VMs are configured, and when, is not the subject.
        lines.sort();
        lines.dedup();
        for wanted in [
            "node.metadata.LABELS.app -> 0 shop",
            "listener_metadata.filter_metadata.lab.team -> 0 blue",
            "route_name -> 0 all",
        ] {
            assert!(lines.iter().any(|line| line.ends_with(wanted)), "{harness}: {wanted}: {lines:#?}");
        }
        seen.push(lines);
    }
    for other in &seen[1..] {
        assert_eq!(other, &seen[0]);
    }
}

fn properties(spctl: &Spctl) -> Vec<String> {
    let logs = spctl.run(&["logs", "--output", "json"]).stdout;
    let lines = logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["message"].clone());
    lines.filter_map(|line| line.as_str().filter(|line| line.starts_with("property")).map(str::to_owned)).collect()
}

fn script_wasm() -> String {
    script().to_str().unwrap().to_owned()
}

#[test]
fn what_the_embedded_harness_does_not_support_is_refused_by_key() {
    let spctl = Spctl::new();
    let wasm = script();
    let text = course(wasm.to_str().unwrap(), "127.0.0.1:9".parse().unwrap())
        .replace("connect_timeout: 1s", "connect_timeout: 1s\n    outlier_detection: {}");
    let file = spctl.file("envoy.yaml", text);
    let error = spctl.error(&["run", "--detach", "--fix", "-c", file.to_str().unwrap()]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("config_rejected"), Some(10)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("clusters[0].outlier_detection"), "{error}");
}

/// A capability that is not given is a call that does nothing, on every harness;
/// a key that would be lost is refused.
#[test]
fn what_a_plugin_may_use_is_handed_on_and_nothing_is_lost_in_silence() {
    let wasm = script();
    for harness in harnesses() {
        for (allowed, header) in [("{proxy_on_vm_start: {}}", None), ("{}", Some("envoy-wasm"))] {
            let spctl = Spctl::new();
            let demo = Spctl::new();
            demo.data(&["run", "--detach", "--no-plugin"]);
            let upstream = address(&demo.status()["proxy_url"]);
            let restricted = format!("vm_id: v, capability_restriction_config: {{allowed_capabilities: {allowed}}}, ");
            let text = course(wasm.to_str().unwrap(), upstream).replace("vm_id: v, ", &restricted);
            let file = spctl.file("envoy.yaml", &text);
            spctl.data(&["run", "--detach", "--fix", "--harness", harness, "-c", file.to_str().unwrap()]);
            let (status, training, _) = get(address(&spctl.status()["proxy_url"]), "/get");
            assert_eq!((status, training.as_deref()), (200, header), "{harness} {allowed}");
            spctl.data(&["down"]);
        }
        let spctl = Spctl::new();
        let text = course(wasm.to_str().unwrap(), "127.0.0.1:9".parse().unwrap())
            .replace("root_id: rust_header", "root_id: rust_header\n                reload_config: {}");
        let file = spctl.file("envoy.yaml", text);
        let error = spctl.error(&["run", "--detach", "--fix", "--harness", harness, "-c", file.to_str().unwrap()]);
        assert!(error["message"].as_str().unwrap().contains("typed_config.config.reload_config"), "{error}");
    }
}

#[test]
fn a_file_that_is_none() {
    let spctl = Spctl::new();
    let file = spctl.file("envoy.yaml", "static_resources: [unclosed");
    let error = spctl.error(&["run", "--detach", "-c", file.to_str().unwrap()]);
    assert_eq!((error["code"].as_str(), error["exit"].as_u64()), (Some("config_unparsable"), Some(10)), "{error}");
}
