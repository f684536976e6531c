//! The main job, on every harness here: real traffic captured, the same
//! exchanges everywhere, no secret anywhere.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use crate::common::{self, Spctl, envoy, harnesses};
use serde_json::Value;
use spctl::demo::traffic::secrets;

/// What must not depend on the harness.
fn shape(exchange: &Value) -> (String, String, String, u64, u64, u64, bool, Vec<String>) {
    let text = |name: &str| exchange[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| exchange[name].as_u64().unwrap();
    let mut redacted: Vec<String> =
        exchange["redacted"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
    redacted.sort();
    (
        text("direction"),
        text("method"),
        text("url"),
        number("status"),
        number("request_bytes"),
        number("response_bytes"),
        exchange["truncated"].as_bool().unwrap(),
        redacted,
    )
}

fn quickstart(harness: &str) -> (Spctl, Value, Vec<Value>) {
    let spctl = Spctl::new();
    let data = spctl.data(&["quickstart", "--harness", harness]);
    let page = spctl.data(&["captures", "list"]);
    let exchanges = page["exchanges"].as_array().unwrap().clone();
    (spctl, data, exchanges)
}

#[test]
fn captures_the_whole_demo_on_every_harness() {
    for harness in harnesses() {
        let (spctl, data, exchanges) = quickstart(harness);
        assert_eq!(data["exchanges"], spctl::demo::traffic::exchanges(), "{harness}");
        assert!(exchanges.len() >= 12, "{harness}: {}", exchanges.len());
        assert_eq!(data["instances"][0]["harness"], harness);
        let counters = &data["instances"][0]["counters"];
        assert_eq!(counters["captured"], counters["stored"], "{counters}");
        assert_eq!(common::dropped(counters), 0, "{counters}");
        let served = &data["instances"][0]["proxies"][0]["plugins"][0]["plugin_digest"];
        assert_eq!(*served, data["instances"][0]["plugins"][0]["plugin_digest"]);

        let again = spctl.data(&["quickstart", "--harness", harness]);
        assert_eq!((again["found"].as_bool(), &again["exchanges"]), (Some(true), &data["exchanges"]));

        spctl.data(&["down"]);
        assert!(!spctl.instance_dir("default").exists(), "{harness}: something is left");
    }
}

#[test]
fn outbound_legs_join_the_trace_of_their_inbound_exchange() {
    for harness in harnesses() {
        let (_spctl, _, exchanges) = quickstart(harness);
        let outbound: Vec<_> = exchanges.iter().filter(|e| e["direction"] == "outbound").collect();
        assert_eq!(outbound.len(), 3, "{harness}");
        for leg in outbound {
            let parent = exchanges.iter().find(|e| e["span_id"] == leg["parent_span_id"]).expect("a parent");
            assert_eq!(
                (&parent["trace_id"], &parent["direction"]),
                (&leg["trace_id"], &Value::from("inbound")),
                "{harness}"
            );
        }
    }
}

#[test]
fn both_harnesses_capture_the_same() {
    if envoy().is_none() {
        return;
    }
    let (embedded, _, on_embedded) = quickstart("embedded");
    let (native, _, on_envoy) = quickstart("envoy");
    let shapes = |all: &[Value]| all.iter().map(shape).collect::<BTreeSet<_>>();
    assert_eq!(shapes(&on_embedded), shapes(&on_envoy));
    // Headers too, names and order, of every exchange.
    let headers = |spctl: &Spctl, all: &[Value]| {
        let mut rows: Vec<(String, Vec<String>, Vec<String>)> = all
            .iter()
            .map(|e| {
                let shown = spctl.data(&["captures", "show", e["id"].as_str().unwrap()]);
                let names = |side: &str| {
                    shown[side]["headers"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|h| h[0].as_str().unwrap().to_owned())
                        .collect()
                };
                (format!("{:?}", shape(e)), names("request"), names("response"))
            })
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(headers(&embedded, &on_embedded), headers(&native, &on_envoy));
}

#[test]
fn no_secret_reaches_database_logs_or_output() {
    for harness in harnesses() {
        let (spctl, data, exchanges) = quickstart(harness);
        let mut seen = vec![("quickstart".to_owned(), data.to_string().into_bytes())];
        for format in ["har", "otlp", "curl"] {
            seen.push((format.to_owned(), spctl.run(&["captures", "export", "--format", format]).stdout.into_bytes()));
        }
        for exchange in &exchanges {
            let id = exchange["id"].as_str().unwrap();
            let shown = spctl.data(&["captures", "show", id]);
            for side in ["request", "response"] {
                seen.push((format!("{id} {side}"), decoded(&shown[side]["body"])));
            }
            seen.push((id.to_owned(), shown.to_string().into_bytes()));
        }
        seen.push(("logs".into(), spctl.run(&["logs", "--all", "--output", "json"]).stdout.into_bytes()));
        collect_files(&spctl.instance_dir("default"), &mut seen);
        assert!(seen.iter().any(|(name, _)| name.ends_with("captures.db")), "the database was looked into");
        for (name, bytes) in &seen {
            for secret in secrets::ALL {
                assert!(!contains(bytes, secret.as_bytes()), "{harness}: {secret} is in {name}");
            }
        }
        // The test can fail: what is not secret is there.
        assert!(seen.iter().any(|(_, bytes)| contains(bytes, b"quick, please")), "{harness}");
    }
}

#[test]
fn a_gzip_body_is_captured_decoded() {
    let (spctl, _, exchanges) = quickstart("embedded");
    let report = exchanges.iter().find(|e| e["url"].as_str().unwrap().ends_with("/report")).unwrap();
    let shown = spctl.data(&["captures", "show", report["id"].as_str().unwrap()]);
    let body = &shown["response"]["body"];
    assert_eq!((&body["encoding"], &body["decoded_from"]), (&Value::from("utf8"), &Value::from("gzip")));
    let text = body["data"].as_str().unwrap();
    assert!(text.contains("\"sold\":117") && text.contains("REDACTED"), "{text}");
}

/// The body's bytes, inflated if they are gzip.
fn decoded(body: &Value) -> Vec<u8> {
    use base64::Engine;
    let data = body["data"].as_str().unwrap_or_default();
    let bytes = if body["encoding"] == "base64" {
        base64::engine::general_purpose::STANDARD.decode(data).unwrap()
    } else {
        data.as_bytes().to_vec()
    };
    let mut inflated = Vec::new();
    match flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut inflated) {
        Ok(_) => inflated,
        Err(_) => bytes,
    }
}

fn collect_files(dir: &Path, seen: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_files(&path, seen);
        } else if path.is_file() {
            seen.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
