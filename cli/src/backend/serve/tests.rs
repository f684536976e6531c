//! What answers a lookup: rules, sessions, recordings, in this order.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
use serde_json::json;

use super::*;
use crate::backend::Bounds;

/// A span of an exchange; `n` tells exchanges apart.
fn span(n: u8, attributes: &[(&str, Any)]) -> ResourceSpans {
    let attributes = attributes.iter().map(|(key, value)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(value.clone()) }),
        ..KeyValue::default()
    });
    let span = Span {
        trace_id: vec![n; 16],
        span_id: vec![n; 8],
        start_time_unix_nano: u64::from(n),
        attributes: attributes.collect(),
        ..Span::default()
    };
    ResourceSpans {
        scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

fn recorded(n: u8, url: &str, session: &str, request: &str, response: &str) -> ResourceSpans {
    span(
        n,
        &[
            ("http.request.method", text("POST")),
            ("url.full", text(url)),
            ("session.id", text(session)),
            ("http.request.body.content", text(request)),
            ("http.response.status_code", Any::IntValue(200)),
            ("http.response.body.content", text(response)),
            ("spctl.direction", text("outbound")),
        ],
    )
}

fn lookup(url: &str, session: &str, body: &str) -> ResourceSpans {
    span(
        99,
        &[
            ("sp.span.type", text("inject")),
            ("sp.traffic.direction", text("outbound")),
            ("sp.session.id", text(session)),
            ("http.request.method", text("POST")),
            ("url.full", text(url)),
            ("http.request.body", text(body)),
            ("http.request.header.x-tenant", text("a")),
        ],
    )
}

struct Rig {
    answers: Answers,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new(exchanges: Vec<ResourceSpans>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("test.db"), Bounds::default()).unwrap();
        let rig = Self { answers: Answers::default(), store, _dir: dir };
        rig.capture(exchanges);
        rig
    }

    fn capture(&self, resource_spans: Vec<ResourceSpans>) {
        let request = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest { resource_spans };
        let spans = decode::stored_spans(request).unwrap();
        self.store.insert(&spans).unwrap();
        self.answers.learn(&spans).unwrap();
    }

    fn serve(&self) -> Serving {
        self.answers.serve_captures(&self.store, &Filter::default(), false).unwrap()
    }

    /// Status and body of the answer.
    fn ask(&self, lookup: &ResourceSpans) -> Option<(i64, String)> {
        let Verdict::Hit(answer) = self.answers.answer(&self.store, lookup).unwrap() else { return None };
        let attributes = &answer.resource_spans[0].scope_spans[0].spans[0].attributes;
        let value = |key: &str| attributes.iter().find(|kv| kv.key == key)?.value.clone()?.value;
        let Some(Any::IntValue(status)) = value("http.response.status_code") else { panic!() };
        let Some(Any::StringValue(body)) = value("http.response.body") else { panic!() };
        assert!(value("spctl.inject.source").is_some());
        Some((status, body))
    }

    fn body(&self, lookup: &ResourceSpans) -> Option<String> {
        self.ask(lookup).map(|(_, body)| body)
    }
}

#[test]
fn host_path_query_and_body_choose_the_recording() {
    let rig = Rig::new(vec![
        recorded(1, "http://stock/a?x=1&y=2", "", "one", "first"),
        recorded(2, "http://stock/a?x=1&y=2", "", "two", "second"),
    ]);
    assert_eq!(rig.body(&lookup("http://stock/a?x=1&y=2", "", "one")), None, "nothing is served yet");
    assert_eq!(rig.serve().exchanges, 2);
    assert_eq!(rig.body(&lookup("http://STOCK:80/a?y=2&x=1", "", "two")).as_deref(), Some("second"));
    assert_eq!(rig.body(&lookup("http://stock/a?x=1&y=2", "", "one")).as_deref(), Some("first"));
    for miss in ["http://stock/b", "http://stock/a?x=1", "http://stock:81/a?x=1&y=2", "http://other/a?x=1&y=2"] {
        assert_eq!(rig.body(&lookup(miss, "", "one")), None, "{miss}");
    }
    assert_eq!(rig.body(&lookup("http://stock/a?x=1&y=2", "", "three")), None);
    let serving = rig.answers.serving().unwrap();
    assert_eq!((serving.hits, serving.misses), (2, 5));
}

