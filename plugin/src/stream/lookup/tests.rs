//! Held requests: who is asked for, what ends a wait, what is recorded.

use super::*;
use crate::host::fake::FakeHost;
use crate::metrics::{CAPTURED, INJECT_FAILURES, INJECT_HITS, INJECT_MISSES};
use crate::root::Root;

struct Rig {
    host: FakeHost,
    root: Root<FakeHost>,
}

impl Rig {
    fn new(inject: &str) -> Rig {
        let host = FakeHost::new();
        let config = format!(r#"{{"traffic_direction": "outbound", "inject": {{"enabled": true{inject}}}}}"#);
        host.set_buffer(Buffer::PluginConfiguration, config.as_bytes());
        let mut root = Root::new(host.clone());
        assert!(root.on_configure(config.len()));
        let rig = Rig { host, root };
        rig.request(&[]);
        rig
    }

    fn request(&self, extra: &[(&str, &str)]) {
        let pairs = [(":method", "POST"), (":scheme", "http"), (":authority", "stock:80"), (":path", "/a?b=c")];
        let pairs: Vec<(&str, &[u8])> = pairs.iter().chain(extra).map(|(n, v)| (*n, v.as_bytes())).collect();
        self.host.set_map(Map::RequestHeaders, &pairs);
    }

    fn stream(&self) -> Stream<FakeHost> {
        self.root.stream(7).unwrap()
    }

    /// The one lookup under way.
    fn token(&self) -> u32 {
        self.host.with(|s| {
            let lookups: Vec<_> = s.calls.iter().filter(|call| call.headers[1].1 == "/v1/inject").collect();
            assert_eq!(lookups.len(), 1);
            lookups[0].token
        })
    }

    fn answer(&self, stream: &mut Stream<FakeHost>, status: &str, body: &[u8]) {
        self.host.set_map(Map::CallHeaders, &[(":status", status.as_bytes())]);
        self.host.set_buffer(Buffer::CallBody, body);
        stream.on_call_answer(self.token(), 1, body.len());
    }

    fn counts(&mut self) -> [i64; 4] {
        self.host.advance_ms(300);
        self.root.on_tick();
        [INJECT_HITS, INJECT_MISSES, INJECT_FAILURES, CAPTURED].map(|name| self.host.metric(name))
    }

    fn resumed(&self) -> usize {
        self.host.with(|s| s.resumed.len())
    }
}

/// `TracesData` with one span: status 201, body `hi`.
fn hit() -> Vec<u8> {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
    use prost::Message as _;
    let values =
        [("http.response.status_code", Any::IntValue(201)), ("http.response.body", Any::StringValue("hi".to_owned()))];
    let attributes = values.map(|(key, value)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    });
    let spans = vec![Span { attributes: attributes.to_vec(), ..Span::default() }];
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}

#[test]
fn a_hit_is_replied_and_not_recorded() {
    let mut rig = Rig::new("");
    let mut stream = rig.stream();
    assert_eq!(stream.on_request_headers(true), Flow::Hold);
    rig.answer(&mut stream, "200", &hit());
    // The reply passes this filter on its way out.
    stream.on_response_headers(false);
    stream.on_response_body(2, true);
    stream.finish();
    let reply = rig.host.with(|s| s.replies.remove(0));
    assert_eq!((reply.status, reply.body.as_slice()), (201, &b"hi"[..]));
    assert_eq!((rig.counts(), rig.resumed()), ([1, 0, 0, 0], 0));
    assert!(rig.root.on_done(), "an injected reply is nothing to send");
}

#[test]
fn a_miss_and_every_failure_let_the_request_go_on_once() {
    for (status, counts) in [("404", [0, 1, 0, 1]), ("500", [0, 0, 1, 1]), ("200", [0, 1, 0, 1])] {
        let mut rig = Rig::new("");
        let mut stream = rig.stream();
        assert_eq!(stream.on_request_headers(true), Flow::Hold);
        rig.answer(&mut stream, status, b"");
        rig.answer(&mut stream, "200", &hit());
        stream.finish();
        assert_eq!((rig.counts(), rig.resumed()), (counts, 1), "{status}");
    }
    let mut rig = Rig::new("");
    rig.host.with(|s| s.refuse_calls = true);
    let mut stream = rig.stream();
    assert_eq!(stream.on_request_headers(true), Flow::Continue);
    stream.finish();
    assert_eq!(rig.counts(), [0, 0, 1, 1]);
}

