//! Callback order, caps, ends and trace headers, on the fake host.

use super::*;
use crate::host::fake::FakeHost;
use crate::metrics::{CAPTURED, REQUESTS, SKIPPED, TRUNCATED};
use crate::root::Root;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A filter with a configuration, on a host that shows one request.
struct Rig {
    host: FakeHost,
    root: Root<FakeHost>,
}

impl Rig {
    fn new(config: &str) -> Rig {
        let host = FakeHost::new();
        host.set_buffer(Buffer::PluginConfiguration, config.as_bytes());
        let mut root = Root::new(host.clone());
        assert!(root.on_configure(config.len()));
        let rig = Rig { host, root };
        rig.request(&[]);
        rig.response(&[]);
        rig.host.take_host_calls();
        rig
    }

    fn request(&self, extra: &[(&str, &str)]) {
        let mut pairs = vec![(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/a?b=c")];
        pairs.retain(|(name, _)| !extra.iter().any(|(other, _)| other == name));
        pairs.extend_from_slice(extra);
        let pairs: Vec<(&str, &[u8])> = pairs.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        self.host.set_map(Map::RequestHeaders, &pairs);
    }

    fn response(&self, extra: &[(&str, &str)]) {
        let mut pairs = vec![(":status", "200"), ("content-type", "text/plain")];
        pairs.retain(|(name, _)| !extra.iter().any(|(other, _)| other == name));
        pairs.extend_from_slice(extra);
        let pairs: Vec<(&str, &[u8])> = pairs.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        self.host.set_map(Map::ResponseHeaders, &pairs);
    }

    fn stream(&self) -> Stream<FakeHost> {
        self.root.stream(7).unwrap()
    }

    /// A whole exchange without bodies.
    fn exchange(&mut self) -> Span {
        let mut stream = self.stream();
        stream.on_request_headers(true);
        stream.on_response_headers(true);
        stream.finish();
        self.sent().remove(0)
    }

    /// Spans that the root sends when their time has come.
    fn sent(&mut self) -> Vec<Span> {
        self.host.advance_ms(60);
        self.root.on_tick();
        let calls = self.host.with(|s| std::mem::take(&mut s.calls));
        let requests = calls.iter().map(|call| ExportTraceServiceRequest::decode(&*call.body).unwrap());
        requests.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, Any> {
    span.attributes.iter().map(|a| (a.key.clone(), a.value.clone().unwrap().value.unwrap())).collect()
}

fn text(span: &Span, key: &str) -> Option<String> {
    match attributes(span).remove(key)? {
        Any::StringValue(text) => Some(text),
        other => panic!("{key}: {other:?}"),
    }
}

fn is_true(span: &Span, key: &str) -> bool {
    attributes(span).remove(key) == Some(Any::BoolValue(true))
}

fn header(rig: &Rig, name: &str) -> Option<String> {
    rig.host.header(Map::RequestHeaders, name)
}

#[test]
fn a_skipped_request_costs_one_header_fetch_and_changes_nothing() {
    let config = r#"{"traffic_direction": "server", "collectionRules": {"http": {"server": [{"path": "^/x"}]}}}"#;
    let rig = Rig::new(config);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_request_body(10, true);
    stream.on_response_headers(false);
    stream.on_response_body(10, true);
    stream.finish();
    assert_eq!(rig.host.take_host_calls(), ["headers", "set_tick_ms"]);
    assert_eq!(header(&rig, "traceparent"), None);
    let mut second = rig.stream();
    second.on_request_headers(true);
    assert_eq!(rig.host.take_host_calls(), ["headers"]);
}

#[test]
fn counts_requests_skips_and_captures() {
    let mut rig = Rig::new("");
    rig.exchange();
    rig.request(&[(":path", "/logo.png")]);
    rig.stream().on_request_headers(true);
    rig.root.on_tick();
    let counts = [REQUESTS, CAPTURED, SKIPPED, TRUNCATED].map(|name| rig.host.metric(name));
    assert_eq!(counts, [2, 1, 1, 0]);
}

#[test]
fn a_static_response_is_skipped_by_its_type() {
    let mut rig = Rig::new("");
    rig.response(&[("content-type", "image/png")]);
    let mut stream = rig.stream();
    stream.on_request_headers(true);
    stream.on_response_headers(true);
    stream.finish();
    assert!(rig.sent().is_empty());
    assert_eq!(rig.host.metric(SKIPPED), 1);
}

#[test]
fn bodies_are_kept_to_the_cap_and_counted_beyond() {
    let mut rig = Rig::new(r#"{"limits": {"request_body_bytes": 6, "response_body_bytes": 0}}"#);
    rig.request(&[("content-type", "text/plain")]);
    rig.host.set_buffer(Buffer::RequestBody, b"abcd");
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    rig.host.take_host_calls();
    stream.on_request_body(4, false);
    stream.on_request_body(4, false);
    assert_eq!(rig.host.take_host_calls(), ["buffer", "buffer"]);
    stream.on_request_body(4, false);
    assert!(rig.host.take_host_calls().is_empty());
    stream.on_request_body(0, true);
    stream.on_response_headers(false);
    stream.on_response_body(1 << 30, true);
    stream.finish();
    let span = rig.sent().remove(0);
    assert_eq!(text(&span, "http.request.body.content").as_deref(), Some("abcdab"));
    assert_eq!(attributes(&span)["http.request.body.size"], Any::IntValue(12));
    assert_eq!(attributes(&span)["http.response.body.size"], Any::IntValue(1 << 30));
    assert!(is_true(&span, "spctl.request.body.truncated") && is_true(&span, "spctl.response.body.truncated"));
    assert_eq!(rig.host.metric(TRUNCATED), 1);
}

#[test]
fn trailers_of_both_sides_end_and_enrich_the_exchange() {
    let mut rig = Rig::new("");
    rig.host.set_map(Map::RequestTrailers, &[("x-r", b"1")]);
    rig.host.set_map(Map::ResponseTrailers, &[("grpc-status", b"0")]);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_request_trailers();
    stream.on_response_headers(false);
    stream.on_response_trailers();
    stream.finish();
    let span = rig.sent().remove(0);
    assert!(attributes(&span).contains_key("spctl.request.trailer.x-r"));
    assert!(attributes(&span).contains_key("spctl.response.trailer.grpc-status"));
    assert!(!is_true(&span, "spctl.aborted"));
}

#[test]
fn every_early_end_gives_one_aborted_record() {
    let steps: [fn(&mut Stream<FakeHost>); 3] =
        [|_| (), |s| _ = s.on_request_body(3, false), |s| s.on_response_headers(false)];
    for step in steps {
        let mut rig = Rig::new("");
        let mut stream = rig.stream();
        stream.on_request_headers(false);
        step(&mut stream);
        stream.finish();
        stream.finish();
        let spans = rig.sent();
        assert_eq!(spans.len(), 1);
        assert!(is_true(&spans[0], "spctl.aborted"));
    }
}

#[test]
fn a_stream_that_never_had_headers_leaves_no_record() {
    let mut rig = Rig::new("");
    let mut stream = rig.stream();
    stream.on_response_headers(true);
    stream.finish();
    assert!(rig.sent().is_empty());
    assert_eq!(rig.host.metric(REQUESTS), 0);
}

#[test]
fn an_answer_by_someone_else_is_recorded_as_a_response() {
    let mut rig = Rig::new("");
    rig.response(&[(":status", "403")]);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_response_headers(true);
    stream.on_request_body(5, true);
    stream.finish();
    let span = rig.sent().remove(0);
    assert_eq!(attributes(&span)["http.response.status_code"], Any::IntValue(403));
    assert!(!is_true(&span, "spctl.aborted"));
}

#[test]
fn an_upgrade_is_recorded_at_its_answer_and_its_tunnel_is_not() {
    let mut rig = Rig::new("");
    rig.request(&[("upgrade", "websocket")]);
    rig.response(&[(":status", "101")]);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_response_headers(false);
    rig.host.take_host_calls();
    stream.on_request_body(100, false);
    stream.on_response_body(100, false);
    assert!(rig.host.take_host_calls().is_empty());
    let span = rig.sent().remove(0);
    assert!(is_true(&span, "spctl.upgrade") && !is_true(&span, "spctl.aborted"));
    stream.finish();
    assert!(rig.sent().is_empty());
}

#[test]
fn a_connect_tunnel_is_not_copied_even_before_its_answer() {
    let mut rig = Rig::new("");
    rig.request(&[(":method", "CONNECT"), (":path", "")]);
    rig.host.set_buffer(Buffer::RequestBody, b"tls");
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_request_body(3, false);
    stream.on_response_headers(false);
    let span = rig.sent().remove(0);
    assert_eq!(text(&span, "http.request.body.content"), None);
    assert!(is_true(&span, "spctl.upgrade"));
}

#[test]
fn joins_the_callers_trace_as_a_participant() {
    let mut rig = Rig::new("");
    rig.request(&[("traceparent", PARENT), ("tracestate", "a=1")]);
    let span = rig.exchange();
    let told = header(&rig, "traceparent").unwrap();
    let ours = TraceParent::parse(told.as_bytes()).unwrap();
    assert_eq!(span.trace_id, ours.trace_id);
    assert_eq!(span.span_id, ours.parent_id);
    assert_eq!(span.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && told.ends_with("-01"));
    assert_eq!((span.trace_state.as_str(), header(&rig, "tracestate").as_deref()), ("a=1", Some("a=1")));
    assert_eq!(span.flags, 0x301);
}

#[test]
fn inbound_and_outbound_spans_join_when_the_application_propagates() {
    let mut inbound = Rig::new(r#"{"traffic_direction": "server"}"#);
    let first = inbound.exchange();
    let mut outbound = Rig::new(r#"{"traffic_direction": "client"}"#);
    outbound.host.random(&mut [0; 8]);
    outbound.request(&[("traceparent", &header(&inbound, "traceparent").unwrap())]);
    let second = outbound.exchange();
    assert_eq!((second.trace_id, second.parent_span_id), (first.trace_id, first.span_id));
    assert_eq!((first.kind, second.kind), (2, 3));
}

#[test]
fn the_record_holds_the_headers_as_they_came() {
    let mut rig = Rig::new("");
    rig.request(&[("traceparent", PARENT)]);
    let span = rig.exchange();
    let Any::ArrayValue(values) = attributes(&span).remove("http.request.header.traceparent").unwrap() else {
        panic!()
    };
    assert_eq!(values.values[0].value, Some(Any::StringValue(PARENT.to_owned())));
}

#[test]
fn a_bad_traceparent_starts_a_new_trace_and_drops_its_list() {
    let mut rig = Rig::new("");
    rig.request(&[("traceparent", "junk"), ("tracestate", "a=1")]);
    let span = rig.exchange();
    assert_eq!((span.parent_span_id.len(), header(&rig, "tracestate")), (0, None));
    assert!(header(&rig, "traceparent").unwrap().ends_with("-03"));
}

#[test]
fn the_browsers_session_survives_its_orphaned_list() {
    let mut rig = Rig::new("");
    rig.request(&[("tracestate", "foo=1,x-sp-session-id=s1")]);
    let span = rig.exchange();
    assert_eq!(text(&span, "session.id").as_deref(), Some("s1"));
    assert_eq!(header(&rig, "tracestate").as_deref(), Some("x-sp-session-id=s1"));
}

#[test]
fn without_propagation_no_header_is_touched() {
    let mut rig = Rig::new(r#"{"propagation": "none", "wire": "softprobe"}"#);
    rig.request(&[("traceparent", PARENT), ("tracestate", "a=1")]);
    let before = rig.host.with(|s| s.maps.clone());
    let span = rig.exchange();
    assert_eq!(rig.host.with(|s| s.maps.clone()), before);
    assert_eq!(span.parent_span_id.len(), 8);
}

#[test]
fn softprobe_gives_every_exchange_one_session_and_counts_hops() {
    let mut rig = Rig::new(r#"{"wire": "softprobe"}"#);
    rig.request(&[("x-sp-num", "4294967295"), ("traceparent", PARENT), ("tracestate", "a=1,x-sp-session-id=old")]);
    let told = text(&rig.exchange(), "sp.session.id");
    assert_eq!(told.as_deref(), Some("old"));
    assert_eq!(header(&rig, "x-sp-num").as_deref(), Some("4294967295"));
    rig.request(&[("x-sp-session-id", "new"), ("traceparent", PARENT), ("tracestate", "a=1,x-sp-session-id=old")]);
    assert_eq!(text(&rig.exchange(), "sp.session.id").as_deref(), Some("new"));
    assert_eq!(header(&rig, "tracestate").as_deref(), Some("x-sp-session-id=new,a=1"));
    rig.request(&[]);
    let made = text(&rig.exchange(), "sp.session.id").unwrap();
    let digits = made.strip_prefix("sp-session-").unwrap();
    assert_eq!(digits.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!(digits.as_bytes()[14], b'4');
    assert_eq!(header(&rig, "tracestate").unwrap(), format!("x-sp-session-id={made}"));
}

#[test]
fn ids_differ_with_and_without_random_numbers() {
    for no_random in [false, true] {
        let rig = Rig::new("");
        rig.host.with(|s| s.no_random = no_random);
        let shared = rig.stream().shared;
        let traces: BTreeSet<[u8; 16]> = (0..500).map(|_| shared.random()).collect();
        let spans: BTreeSet<[u8; 8]> = (0..500).map(|_| shared.random()).collect();
        assert_eq!((traces.len(), spans.len()), (500, 500));
    }
}

#[test]
fn the_clock_may_be_set_while_an_exchange_runs() {
    let mut rig = Rig::new("");
    let mut stream = rig.stream();
    stream.on_request_headers(true);
    rig.host.advance_ms(25);
    rig.host.with(|s| s.wall_offset_ns -= 3_600_000_000_000);
    stream.on_response_headers(true);
    stream.finish();
    let span = rig.sent().remove(0);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 25_000_000);
}

#[test]
fn the_direction_comes_from_the_listener_when_not_configured() {
    for (value, direction, kind) in [(1i64, "inbound", 2), (2, "outbound", 3), (0, "unspecified", 2)] {
        let mut rig = Rig::new("");
        let bytes = value.to_le_bytes().to_vec();
        rig.host.with(|s| s.properties.insert("xds.listener_direction".to_owned(), bytes));
        let span = rig.exchange();
        assert_eq!((text(&span, "spctl.direction").as_deref(), span.kind), (Some(direction), kind));
    }
}

#[test]
fn each_wanted_fact_is_fetched_once_and_others_never() {
    let all = r#"["protocol", "source", "destination", "upstream"]"#;
    for (attributes, expected) in [("[]", 0), (all, 4)] {
        let config = format!(r#"{{"traffic_direction": "server", "attributes": {attributes}}}"#);
        let mut rig = Rig::new(&config);
        rig.exchange();
        let fetched = rig.host.take_host_calls().iter().filter(|call| **call == "property").count();
        assert_eq!(fetched, expected);
    }
}

#[test]
fn the_service_header_counts_only_without_a_configured_name() {
    for (config, expected) in [("", "from-header"), (r#"{"service_name": "mine"}"#, "mine")] {
        let mut rig = Rig::new(config);
        rig.request(&[("x-sp-service-name", "from-header")]);
        let mut stream = rig.stream();
        stream.on_request_headers(true);
        stream.finish();
        rig.host.advance_ms(60);
        rig.root.on_tick();
        let body = rig.host.with(|s| s.calls.remove(0).body);
        let resource = ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans.remove(0).resource.unwrap();
        let value = resource.attributes[0].value.clone().unwrap().value.unwrap();
        assert_eq!(value, Any::StringValue(expected.to_owned()));
    }
}

#[test]
fn no_secret_reaches_the_upload_or_the_log() {
    let mut rig = Rig::new("");
    rig.host.with(|s| s.level = Some(Level::Trace));
    assert!(rig.root.on_configure(0));
    rig.request(&[
        ("authorization", "Bearer hunter2"),
        ("cookie", "sid=hunter2"),
        ("content-type", "application/json"),
        (":path", "/a?token=hunter2"),
        ("referer", "http://x/?sig=hunter2"),
    ]);
    rig.host.set_buffer(Buffer::RequestBody, br#"{"password":"hunter2"}"#);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_request_body(22, true);
    stream.on_response_headers(true);
    stream.finish();
    rig.host.advance_ms(60);
    rig.root.on_tick();
    let (calls, lines) = rig.host.with(|s| (s.calls.clone(), s.lines.clone()));
    assert!(!String::from_utf8_lossy(&calls[0].body).contains("hunter2"));
    assert!(lines.len() > 1 && lines.iter().all(|(_, line)| line.starts_with("SP ") && !line.contains("hunter2")));
}

#[test]
fn an_exchange_over_its_bound_is_dropped_and_counted() {
    let mut rig = Rig::new(r#"{"limits": {"exchange_bytes": 1024}}"#);
    rig.host.set_buffer(Buffer::ResponseBody, &[b'x'; 2000]);
    let mut stream = rig.stream();
    stream.on_request_headers(true);
    stream.on_response_headers(false);
    stream.on_response_body(2000, true);
    stream.finish();
    assert!(rig.sent().is_empty());
    assert_eq!(rig.host.metric(crate::metrics::DROPPED_TOO_LARGE), 1);
    assert_eq!(rig.host.metric(CAPTURED), 1);
}

mod memory;
