use super::*;
use crate::policy::{Decision, Reason};
use serde_json::{Value, json};

fn good(document: Value) -> Config {
    let parsed = parse(document.to_string().as_bytes()).unwrap();
    assert_eq!(parsed.warnings, [], "{document}");
    parsed.config
}

fn bad_path(document: Value) -> String {
    parse(document.to_string().as_bytes()).expect_err(&document.to_string()).path
}

fn decide(config: &Config, path: &str, direction: Direction) -> Decision {
    let pairs = [(":path", path), (":authority", "shop:8080")];
    let headers = crate::headers::Headers::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_bytes())));
    config.policy.decide(&crate::exchange::Head::read(&headers), direction)
}

/// A document in which `path` has `value`.
fn document(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, step| match step.strip_suffix("[]") {
        Some(key) => json!({ key: [inner] }),
        None => json!({ step: inner }),
    })
}

#[test]
fn nothing_at_all_is_the_default() {
    for empty in ["", "  ", "{}"] {
        let config = parse(empty.as_bytes()).unwrap().config;
        assert_eq!(config.wire, WireKind::Otlp);
        assert_eq!(config.backend.cluster, "outbound|4318||127.0.0.1");
        assert_eq!((config.auth, config.session), (Auth::Bearer, Session::Read));
        assert_eq!(decide(&config, "/v1/traces", Direction::Inbound), Decision::Skip(Reason::Exempt));
    }
}

#[test]
fn every_key_of_the_reference_is_read_by_the_parser() {
    for key in KEYS {
        // No key takes a number beyond 64 bits, whatever its type.
        let path = bad_path(document(key.path, json!(1e300)));
        assert_eq!(path.replace("[0]", "[]"), key.path);
    }
}

#[test]
fn the_parser_reads_no_key_that_the_reference_lacks() {
    let source = include_str!("parse.rs");
    let names: Vec<&str> =
        KEYS.iter().flat_map(|k| k.path.rsplit(['.', ']']).next()).map(|n| n.trim_end_matches("[]")).collect();
    for getter in
        ["string", "bool", "integer", "choice", "object", "objects", "strings", "pattern", "patterns", "names"]
    {
        for call in source.split(&format!(".{getter}(\"")).skip(1) {
            let key = call.split('"').next().unwrap();
            assert!(names.contains(&key) || ["add", "remove"].contains(&key), "{key}");
        }
    }
}

#[test]
fn softprobe_brings_its_own_defaults() {
    let config = good(json!({"wire": "softprobe", "public_key": "k"}));
    assert_eq!(config.backend.cluster, "outbound|443||o.softprobe.ai");
    assert_eq!((config.auth, config.session, config.skip_gateways), (Auth::Both, Session::Generate, true));
}

#[test]
fn backend_urls_keep_their_base_path_and_derive_the_cluster() {
    let backend = |url: &str| good(json!({ "sp_backend_url": url })).backend;
    let collector = backend("http://collector:4318/tenant/a/");
    assert_eq!((collector.authority.as_str(), collector.base.as_str()), ("collector:4318", "/tenant/a"));
    assert_eq!(backend("https://x").authority, "x");
    assert_eq!(backend("https://x/v1/traces").base, "");
    assert_eq!(backend("http://[::1]:9").cluster, "outbound|9||::1");
    for bad in ["x", "ftp://x", "http://", "http://x:0", "http://x:y", "http://u@x", "http://x/?q", "http://x y"] {
        assert_eq!(bad_path(json!({ "sp_backend_url": bad })), "sp_backend_url", "{bad}");
    }
}

#[test]
fn the_old_name_of_the_key_is_accepted() {
    assert_eq!(good(json!({"api_key": "old"})).public_key.as_deref(), Some("old"));
    assert_eq!(good(json!({"api_key": "old", "public_key": "new"})).public_key.as_deref(), Some("new"));
    assert_eq!(good(json!({"public_key": ""})).public_key, None);
    assert_eq!(bad_path(json!({"public_key": "a\r\nb"})), "public_key");
}

#[test]
fn bad_values_fail_with_the_path_of_their_key() {
    let rules = |entry: Value| json!({"collectionRules": {"http": {"server": [{"path": "/"}, entry]}}});
    assert_eq!(bad_path(rules(json!({"path": "("}))), "collectionRules.http.server[1].path");
    assert_eq!(bad_path(rules(json!({"paths": ["/", 1]}))), "collectionRules.http.server[1].paths[1]");
    assert_eq!(bad_path(rules(json!({}))), "collectionRules.http.server[1]");
    assert_eq!(bad_path(rules(json!("x"))), "collectionRules.http.server[1]");
    assert_eq!(bad_path(json!({"exemptionRules": {}})), "exemptionRules");
    assert_eq!(bad_path(json!({"limits": {"linger_ms": -1}})), "limits.linger_ms");
    assert_eq!(bad_path(json!({"limits": {"batch_exchanges": 0}})), "limits.batch_exchanges");
    assert_eq!(bad_path(json!({"redact": {"json": {"add": "x"}}})), "redact.json.add");
    assert_eq!(bad_path(json!({"attributes": ["nope"]})), "attributes[0]");
    assert_eq!(bad_path(json!({"traffic_direction": "sideways"})), "traffic_direction");
    assert_eq!(bad_path(json!([])), "");
    assert_eq!(parse(b"{").unwrap_err().path, "");
    assert_eq!(parse(b"\xff").unwrap_err().path, "");
}