#[test]
fn a_known_session_has_its_own_recordings_and_others_have_all() {
    let rig = Rig::new(vec![
        recorded(1, "http://stock/a", "s1", "", "of s1"),
        recorded(2, "http://stock/b", "s2", "", "of s2"),
    ]);
    rig.serve();
    assert_eq!(rig.body(&lookup("http://stock/a", "s1", "")).as_deref(), Some("of s1"));
    assert_eq!(rig.body(&lookup("http://stock/b", "s1", "")), None);
    assert_eq!(rig.body(&lookup("http://stock/b", "unheard of", "")).as_deref(), Some("of s2"));
}

#[test]
fn repeated_requests_get_their_recordings_in_order_and_the_last_for_good() {
    let url = "http://stock/poll";
    let rig = Rig::new((1..=3).map(|n| recorded(n, url, "", "", &n.to_string())).collect());
    rig.serve();
    let given: Vec<_> = (0..5).filter_map(|_| rig.body(&lookup(url, "", ""))).collect();
    assert_eq!(given, ["1", "2", "3", "3", "3"]);
}

#[test]
fn learns_what_comes_and_leaves_out_half_responses() {
    let rig = Rig::new(Vec::new());
    rig.answers.serve_captures(&rig.store, &Filter::default(), true).unwrap();
    let asked = lookup("http://stock/new", "", "");
    assert_eq!(rig.body(&asked), None);
    rig.capture(vec![recorded(1, "http://stock/new", "", "", "answer")]);
    assert_eq!(rig.body(&asked).as_deref(), Some("answer"));
    let mut half = recorded(2, "http://stock/half", "", "", "answ");
    let truncated = KeyValue {
        key: "spctl.response.body.truncated".into(),
        value: Some(AnyValue { value: Some(Any::BoolValue(true)) }),
        ..KeyValue::default()
    };
    half.scope_spans[0].spans[0].attributes.push(truncated);
    rig.capture(vec![half]);
    assert_eq!(rig.body(&lookup("http://stock/half", "", "")), None);
    assert_eq!(rig.answers.serving().unwrap().unusable, 1);
}

fn session(rig: &Rig) -> String {
    let opened = rig.answers.sessions(|s| s.open(&json!({"mode": "replay"}))).unwrap();
    opened["sessionId"].as_str().unwrap().to_owned()
}

fn change(rig: &Rig, id: &str, what: &str, request: serde_json::Value) -> Result<serde_json::Value, Refused> {
    rig.answers.sessions(|s| s.change(id, what, request))
}

