//! The local backend as any exporter meets it: encodings, refusals, bounds.

use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use spctl::adapters::http::{Answer, send};
use spctl::backend::{Backend, Bounds, Filter, Store};

use crate::common::runtime;

const PROTOBUF: &str = "application/x-protobuf";

fn upload(ids: std::ops::Range<u8>) -> ExportTraceServiceRequest {
    let spans = ids.map(|id| Span { trace_id: vec![id; 16], span_id: vec![id; 8], ..Span::default() }).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// Sends each to a fresh backend; returns the answers, the store and its directory.
fn ask(bounds: Bounds, requests: Vec<(&str, Option<&str>, Vec<u8>)>) -> (Vec<Answer>, Arc<Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&dir.path().join("test.db"), bounds).unwrap());
    let answers = runtime().block_on(async {
        let backend = Backend::start("127.0.0.1:0".parse().unwrap(), store.clone()).await.unwrap();
        let mut answers = Vec::new();
        for (content_type, coding, body) in requests {
            let mut request = Request::post("/v1/traces").header("host", "test").header("content-type", content_type);
            if let Some(coding) = coding {
                request = request.header("content-encoding", coding);
            }
            let request = request.body(Full::new(Bytes::from(body))).unwrap();
            answers.push(send(backend.address, request, std::time::Duration::from_secs(20)).await.unwrap());
        }
        answers
    });
    (answers, store, dir)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn takes_protobuf_and_json_plain_and_gzip() {
    let json = |id: u8| {
        let (trace, span) = (spctl::state::hex(&[id; 16]), spctl::state::hex(&[id; 8]));
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{trace}","spanId":"{span}"}}]}}]}}]}}"#)
    };
    let (answers, store, _dir) = ask(
        Bounds::default(),
        vec![
            (PROTOBUF, None, upload(1..3).encode_to_vec()),
            (PROTOBUF, Some("gzip"), gzip(&upload(3..4).encode_to_vec())),
            ("application/json", None, json(4).into_bytes()),
            ("application/json; charset=utf-8", Some("gzip"), gzip(json(5).as_bytes())),
        ],
    );
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // An empty ExportTraceServiceResponse in the request's encoding.
    assert_eq!((&answers[0].body[..], &answers[2].body[..]), (&b""[..], &b"{}"[..]));
    assert_eq!(store.counts().stored, 5);
}

#[test]
fn refuses_what_it_cannot_read_and_stores_nothing_of_it() {
    let mut short = upload(1..2);
    short.resource_spans[0].scope_spans[0].spans[0].trace_id = vec![1];
    let bomb = gzip(&vec![0; (64 << 20) + 1]);
    let (answers, store, _dir) = ask(
        Bounds::default(),
        vec![
            (PROTOBUF, None, b"not protobuf".to_vec()),
            ("application/json", None, b"{\"resourceSpans\": 7}".to_vec()),
            (PROTOBUF, Some("gzip"), b"not gzip".to_vec()),
            (PROTOBUF, None, short.encode_to_vec()),
            (PROTOBUF, Some("gzip"), bomb),
            ("text/plain", None, b"hello".to_vec()),
            (PROTOBUF, Some("br"), b"x".to_vec()),
        ],
    );
    let status: Vec<u16> = answers.iter().map(|a| a.status.as_u16()).collect();
    assert_eq!(status, [400, 400, 400, 400, 413, 415, 415]);
    assert_eq!(store.counts().stored, 0);
}

#[test]
fn an_upload_sent_twice_is_stored_once() {
    let body = upload(1..4).encode_to_vec();
    let (_, store, _dir) = ask(Bounds::default(), vec![(PROTOBUF, None, body.clone()), (PROTOBUF, None, body)]);
    let counts = store.counts();
    assert_eq!((counts.stored, counts.repeated), (3, 3));
}

#[test]
fn over_its_bounds_the_oldest_go_and_are_counted() {
    let bounds = Bounds { exchanges: 10, ..Bounds::default() };
    let uploads = (0..5).map(|n| (PROTOBUF, None, upload(n * 5 + 1..n * 5 + 6).encode_to_vec())).collect();
    let (_, store, _dir) = ask(bounds, uploads);
    let counts = store.counts();
    assert_eq!((counts.stored, counts.stored - counts.evicted), (25, 10));
    let page = store.list(&Filter::default()).unwrap();
    assert_eq!(page.exchanges.first().unwrap().id, spctl::state::hex(&[25; 8]), "the newest is there");
    assert_eq!(page.exchanges.last().unwrap().id, spctl::state::hex(&[16; 8]), "the oldest are gone");
}

#[test]
fn reads_softprobes_spelling() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    let text = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..KeyValue::default()
    };
    let mut upload = upload(1..2);
    upload.resource_spans[0].scope_spans[0].spans[0].attributes = vec![
        text("http.request.header.:method", "POST"),
        text("http.request.header.:authority", "shop.test"),
        text("http.request.header.:path", "/a?b=c"),
        text("sp.session.id", "s-1"),
        text("sp.traffic.direction", "inbound"),
        text("http.request.header.x-a", "1"),
        text("http.request.body", &base64::engine::general_purpose::STANDARD.encode([0xff, 0])),
        text("spctl.request.body.encoding", "base64"),
    ];
    let (_, store, _dir) = ask(Bounds::default(), vec![(PROTOBUF, None, upload.encode_to_vec())]);
    let exchange = spctl::backend::exchange(&store.find("0101").unwrap()).unwrap();
    assert_eq!((exchange.summary.method.as_str(), exchange.summary.url.as_str()), ("POST", "http://shop.test/a?b=c"));
    assert_eq!(exchange.summary.session_id.as_deref(), Some("s-1"));
    assert_eq!(exchange.request.headers, [("x-a".to_owned(), "1".to_owned())]);
    assert_eq!(exchange.request.body.unwrap().bytes(), [0xff, 0]);
}
