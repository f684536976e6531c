//! Our bytes, read by someone else's decoder.

use super::*;
use crate::config::{Config, parse};
use crate::exchange::{Exchange, Message, Peers, Phase};
use crate::headers::Headers;
use crate::trace::TraceParent;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;
use std::collections::BTreeMap;

fn config(wire: &str) -> Config {
    parse(format!(r#"{{"wire": "{wire}"}}"#).as_bytes()).unwrap().config
}

fn message(pairs: &[(&str, &[u8])], body: &[u8]) -> Message {
    let mut message = Message { headers: Headers::from_pairs(pairs.iter().copied()), ..Message::default() };
    message.body = crate::body::BoundedBody::new(1 << 16);
    let _ = message.body.count(body.len());
    message.body.append(body.to_vec());
    message
}

fn exchange() -> Exchange {
    let request = message(
        &[
            (":authority", b"shop:8080"),
            (":path", b"/items?id=1"),
            (":method", b"POST"),
            (":scheme", b"https"),
            ("accept", b"a"),
            ("content-type", b"application/json"),
            ("accept", b"b"),
        ],
        br#"{"a":1}"#,
    );
    let response = message(
        &[(":status", b"503"), ("set-cookie", b"a=1"), ("set-cookie", b"b=2"), ("x-raw", b"\xff")],
        &[0, 159, 146, 150],
    );
    Exchange {
        phase: Phase::Complete,
        direction: Direction::Inbound,
        request,
        response,
        status: Some(503),
        span: TraceParent { trace_id: [1; 16], parent_id: [2; 8], flags: 1 },
        parent: Some([3; 8]),
        trace_state: Some("a=1".to_owned()),
        session: Some("s1".to_owned()),
        service: None,
        held: 0,
        upgrade: false,
        start_wall_ns: 1_700_000_000_000_000_000,
        start_ns: 500,
        request_end_ns: Some(600),
        response_start_ns: Some(900),
        end_ns: 1500,
        peers: Peers {
            protocol: Some("HTTP/1.1".to_owned()),
            source: Some("[::1]:4000".to_owned()),
            destination: Some("10.0.0.1:80".to_owned()),
            upstream: Some("10.0.0.2:81".to_owned()),
            namespace: Some("apps".to_owned()),
        },
    }
}

fn decode(wire: &str, exchange: &Exchange) -> (ResourceSpans, Span) {
    let config = config(wire);
    let mut span = Vec::new();
    encode(config.wire, &Record::new(exchange, &config, "svc"), &mut span);
    let body = frame(config.wire, &[("svc", vec![&span])]);
    let mut request = ExportTraceServiceRequest::decode(&*body).unwrap();
    assert_eq!(request.encoded_len(), body.len());
    let mut resource = request.resource_spans.remove(0);
    let span = resource.scope_spans[0].spans.remove(0);
    (resource, span)
}

fn attributes(span: &Span) -> BTreeMap<&str, Any> {
    let map: BTreeMap<_, _> =
        span.attributes.iter().map(|a| (a.key.as_str(), a.value.clone().unwrap().value.unwrap())).collect();
    assert_eq!(map.len(), span.attributes.len(), "keys are unique");
    map
}

fn string(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

fn texts(value: &Any) -> Vec<String> {
    let Any::ArrayValue(array) = value else { panic!("{value:?}") };
    let text = |v: Any| match v {
        Any::StringValue(text) => text,
        Any::BytesValue(bytes) => format!("{bytes:?}"),
        other => panic!("{other:?}"),
    };
    array.values.iter().map(|v| text(v.value.clone().unwrap())).collect()
}

#[test]
fn a_span_says_who_when_and_how() {
    let (resource, span) = decode("otlp", &exchange());
    assert_eq!(resource.scope_spans[0].scope.as_ref().unwrap().name, SCOPE_NAME);
    assert_eq!(resource.resource.unwrap().attributes[0].key, "service.name");
    assert_eq!((span.trace_id.as_slice(), span.span_id.as_slice()), (&[1; 16][..], &[2; 8][..]));
    assert_eq!((span.parent_span_id.as_slice(), span.trace_state.as_str()), (&[3; 8][..], "a=1"));
    assert_eq!((span.name.as_str(), span.kind, span.flags), ("POST", 2, 0x301));
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1000);
    assert_eq!(span.status.unwrap().code, 2);
}

#[test]
fn the_otlp_wire_follows_the_semantic_conventions() {
    let exchange = exchange();
    let (_, span) = decode("otlp", &exchange);
    let a = attributes(&span);
    assert_eq!(a["http.request.method"], string("POST"));
    assert_eq!(a["url.full"], string("https://shop:8080/items?id=1"));
    assert_eq!(
        (&a["url.path"], &a["url.query"], &a["url.scheme"]),
        (&string("/items"), &string("id=1"), &string("https"))
    );
    assert_eq!((&a["server.address"], &a["server.port"]), (&string("shop"), &Any::IntValue(8080)));
    assert_eq!(a["http.response.status_code"], Any::IntValue(503));
    assert_eq!(a["error.type"], string("503"));
    assert_eq!(a["session.id"], string("s1"));
    assert_eq!(a["network.protocol.version"], string("1.1"));
    assert_eq!((&a["client.address"], &a["client.port"]), (&string("::1"), &Any::IntValue(4000)));
    assert_eq!(a["network.peer.address"], string("::1"));
    assert_eq!(a["spctl.upstream.address"], string("10.0.0.2:81"));
    assert_eq!(a["http.request.body.content"], string(r#"{"a":1}"#));
    assert_eq!(a["http.response.body.content"], Any::BytesValue(vec![0, 159, 146, 150]));
    assert_eq!(a["http.request.body.size"], Any::IntValue(7));
    assert_eq!((&a[own::REQUEST_END_NS], &a[own::RESPONSE_START_NS]), (&Any::IntValue(100), &Any::IntValue(400)));
}

#[test]
fn headers_keep_their_lines_their_order_and_their_bytes() {
    let exchange = exchange();
    let (_, span) = decode("otlp", &exchange);
    let a = attributes(&span);
    assert_eq!(texts(&a["http.request.header.accept"]), ["a", "b"]);
    assert_eq!(texts(&a[own::REQUEST_HEADER_ORDER]), ["accept", "content-type", "accept"]);
    assert_eq!(texts(&a["http.response.header.set-cookie"]), ["a=REDACTED", "b=REDACTED"]);
    assert!(!a.contains_key(own::RESPONSE_HEADER_ORDER));
    assert_eq!(texts(&a["http.response.header.x-raw"]), ["\u{fffd}"]);
    assert_eq!(texts(&a["spctl.response.header_values.x-raw"]), ["[255]"]);
    let pseudo = [":authority", "shop:8080", ":path", "/items?id=1", ":method", "POST", ":scheme", "https"];
    assert_eq!(texts(&a[own::PSEUDO_HEADERS]), pseudo);
    assert_eq!(texts(&a[own::REDACTED]), ["response.cookie.a", "response.cookie.b"]);
}

#[test]
fn the_softprobe_wire_is_strings() {
    let exchange = exchange();
    let (resource, span) = decode("softprobe", &exchange);
    let resource: Vec<String> = resource.resource.unwrap().attributes.into_iter().map(|a| a.key).collect();
    assert_eq!(resource, ["service.name", "sp.resource.type"]);
    let a = attributes(&span);
    let expected = [
        ("sp.service.name", "svc"),
        ("sp.traffic.direction", "inbound"),
        ("sp.span.type", "extract"),
        ("sp.session.id", "s1"),
        ("http.request.method", "POST"),
        ("http.request.header.:method", "POST"),
        ("http.request.header.:path", "/items?id=1"),
        ("http.request.header.accept", "a, b"),
        ("http.response.header.:status", "503"),
        ("url.path", "/items?id=1"),
        ("url.host", "shop:8080"),
        ("url.full", "https://shop:8080/items?id=1"),
        ("http.request.body", r#"{"a":1}"#),
        (own::REQUEST_BODY_ENCODING, "utf8"),
        ("http.response.body", "AJ+Slg=="),
        (own::RESPONSE_BODY_ENCODING, "base64"),
    ];
    for (key, value) in expected {
        assert_eq!(a[key], string(value), "{key}");
    }
    assert_eq!(a["http.response.status_code"], Any::IntValue(503));
    assert!(!a.keys().any(|key| key.contains("public.key")));
}

#[test]
fn only_servers_forgive_their_clients() {
    let mut exchange = exchange();
    let cases = [(200, false, false), (404, false, true), (500, true, true)];
    for (status, inbound_error, outbound_error) in cases {
        exchange.status = Some(status);
        for (direction, error) in [(Direction::Inbound, inbound_error), (Direction::Outbound, outbound_error)] {
            exchange.direction = direction;
            let (_, span) = decode("otlp", &exchange);
            assert_eq!(span.status.is_some(), error, "{status} {direction:?}");
        }
    }
}

#[test]
fn an_exchange_without_a_response_says_so() {
    let mut exchange = exchange();
    (exchange.status, exchange.phase, exchange.response) = (None, Phase::Request, Message::default());
    let (_, span) = decode("otlp", &exchange);
    let a = attributes(&span);
    assert_eq!((&a["error.type"], &a[own::ABORTED]), (&string("aborted"), &Any::BoolValue(true)));
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    assert!(!a.keys().any(|key| key.starts_with("http.response")));
}

#[test]
fn an_unknown_method_does_not_name_spans() {
    let mut exchange = exchange();
    exchange.request = message(&[(":method", b"BREW"), (":path", b"*")], b"");
    let (_, span) = decode("otlp", &exchange);
    let a = attributes(&span);
    assert_eq!((span.name.as_str(), &a["http.request.method"]), ("HTTP", &string("_OTHER")));
    assert_eq!(a["http.request.method_original"], string("BREW"));
}

#[test]
fn services_of_one_upload_stay_apart() {
    let config = config("otlp");
    let exchange = exchange();
    let mut span = Vec::new();
    encode(config.wire, &Record::new(&exchange, &config, "a"), &mut span);
    let body = frame(config.wire, &[("a", vec![&span, &span]), ("b", vec![&span])]);
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    let sizes: Vec<usize> = request.resource_spans.iter().map(|r| r.scope_spans[0].spans.len()).collect();
    assert_eq!(sizes, [2, 1]);
}

#[test]
fn rejected_spans_are_read_and_garbage_is_none() {
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    let partial = ExportTracePartialSuccess { rejected_spans: 300, error_message: "why".to_owned() };
    let bytes = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    assert_eq!(rejected_spans(&bytes), 300);
    for cut in 0..bytes.len() {
        assert!(rejected_spans(&bytes[..cut]) <= 300);
    }
    assert_eq!(rejected_spans(b""), 0);
    assert_eq!(rejected_spans(br#"{"partialSuccess":{}}"#), 0);
}

fn telemetry(wire: &str, exchange: &Exchange) -> serde_json::Value {
    let config = config(wire);
    let mut item = Vec::new();
    encode(config.wire, &Record::new(exchange, &config, "svc"), &mut item);
    serde_json::from_slice(&frame(config.wire, &[("svc", vec![&item])])).unwrap()
}

#[test]
fn apiclarity_gets_its_telemetry_in_both_forms() {
    let mut exchange = exchange();
    exchange.request.headers = Headers::from_pairs(
        [
            (":authority", &b"shop.svc.cluster.local:80"[..]),
            (":path", b"/a\"b?c=d"),
            (":method", b"POST"),
            (":scheme", b"https"),
            ("x-request-id", b"r-1"),
            ("x-envoy-expected-rq-timeout-ms", b"1"),
            ("x-quote", b"\"\\\x07"),
        ]
        .into_iter(),
    );
    let v2 = telemetry("apiclarity", &exchange);
    assert_eq!(v2["requestID"], "r-1");
    assert_eq!((&v2["scheme"], &v2["destinationAddress"]), (&"https".into(), &"10.0.0.1:80".into()));
    assert_eq!((&v2["destinationNamespace"], &v2["sourceAddress"]), (&"apps".into(), &"[::1]:4000".into()));
    assert_eq!((&v2["request"]["host"], &v2["request"]["path"]), (&"shop.apps".into(), &"/a\"b?c=d".into()));
    let common = &v2["request"]["common"];
    assert_eq!(common["headers"][0], serde_json::json!({"key": "host", "value": "shop.apps"}));
    assert_eq!(common["headers"][2]["value"], "\"\\\u{7}");
    assert_eq!(common["headers"].as_array().unwrap().len(), 3);
    assert_eq!((&common["version"], &common["TruncatedBody"]), (&"HTTP/1.1".into(), &false.into()));
    assert_eq!(common["time"], 1_700_000_000_000u64);
    assert_eq!((&v2["response"]["statusCode"], &v2["response"]["common"]["body"]), (&"503".into(), &"AJ+Slg==".into()));
    let v1 = telemetry("apiclarity-v1", &exchange);
    assert_eq!((&v1["request_id"], &v1["scnt_request"]["host"]), (&"r-1".into(), &"shop.apps".into()));
    assert_eq!(v1["scnt_request"]["headers"][1], serde_json::json!(["x-request-id", "r-1"]));
    assert_eq!(
        (&v1["scnt_response"]["status_code"], &v1["scnt_response"]["truncated_body"]),
        (&"503".into(), &false.into())
    );
    assert_eq!(key(config("apiclarity").wire, &exchange).as_deref(), Some("r-1"));
}

#[test]
fn hosts_are_named_as_apiclarity_names_them() {
    for (authority, namespace, host) in [
        ("shop", "apps", "shop.apps"),
        ("shop:8080", "", "shop"),
        ("shop.apps.svc:80", "x", "shop.apps"),
        ("http://shop.apps.svc.cluster.local", "", "shop.apps"),
        ("[::1]:80", "apps", "[::1]"),
        ("", "", ""),
    ] {
        assert_eq!(full_host(authority, namespace), host);
    }
}