#[test]
fn session_rules_come_before_case_rules_before_recordings() {
    let rig = Rig::new(Vec::new());
    let id = session(&rig);
    let trace = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        // As Softprobe's runtime writes ids: base64.
        "traceId": "AQEBAQEBAQEBAQEBAQEBAQ==", "spanId": "AQEBAQEBAQE=",
        "attributes": [
            {"key": "http.method", "value": {"stringValue": "POST"}},
            {"key": "url.full", "value": {"stringValue": "http://stock/a"}},
            {"key": "sp.traffic.direction", "value": {"stringValue": "outbound"}},
            {"key": "http.status_code", "value": {"intValue": "201"}},
            {"key": "http.response.body", "value": {"stringValue": "recorded"}},
        ],
    }]}]}]});
    let case = json!({"version": "1.0.0", "caseId": "c", "traces": [trace],
        "rules": [{"name": "case", "when": {"path": "/b"}, "then": {"action": "mock", "response": {"body": {"a": 1}}}}]});
    assert_eq!(change(&rig, &id, "load-case", case).unwrap()["sessionRevision"], 1);
    assert_eq!(rig.ask(&lookup("http://stock/a", &id, "")), Some((201, "recorded".into())));
    assert_eq!(rig.ask(&lookup("http://stock/b", &id, "")), Some((200, r#"{"a":1}"#.into())));
    let rules = json!({"rules": [
        {"name": "once", "consume": "once", "when": {"host": "STOCK", "method": "post", "headers": {"x-tenant": "a"}},
         "then": {"action": "error", "error": {"status": 404, "body": "gone"}}},
        {"name": "never", "priority": 9, "when": {"notHostSuffix": ["stock"]}, "then": {"action": "mock", "response": {}}},
        {"name": "pass", "when": {"path": "/a"}, "then": {"action": "passthrough"}},
    ]});
    assert_eq!(change(&rig, &id, "rules", rules).unwrap()["sessionRevision"], 2);
    // On a tie the later entry wins; a miss by rule is not looked up further.
    assert_eq!(rig.ask(&lookup("http://stock/a", &id, "")), None);
    // An error rule is an answer with its status, not a miss of the lookup.
    assert_eq!(rig.ask(&lookup("http://stock/b", &id, "")), Some((404, r#"{"error":"gone"}"#.into())));
    assert_eq!(rig.ask(&lookup("http://stock/b", &id, "")), Some((200, r#"{"a":1}"#.into())));
    let state = rig.answers.sessions(|s| s.state(&id)).unwrap();
    assert_eq!(state["caseSummary"], json!({"caseId": "c", "traceCount": 1}));
    assert_eq!(state["stats"]["injectedSpans"], 4);
}

#[test]
fn rules_that_would_not_be_honoured_are_refused() {
    let rig = Rig::new(Vec::new());
    let id = session(&rig);
    let mock = json!({"action": "mock", "response": {}});
    for rule in [
        json!({"when": {"bodyJsonPath": "$.a"}, "then": mock}),
        json!({"when": {"traceTags": {}}, "then": mock}),
        json!({"then": {"action": "replay"}}),
        json!({"then": {"action": "mock", "response": {"status": 100}}}),
        json!({"when": {}}),
    ] {
        let refused = change(&rig, &id, "rules", json!({"rules": [rule.clone()]}));
        assert!(matches!(refused, Err(Refused::Invalid(_))), "{rule}");
    }
    assert_eq!(change(&rig, "sess_x", "rules", json!({"rules": []})), Err(Refused::Unknown));
    assert!(matches!(change(&rig, &id, "policy", json!({"nope": 1})), Err(Refused::Invalid(_))));
    assert!(matches!(change(&rig, &id, "load-case", json!({"version": "2"})), Err(Refused::Invalid(_))));
}

#[test]
fn a_strict_policy_answers_misses_but_for_the_hosts_it_allows() {
    let rig = Rig::new(Vec::new());
    let id = session(&rig);
    change(&rig, &id, "policy", json!({"externalHttp": "strict", "allowHosts": ["*.internal"]})).unwrap();
    assert_eq!(rig.ask(&lookup("http://stock/a", &id, "")).unwrap().0, 500);
    assert_eq!(rig.ask(&lookup("http://a.internal/", &id, "")), None);
    assert_eq!(rig.answers.sessions(|s| s.stats(&id)).unwrap()["stats"]["strictMisses"], 1);
    change(&rig, &id, "close", serde_json::Value::Null).unwrap();
    assert_eq!(rig.ask(&lookup("http://stock/a", &id, "")), None);
}

#[test]
fn what_lost_a_secret_is_not_sent_again() {
    let mut exchange = recorded(1, "http://stock/login", "", "", "ok");
    let attribute = |key: &str, value: Any| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let marks = opentelemetry_proto::tonic::common::v1::ArrayValue {
        values: vec![AnyValue { value: Some(text("response.cookie.sid")) }],
    };
    exchange.scope_spans[0].spans[0].attributes.extend([
        attribute("http.response.header.set-cookie", text("sid=REDACTED; Path=/")),
        attribute("http.response.header.content-type", text("text/plain")),
        attribute("spctl.redacted", Any::ArrayValue(marks)),
    ]);
    let rig = Rig::new(vec![exchange]);
    rig.serve();
    let Verdict::Hit(answer) = rig.answers.answer(&rig.store, &lookup("http://stock/login", "", "")).unwrap() else {
        panic!()
    };
    let keys: Vec<_> =
        answer.resource_spans[0].scope_spans[0].spans[0].attributes.iter().map(|kv| kv.key.as_str()).collect();
    assert!(keys.contains(&"http.response.header.content-type") && !keys.contains(&"http.response.header.set-cookie"));
}
