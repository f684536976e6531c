use super::*;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message as _;

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

fn answer(attributes: &[(&str, Any)]) -> Vec<u8> {
    let attributes = attributes.iter().map(|(key, value)| KeyValue {
        key: key.to_string(),
        value: Some(AnyValue { value: Some(value.clone()) }),
        ..KeyValue::default()
    });
    let empty = Span { name: "nothing in it".to_owned(), ..Span::default() };
    let span = Span { attributes: attributes.collect(), start_time_unix_nano: 7, ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![empty, span], ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}

fn hit(attributes: &[(&str, Any)]) -> Reply {
    match read(200, &answer(attributes)) {
        Answer::Hit(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn names(reply: &Reply) -> Vec<&str> {
    reply.headers.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn only_headers_that_fit_the_new_message_are_sent_again() {
    let recorded = [
        (":status", "200"),
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("date", "x"),
        ("content-encoding", "gzip"),
        ("content-type", "text/plain"),
        ("x-bad", "a\r\nb: c"),
        ("x-softprobe-injected", "forged"),
    ];
    let keys: Vec<String> = recorded.iter().map(|(name, _)| format!("http.response.header.{name}")).collect();
    let mut attributes: Vec<(&str, Any)> =
        keys.iter().zip(recorded).map(|(key, (_, value))| (key.as_str(), text(value))).collect();
    attributes.push(("spctl.inject.source", text("00f067aa0ba902b7")));
    let reply = hit(&attributes);
    assert_eq!(names(&reply), ["content-type", MARK]);
    assert_eq!(reply.headers[1].1, b"00f067aa0ba902b7");
    attributes.push(("http.response.body.content", Any::BytesValue(vec![0x1f, 0x8b])));
    assert_eq!(names(&hit(&attributes)), ["content-encoding", "content-type", MARK]);
}

#[test]
fn a_body_is_what_its_marker_says_and_never_guessed() {
    let long = "QUJD".repeat(40);
    assert_eq!(hit(&[("http.response.body", text(&long))]).body, long.as_bytes());
    let mut marked = vec![("http.response.body", text("QUJD")), ("spctl.response.body.encoding", text("base64"))];
    assert_eq!(read(200, &answer(&marked)), Answer::Miss);
    marked.push(("http.response.body.content", Any::BytesValue(b"ABC".to_vec())));
    assert_eq!(hit(&marked).body, b"ABC");
}

#[test]
fn a_status_alone_is_a_hit_and_one_that_cannot_be_sent_a_miss() {
    let status = |status| [("http.response.status_code", status)];
    assert_eq!(hit(&status(Any::IntValue(204))).status, 204);
    assert_eq!(hit(&status(text("503"))).status, 503);
    for bad in [Any::IntValue(101), Any::IntValue(-1), Any::IntValue(600), Any::IntValue(1 << 40), text("ok")] {
        assert_eq!(read(200, &answer(&status(bad))), Answer::Miss);
    }
}

#[test]
fn repeated_headers_stay_lines_of_their_own() {
    let values = ["a=1", "b=2"].map(|value| AnyValue { value: Some(text(value)) }).to_vec();
    let reply = hit(&[("http.response.header.set-cookie", Any::ArrayValue(ArrayValue { values }))]);
    assert_eq!(names(&reply), ["set-cookie", "set-cookie", MARK]);
}

#[test]
fn what_cannot_be_read_is_a_miss_and_what_failed_a_failure() {
    let whole = answer(&[("http.response.status_code", Any::IntValue(200))]);
    for cut in 0..whole.len() {
        assert!(!matches!(read(200, &whole[..cut]), Answer::Failure(_)));
    }
    assert_eq!(read(200, b""), Answer::Miss);
    assert_eq!(read(404, b"x"), Answer::Miss);
    for status in [0, 204, 302, 400, 401, 403, 500, 503, 504] {
        assert!(matches!(read(status, &whole), Answer::Failure(_)), "{status}");
    }
}
