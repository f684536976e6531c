//! Sending, answers, draining and detection, on the fake host.

use super::*;
use crate::host::fake::FakeHost;
use crate::metrics::*;

fn configured(config: &str) -> (FakeHost, Root<FakeHost>) {
    let host = FakeHost::new();
    let root = configure(&host, config);
    (host, root)
}

fn configure(host: &FakeHost, config: &str) -> Root<FakeHost> {
    host.set_buffer(Buffer::PluginConfiguration, config.as_bytes());
    host.set_map(Map::RequestHeaders, &[(":method", b"GET"), (":path", b"/"), (":authority", b"shop")]);
    host.set_map(Map::ResponseHeaders, &[(":status", b"200")]);
    let mut root = Root::new(host.clone());
    assert!(root.on_configure(config.len()));
    root
}

fn capture(root: &Root<FakeHost>) {
    let mut stream = root.stream(7).unwrap();
    stream.on_request_headers(true);
    stream.on_response_headers(true);
    stream.finish();
}

fn tick(host: &FakeHost, root: &mut Root<FakeHost>, ms: u64) {
    host.advance_ms(ms);
    root.on_tick();
}

fn last_token(host: &FakeHost) -> u32 {
    host.with(|s| s.calls.last().unwrap().token)
}

fn answer(host: &FakeHost, root: &mut Root<FakeHost>, status: &str) {
    host.set_map(Map::CallHeaders, &[(":status", status.as_bytes())]);
    root.on_call_answer(last_token(host), 1, 0);
}

/// captured = exported + Σ dropped + queued, and the gauge agrees.
fn assert_balanced(host: &FakeHost) {
    let dropped: i64 = NAMES.iter().filter(|n| n.starts_with(DROPPED_PREFIX)).map(|n| host.metric(n)).sum();
    assert_eq!(host.metric(CAPTURED), host.metric(EXPORTED) + dropped + host.metric(QUEUED));
}

#[test]
fn an_idle_filter_does_not_tick() {
    let (host, mut root) = configured("");
    assert_eq!(host.with(|s| s.tick_ms), 0);
    capture(&root);
    assert_eq!(host.with(|s| s.tick_ms), 50);
    tick(&host, &mut root, 50);
    answer(&host, &mut root, "200");
    assert_eq!(host.with(|s| s.tick_ms), 0);
    assert_eq!(host.metric(EXPORTED), 1);
    assert_balanced(&host);
}