#[test]
fn strict_answers_a_failure_and_only_that() {
    for (status, replies) in [("500", 1), ("404", 0)] {
        let rig = Rig::new(r#", "strict": true"#);
        let mut stream = rig.stream();
        stream.on_request_headers(true);
        rig.answer(&mut stream, status, b"");
        assert_eq!(rig.host.with(|s| s.replies.len()), replies);
        assert_eq!(rig.resumed(), 1 - replies);
    }
}

#[test]
fn direction_rules_grpc_and_tunnels_decide_who_is_asked_for() {
    let asks = |rig: &Rig| rig.stream().on_request_headers(true) == Flow::Hold;
    assert!(!asks(&Rig::new(r#", "direction": "inbound""#)));
    assert!(asks(&Rig::new(r#", "direction": "both""#)));
    assert!(asks(&Rig::new(r#", "rules": [{"host": "^stock$", "path": "^/a$"}]"#)));
    assert!(!asks(&Rig::new(r#", "rules": [{"host": "^other$"}]"#)));
    let rig = Rig::new("");
    rig.request(&[("content-type", "application/grpc+proto")]);
    assert!(!asks(&rig));
}

#[test]
fn a_body_is_recorded_once_however_often_the_host_shows_it() {
    let rig = Rig::new(r#", "body": true"#);
    let mut stream = rig.stream();
    assert_eq!(stream.on_request_headers(false), Flow::Hold);
    for (shown, ended) in [("ab", false), ("abcd", false), ("abcdef", true)] {
        rig.host.set_buffer(Buffer::RequestBody, shown.as_bytes());
        assert_eq!(stream.on_request_body(shown.len(), ended), Flow::Hold);
    }
    let State::Recording(exchange) = &stream.state else { panic!() };
    assert_eq!((exchange.request.body.bytes(), exchange.request.body.total()), (&b"abcdef"[..], 6));
    rig.answer(&mut stream, "404", b"");
    assert_eq!(rig.resumed(), 1);
}

#[test]
fn after_a_wait_that_is_over_the_next_part_takes_the_request_along() {
    let rig = Rig::new("");
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    rig.host.set_buffer(Buffer::RequestBody, b"ab");
    assert_eq!(stream.on_request_body(2, false), Flow::Hold);
    rig.answer(&mut stream, "404", b"");
    assert_eq!(rig.resumed(), 0);
    rig.host.set_buffer(Buffer::RequestBody, b"abcd");
    assert_eq!(stream.on_request_body(4, false), Flow::Continue);
    rig.host.set_buffer(Buffer::RequestBody, b"ef");
    assert_eq!(stream.on_request_body(2, true), Flow::Continue);
    let State::Recording(exchange) = &stream.state else { panic!() };
    assert_eq!(exchange.request.body.bytes(), b"abcdef");
}

#[test]
fn a_body_beyond_the_bound_ends_the_wait() {
    let mut rig = Rig::new(r#", "body": true, "body_bytes": 4"#);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    rig.host.set_buffer(Buffer::RequestBody, b"abcdef");
    assert_eq!(stream.on_request_body(6, false), Flow::Continue);
    assert_eq!(rig.counts(), [0, 0, 1, 0]);
    // One that says its length is asked for at once.
    rig.request(&[("content-length", "5")]);
    assert_eq!(rig.stream().on_request_headers(false), Flow::Hold);
    rig.token();
}

#[test]
fn where_no_body_comes_the_wait_ends_and_is_not_tried_again() {
    let mut rig = Rig::new(r#", "body": true"#);
    let mut stream = rig.stream();
    assert_eq!(stream.on_request_headers(false), Flow::Hold);
    rig.host.advance_ms(499);
    rig.root.on_tick();
    assert_eq!(rig.resumed(), 0);
    rig.host.advance_ms(2);
    rig.root.on_tick();
    assert_eq!(rig.host.with(|s| s.resumed.clone()), [7]);
    rig.host.set_buffer(Buffer::RequestBody, b"abc");
    assert_eq!(stream.on_request_body(3, true), Flow::Continue);
    let mut next = rig.stream();
    assert_eq!(next.on_request_headers(false), Flow::Hold);
    rig.token();
}

#[test]
fn the_lookup_says_whether_its_body_is_missing() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;
    for ended in [true, false] {
        let rig = Rig::new("");
        rig.stream().on_request_headers(ended);
        let sent = rig.host.with(|s| s.calls.remove(0));
        let span = ExportTraceServiceRequest::decode(&*sent.body).unwrap().resource_spans.remove(0);
        let keys: Vec<String> = span.scope_spans[0].spans[0].attributes.iter().map(|a| a.key.clone()).collect();
        assert_eq!(keys.contains(&crate::attributes::INJECT_WITHOUT_BODY.to_owned()), !ended);
        assert!(keys.contains(&"http.request.header.:method".to_owned()));
        assert!(!keys.iter().any(|key| key.starts_with("http.response.")));
    }
}