#[test]
fn unknown_and_retired_keys_warn_and_do_nothing() {
    let document = json!({
        "cache_ttl_seconds": 3600,
        "sp_backend_ulr": "x",
        "circuit_breaker": {"max_failures": 3},
        "redact": {"headers": {"ad": []}},
        "collectionRules": {"http": {"client": [{"host": "h", "methods": ["GET"]}]}},
    });
    let parsed = parse(document.to_string().as_bytes()).unwrap();
    let paths: Vec<&str> = parsed.warnings.iter().map(|w| w.path.as_str()).collect();
    let expected = [
        "cache_ttl_seconds",
        "sp_backend_ulr",
        "circuit_breaker",
        "redact.headers.ad",
        "collectionRules.http.client[0].methods",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn null_is_absent() {
    assert_eq!(good(json!({"public_key": null, "limits": null})).limits, good(json!({})).limits);
}

#[test]
fn exemptions_can_be_switched_off_and_name_hosts_alone() {
    let config = good(json!({"exemptionRules": []}));
    assert_eq!(decide(&config, "/v1/traces", Direction::Inbound), Decision::Capture);
    let config = good(json!({"exemptionRules": [{"hostPatterns": ["^shop$"]}]}));
    assert_eq!(decide(&config, "/", Direction::Inbound), Decision::Skip(Reason::Exempt));
}

#[test]
fn old_flat_rules_are_mapped() {
    let config = good(json!({"serverPath": "^/a", "clientHost": "shop", "clientPaths": ["^/b"]}));
    assert_eq!(decide(&config, "/a", Direction::Inbound), Decision::Capture);
    assert_eq!(decide(&config, "/b", Direction::Outbound), Decision::Capture);
    assert_eq!(decide(&config, "/b", Direction::Inbound), Decision::Skip(Reason::NotSelected));
}

#[test]
fn masking_is_mapped_to_redaction() {
    let masking = json!({"maskRequestHeaders": ["X-Mine", "cookie"], "maskResponseBody": false});
    let config = good(json!({ "masking": masking }));
    assert!(config.redact.headers.contains(b"x-mine") && config.redact.headers.contains(b"authorization"));
    assert!(config.redact.request_body && !config.redact.response_body);
}

#[test]
fn name_lists_replace_or_edit_the_defaults() {
    let replaced = good(json!({"redact": {"headers": ["x"]}})).redact.headers;
    assert!(replaced.contains(b"x") && !replaced.contains(b"authorization"));
    let edited = good(json!({"redact": {"headers": {"add": ["x"], "remove": ["authorization"]}}})).redact.headers;
    assert!(edited.contains(b"x") && edited.contains(b"x-api-key") && !edited.contains(b"authorization"));
}

/// Every key is read, and as what the reference says it is.
#[test]
fn every_key_refuses_what_its_kind_does_not_allow() {
    for key in KEYS {
        let wrong = match key.kind {
            Kind::Text | Kind::Url | Kind::Regex | Kind::Choice(_) => vec![json!(7)],
            Kind::Bool | Kind::Flag => vec![json!(7)],
            Kind::Integer(min, max) => {
                [min.checked_sub(1), max.checked_add(1)].iter().flatten().map(|n| json!(n)).collect()
            }
            Kind::Texts | Kind::Regexes | Kind::Set(_) | Kind::Names => vec![json!([7]), json!("x")],
            Kind::Headers => vec![json!({"x": 7}), json!({"a b": "c"})],
            Kind::Object | Kind::Objects(_) => vec![json!(7)],
        };
        for value in wrong.into_iter().chain(matches!(key.kind, Kind::Choice(_)).then(|| json!("no such choice"))) {
            let mut document = json!(null);
            for part in key.path.rsplit('.') {
                let inner = std::mem::take(&mut document);
                let inner = if inner.is_null() { value.clone() } else { inner };
                document = match part.strip_suffix("[]") {
                    Some(name) => json!({ name: [inner] }),
                    None => json!({ part: inner }),
                };
            }
            let error = parse(document.to_string().as_bytes()).err();
            assert!(error.is_some(), "{document} was taken");
        }
    }
}

#[test]
fn apiclarity_brings_the_names_of_its_deployments() {
    let config = good(json!({"wire": "apiclarity", "trace_sampling_enabled": "true", "service_mesh": "kuma"}));
    assert_eq!((config.backend.authority.as_str(), config.backend.cluster.as_str()), ("apiclarity", "trace_analyzer"));
    assert_eq!(config.sampling.unwrap().cluster, "trace-sampling-manager");
    assert_eq!((config.mesh, config.limits.batch_exchanges), (Mesh::Kuma, 1));
    assert_eq!(good(json!({"wire": "apiclarity-v1"})).backend.authority, "scn");
    let parsed = parse(br#"{"wire": "apiclarity", "inject": {"enabled": true}}"#).unwrap();
    assert!(!parsed.config.inject.enabled && parsed.warnings.len() == 1);
}

#[test]
fn injection_is_off_unless_asked_for_by_any_of_its_names() {
    assert!(!good(json!({})).inject.enabled);
    for on in [json!({"inject": {"enabled": true}}), json!({"enable_inject": true}), json!({"sp_enable_cache": true})] {
        assert!(good(on).inject.enabled);
    }
    assert!(!good(json!({"inject": {"enabled": false}, "enable_inject": true})).inject.enabled);
}