#[test]
fn a_full_batch_wakes_the_root_at_once() {
    let (host, mut root) = configured(r#"{"limits": {"batch_exchanges": 2}}"#);
    capture(&root);
    capture(&root);
    assert_eq!(host.with(|s| s.tick_ms), 1);
    tick(&host, &mut root, 1);
    assert_eq!(host.with(|s| s.calls.len()), 1);
}

#[test]
fn uploads_go_where_the_configuration_says_with_the_key_it_says() {
    let config =
        r#"{"sp_backend_url": "https://b:8443/base", "public_key": "k", "auth": "both", "backend_cluster": "c"}"#;
    let (host, mut root) = configured(config);
    capture(&root);
    tick(&host, &mut root, 50);
    let call = host.with(|s| s.calls.remove(0));
    let header = |name: &str| call.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(call.cluster, "c");
    assert_eq!((header(":path"), header(":authority")), (Some("/base/v1/traces"), Some("b:8443")));
    assert_eq!((header(":scheme"), header(":method")), (Some("https"), Some("POST")));
    assert_eq!((header("x-public-key"), header("authorization")), (Some("k"), Some("Bearer k")));
    assert_eq!(header("content-type"), Some("application/x-protobuf"));
}

#[test]
fn an_empty_answer_is_a_failure_that_is_retried() {
    let (host, mut root) = configured("");
    capture(&root);
    tick(&host, &mut root, 50);
    root.on_call_answer(last_token(&host), 0, 0);
    assert_eq!((host.metric(EXPORT_FAILURES), host.metric(QUEUED)), (1, 1));
    tick(&host, &mut root, 500);
    assert_eq!(host.with(|s| s.calls.len()), 2);
    answer(&host, &mut root, "204");
    assert_eq!((host.metric(EXPORTED), host.metric(QUEUED)), (1, 0));
    assert_balanced(&host);
}

#[test]
fn an_unknown_cluster_is_retried_and_given_up_in_the_end() {
    let (host, mut root) = configured(r#"{"export": {"retry": {"max_age_ms": 2000}}}"#);
    host.with(|s| s.refuse_calls = true);
    capture(&root);
    (0..100).for_each(|_| tick(&host, &mut root, 100));
    assert_eq!((host.metric(DROPPED_RETRIES_EXHAUSTED), host.metric(QUEUED_BYTES)), (1, 0));
    assert!(host.metric(EXPORT_CALLS) < 6);
    assert_eq!(host.with(|s| s.tick_ms), 0);
    assert_balanced(&host);
}

#[test]
fn rejected_spans_of_a_partial_success_are_dropped() {
    let (host, mut root) = configured("");
    (0..3).for_each(|_| capture(&root));
    tick(&host, &mut root, 50);
    // partial_success { rejected_spans: 2 }
    host.set_buffer(Buffer::CallBody, &[0x0a, 0x02, 0x08, 0x02]);
    host.set_map(Map::CallHeaders, &[(":status", b"200"), ("content-type", b"application/x-protobuf")]);
    root.on_call_answer(last_token(&host), 2, 4);
    assert_eq!((host.metric(EXPORTED), host.metric(DROPPED_REJECTED)), (1, 2));
    assert_balanced(&host);
}

#[test]
fn retry_after_is_honoured() {
    let (host, mut root) = configured("");
    capture(&root);
    tick(&host, &mut root, 50);
    host.set_map(Map::CallHeaders, &[(":status", b"429"), ("retry-after", b"3")]);
    root.on_call_answer(last_token(&host), 2, 0);
    tick(&host, &mut root, 2999);
    assert_eq!(host.with(|s| s.calls.len()), 1);
    tick(&host, &mut root, 1);
    assert_eq!(host.with(|s| s.calls.len()), 2);
}

#[test]
fn a_replaced_filter_sends_what_it_has_and_then_goes() {
    let (host, mut root) = configured("");
    capture(&root);
    assert!(!root.on_done());
    assert_eq!(host.with(|s| (s.calls.len(), s.done)), (1, false));
    answer(&host, &mut root, "200");
    assert!(host.with(|s| s.done));
    assert_eq!((host.metric(EXPORTED), host.metric(QUEUED)), (1, 0));
    assert_balanced(&host);
}

#[test]
fn a_drain_ends_at_its_deadline_and_counts_what_is_lost() {
    let (host, mut root) = configured(r#"{"export": {"drain_ms": 1000}}"#);
    capture(&root);
    assert!(!root.on_done());
    assert!((1..=1000).contains(&host.with(|s| s.tick_ms)));
    tick(&host, &mut root, 999);
    assert!(!host.with(|s| s.done));
    tick(&host, &mut root, 1);
    assert!(host.with(|s| s.done));
    assert_eq!(host.metric(DROPPED_SHUTDOWN), 1);
    assert_balanced(&host);
}

#[test]
fn a_replaced_filter_leaves_everything_to_its_successor() {
    let (host, mut old) = configured(r#"{"limits": {"batch_exchanges": 1}}"#);
    capture(&old);
    tick(&host, &mut old, 1);
    capture(&old);
    host.advance_ms(400);
    let mut new = configure(&host, "");
    assert!(old.on_done());
    assert_eq!((host.metric(CAPTURED), host.metric(QUEUED)), (2, 2));
    host.with(|s| s.calls.clear());
    new.on_tick();
    assert_eq!(host.with(|s| s.calls.len()), 2);
    for call in host.with(|s| s.calls.clone()) {
        host.set_map(Map::CallHeaders, &[(":status", b"200")]);
        new.on_call_answer(call.token, 1, 0);
    }
    assert_eq!((host.metric(EXPORTED), host.metric(QUEUED), host.metric(QUEUED_BYTES)), (2, 0, 0));
    assert_balanced(&host);
}

#[test]
fn numbered_loads_are_told_apart_at_once() {
    let (host, mut old) = configured(r#"{"export": {"load": 7}}"#);
    capture(&old);
    let mut new = configure(&host, r#"{"export": {"load": 8}}"#);
    // A root of the old load that comes late does not hide the new one.
    let _late = configure(&host, r#"{"export": {"load": 7}}"#);
    assert!(old.on_done());
    new.on_tick();
    assert_eq!(host.with(|s| s.calls.len()), 1);
    assert_balanced(&host);
}

#[test]
fn a_successor_with_another_wire_counts_what_it_cannot_send() {
    let (host, mut old) = configured("");
    capture(&old);
    host.advance_ms(400);
    let mut new = configure(&host, r#"{"wire": "softprobe"}"#);
    assert!(old.on_done());
    new.on_tick();
    assert_eq!((host.metric(DROPPED_SHUTDOWN), host.metric(QUEUED)), (1, 0));
    assert_balanced(&host);
}

#[test]
fn roots_of_the_same_load_do_not_inherit_from_each_other() {
    let (host, mut old) = configured("");
    capture(&old);
    host.advance_ms(20);
    let _other_thread = configure(&host, "");
    assert!(!old.on_done());
}

#[test]
fn a_filter_with_nothing_to_send_goes_at_once() {
    let (host, mut root) = configured("");
    assert!(root.on_done());
    assert!(!host.with(|s| s.done));
    assert!(Root::new(FakeHost::new()).on_done());
}

#[test]
fn a_bad_configuration_is_refused_with_its_path() {
    let host = FakeHost::new();
    host.set_buffer(Buffer::PluginConfiguration, br#"{"limits": {"linger_ms": "x"}}"#);
    let mut root = Root::new(host.clone());
    assert!(!root.on_configure(30));
    assert!(root.stream(7).is_none());
    let (level, line) = host.with(|s| s.lines.remove(0));
    assert_eq!(level, Level::Error);
    assert!(line.starts_with("SP config_refused path=\"limits.linger_ms\""), "{line}");
}

#[test]
fn warnings_are_logged_and_counted_and_start() {
    let (host, _root) = configured(r#"{"region": "eu", "nope": 1}"#);
    assert_eq!(host.metric(CONFIG_WARNINGS), 2);
    assert_eq!(host.with(|s| s.lines.iter().filter(|(level, _)| *level == Level::Warn).count()), 2);
}

#[test]
fn the_level_follows_the_proxy_and_the_configuration_only_lowers_it() {
    for (proxy, config, lines) in
        [(Level::Info, "", 1), (Level::Error, "", 0), (Level::Info, r#"{"log_level":"warn"}"#, 0)]
    {
        let host = FakeHost::new();
        host.with(|s| s.level = Some(proxy));
        configure(&host, config);
        assert_eq!(host.with(|s| s.lines.len()), lines, "{proxy:?} {config}");
    }
    let (host, mut root) = configured("");
    host.with(|s| s.level = Some(Level::Debug));
    capture(&root);
    tick(&host, &mut root, 2000);
    capture(&root);
    let captured = host.with(|s| s.lines.iter().filter(|(_, line)| line.starts_with("SP captured ")).count());
    assert_eq!(captured, 1);
}

#[test]
fn metrics_are_defined_once() {
    let (host, _root) = configured("");
    assert_eq!(host.with(|s| s.metric_names.clone()), NAMES);
}

#[test]
fn the_service_is_found_in_the_environment_and_then_in_the_node() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 6] = [
        (&["POD_NAME=shop-7d9-x2k", "APP_NAME=app"], &[], "app"),
        (&["OTEL_SERVICE_NAME=", "POD_NAME=shop-v1-7d9-x2k"], &[], "shop-v1"),
        (&["HOSTNAME=plain"], &[("WORKLOAD_NAME", "reviews")], "reviews"),
        (&[], &[("LABELS.app", "cart")], "cart"),
        (&[], &[("NAME", "cart-5f-abc")], "cart"),
        (&[], &[], "unknown-service"),
    ];
    for (environment, node, expected) in cases {
        let host = FakeHost::new();
        host.with(|s| {
            s.environment = environment.iter().map(|v| v.to_string()).collect();
            for (key, value) in node {
                s.properties.insert(format!("xds.node.metadata.{key}"), value.as_bytes().to_vec());
            }
        });
        assert_eq!(detect_service(&host), expected);
    }
}

#[test]
fn a_gateway_is_known_by_its_node_and_never_by_a_header() {
    for (id, idle) in [("router~10.0.0.1~ingress~x", true), ("sidecar~10.0.0.1~shop~x", false)] {
        let host = FakeHost::new();
        host.with(|s| s.properties.insert("xds.node.id".to_owned(), id.as_bytes().to_vec()));
        let mut root = configure(&host, r#"{"skip_gateways": true}"#);
        host.set_map(Map::RequestHeaders, &[(":path", b"/"), ("x-envoy-peer-metadata-id", b"router~x")]);
        capture(&root);
        tick(&host, &mut root, 60);
        assert_eq!(host.metric(SKIPPED), i64::from(idle));
    }
}
