//! Answers from recordings on every harness: a service without its
//! dependencies, learning, cases, failures, held bodies.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Spctl, address, envoys, harnesses};

/// One request on a connection of its own; the whole answer.
fn request(proxy: std::net::SocketAddr, parts: &[&str]) -> String {
    let mut stream = TcpStream::connect(proxy).unwrap();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            std::thread::sleep(Duration::from_millis(60));
        }
        // A proxy that answered already may have closed.
        let _ = stream.write_all(part.as_bytes());
    }
    read(stream)
}

/// What comes until the end; a proxy that answers before it has read the whole
/// request may end with a reset.
fn read(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 16384];
    while let Ok(size @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..size]);
    }
    String::from_utf8(answer).unwrap()
}

fn get(proxy: std::net::SocketAddr, path: &str) -> String {
    request(proxy, &[&format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")])
}

fn post(proxy: std::net::SocketAddr, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    request(proxy, &[&head, body])
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn instance(spctl: &Spctl) -> Value {
    spctl.status()
}

#[test]
fn the_shop_answers_without_its_inventory() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        spctl.data(&["quickstart", "--harness", harness]);
        let proxy = address(&instance(&spctl)["proxy_url"]);
        let order = r#"{"items":["tea"]}"#;
        let (products, ordered) = (get(proxy, "/products"), post(proxy, "/orders", order));
        assert_eq!((status(&products), status(&ordered)), ("200", "201"), "{harness}");
        // The demo's traffic, two requests, and what the shop asked for them.
        let all = spctl::demo::traffic::exchanges() as u64 + 4;
        spctl.wait_status("all stored", |s| s["counters"]["stored"] == all);

        assert!(spctl.data(&["captures", "serve"])["exchanges"].as_u64().unwrap() > 10, "{harness}");
        spctl.data(&["demo", "stop", "inventory"]);
        assert_eq!(body(&get(proxy, "/products")), body(&products), "{harness}");
        assert_eq!(body(&post(proxy, "/orders", order)), body(&ordered), "{harness}");
        // The other order was never recorded, and there is nobody to ask.
        assert_eq!(status(&post(proxy, "/orders", r#"{"items":["cup"]}"#)), "502", "{harness}");
        let now = spctl.wait_status("the lookups counted", |s| s["counters"]["injected"] == 2);
        assert_eq!((&now["serving"]["hits"], &now["serving"]["misses"]), (&2.into(), &1.into()), "{harness}");
        // Three inbound exchanges and the outbound one that missed: answers
        // from recordings are no observations.
        let now = spctl.wait_status("all captured", |s| s["counters"]["captured"].as_u64() >= Some(all + 4));
        assert_eq!(now["counters"]["captured"], all + 4, "{harness}");

        assert_eq!(spctl.data(&["captures", "serve", "--off"])["served"]["hits"], 2);
        assert_eq!(status(&get(proxy, "/products")), "502", "{harness}");
        spctl.data(&["demo", "start", "inventory"]);
        assert_eq!(body(&get(proxy, "/products")), body(&products), "{harness}");
        spctl.data(&["down"]);
    }
}

#[test]
fn what_was_learned_once_needs_no_inventory_again() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        spctl.data(&["quickstart", "--harness", harness]);
        let proxy = address(&instance(&spctl)["proxy_url"]);
        spctl.wait_status("all stored", |s| s["counters"]["stored"] == s["counters"]["captured"]);
        spctl.data(&["captures", "clear"]);
        assert_eq!(spctl.data(&["captures", "serve", "--learn"])["exchanges"], 0);
        let first = get(proxy, "/products/tea");
        assert_eq!(status(&first), "200");
        spctl.wait_status("it learned", |s| s["serving"]["exchanges"].as_u64() >= Some(2));
        spctl.data(&["demo", "stop", "inventory"]);
        assert_eq!(body(&get(proxy, "/products/tea")), body(&first), "{harness}");
        let serving = &instance(&spctl)["serving"];
        assert_eq!((&serving["hits"], &serving["misses"]), (&1.into(), &1.into()), "{harness}");
        spctl.data(&["down"]);
    }
}

#[test]
fn a_case_answers_in_another_instance() {
    let recorded = Spctl::new();
    recorded.data(&["quickstart"]);
    let case = recorded.run(&["captures", "export", "--format", "case", "--direction", "outbound"]).stdout;
    let products = get(address(&instance(&recorded)["proxy_url"]), "/products");
    recorded.data(&["down"]);

    let spctl = Spctl::new();
    let file = spctl.file("shop.case.json", case);
    spctl.data(&["quickstart"]);
    spctl.data(&["demo", "stop", "inventory"]);
    let serving = spctl.data(&["captures", "serve", file.to_str().unwrap()]);
    assert_eq!(serving["exchanges"], 3, "{serving}");
    let answer = get(address(&instance(&spctl)["proxy_url"]), "/products");
    assert_eq!(body(&answer), body(&products));
    let broken = spctl.file("broken.case.json", r#"{"version": "1.0.0", "caseId": "x", "traces": [{"a": "#);
    assert_eq!(spctl.error(&["captures", "serve", broken.to_str().unwrap()])["code"], "config_unparsable");
    // The one before serves on.
    assert_eq!(instance(&spctl)["serving"]["exchanges"], 3);
}

#[test]
fn inbound_answers_are_marked_and_need_no_outbound_listener() {
    for harness in harnesses() {
        let spctl = Spctl::new();
        spctl.data(&["run", "--detach", "--harness", harness]);
        let proxy = address(&instance(&spctl)["proxy_url"]);
        assert_eq!(spctl.error(&["captures", "serve"])["code"], "usage");
        let first = get(proxy, "/get?a=1&b=2");
        spctl.wait_status("it is stored", |s| s["counters"]["stored"] == 1);
        let id = spctl.data(&["captures", "list"])["exchanges"][0]["id"].as_str().unwrap().to_owned();
        spctl.data(&["captures", "serve", "--answer", "inbound"]);
        let answer = get(proxy, "/get?b=2&a=1");
        assert!(answer.contains(&format!("x-softprobe-injected: {id}\r\n")), "{harness}: {answer}");
        assert_eq!(body(&answer), body(&first), "{harness}");
        assert!(!get(proxy, "/get?b=3").contains("x-softprobe-injected"), "{harness}");
        // A reload keeps answering.
        spctl.data(&["reload", "--force"]);
        assert!(get(proxy, "/get?b=2&a=1").contains("x-softprobe-injected"), "{harness}");
        spctl.data(&["down"]);
    }
}

/// Nobody answers lookups here: the backend's address is a closed port.
#[test]
fn a_dead_backend_costs_nothing_unless_strict() {
    for harness in harnesses() {
        for strict in [false, true] {
            let spctl = Spctl::new();
            let config = format!(r#"{{"inject": {{"enabled": true, "direction": "both", "strict": {strict}}}}}"#);
            let config = spctl.file("c.json", config);
            let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let url = format!("http://{closed}");
            let config = config.to_str().unwrap();
            spctl.data(&["run", "--detach", "--harness", harness, "--config", config, "--backend", &url]);
            let proxy = address(&instance(&spctl)["proxy_url"]);
            let started = Instant::now();
            let answer = post(proxy, "/anything", "hello");
            assert!(started.elapsed() < Duration::from_secs(3));
            if strict {
                assert_eq!((status(&answer), body(&answer).contains("no recorded answer")), ("503", true), "{answer}");
            } else {
                assert_eq!((status(&answer), answer.contains("hello")), ("200", true), "{harness}: {answer}");
            }
            spctl.wait_status("the failure counted", |s| s["counters"]["inject_failures"] == 1);
            spctl.data(&["down"]);
        }
    }
}

/// Bodies in many parts, held or not, whole or beyond the bound, with and
/// without an answer: the upstream gets each byte once, and so does the record.
#[test]
fn held_bodies_arrive_once_on_every_envoy() {
    let mut places: Vec<(&str, Option<std::path::PathBuf>)> = vec![("embedded", None)];
    places.extend(envoys().into_iter().map(|envoy| ("envoy", Some(envoy))));
    for (harness, envoy) in places {
        for held in ["true", "false"] {
            let spctl = Spctl::new();
            let config = format!(
                r#"{{"inject": {{"enabled": true, "direction": "both", "body": {held}, "body_bytes": 4096, "timeout_ms": 400}}}}"#
            );
            let config = spctl.file("c.json", config);
            let mut args = vec!["run", "--detach", "--harness", harness, "--config", config.to_str().unwrap()];
            if let Some(envoy) = &envoy {
                args.extend(["--envoy-path", envoy.to_str().unwrap()]);
            }
            spctl.data(&args);
            let proxy = address(&instance(&spctl)["proxy_url"]);
            for (size, parts, pause) in [(10, 5, 10), (4000, 4, 10), (9000, 9, 10), (1000, 4, 250), (200_000, 20, 5)] {
                let body_sent: String = (0..size).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
                for chunked in [true, false] {
                    let what = format!("{harness} {envoy:?} held={held} {size} bytes chunked={chunked}");
                    let answer = upload(proxy, &body_sent, parts, pause, chunked);
                    assert_eq!(status(&answer), "200", "{what}: {answer}");
                    let echoed: Value = serde_json::from_str(body(&dechunked(&answer))).unwrap();
                    assert!(echoed["data"] == body_sent.as_str(), "{what}: the upstream got another body");
                }
            }
            let stored = spctl.wait_status("all stored", |s| s["counters"]["stored"] == 10);
            assert_eq!(crate::common::dropped(&stored["counters"]), 0);
            for exchange in spctl.data(&["captures", "list"])["exchanges"].as_array().unwrap() {
                let shown = spctl.data(&["captures", "show", exchange["id"].as_str().unwrap()]);
                let kept = &shown["request"]["body"];
                let size = kept["size"].as_u64().unwrap();
                let wanted: String = (0..size.min(65_536)).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
                assert!(
                    kept["data"] == wanted.as_str(),
                    "{harness} {envoy:?} held={held}: {size} bytes recorded wrongly"
                );
            }
            spctl.data(&["down"]);
        }
    }
}

fn upload(proxy: std::net::SocketAddr, body: &str, parts: usize, pause_ms: u64, chunked: bool) -> String {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_nodelay(true).unwrap();
    let framing =
        if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {}", body.len()) };
    let head = format!(
        "POST /anything HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-type: text/plain\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for part in body.as_bytes().chunks(body.len().div_ceil(parts)) {
        std::thread::sleep(Duration::from_millis(pause_ms));
        if chunked {
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).unwrap();
        }
        stream.write_all(part).unwrap();
        if chunked {
            stream.write_all(b"\r\n").unwrap();
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").unwrap();
    }
    read(stream)
}

/// The answer without its chunk framing, if it has any.
fn dechunked(answer: &str) -> String {
    let Some((head, mut rest)) = answer.split_once("\r\n\r\n") else { return answer.to_owned() };
    if !head.contains("transfer-encoding: chunked") {
        return answer.to_owned();
    }
    let mut whole = format!("{head}\r\n\r\n");
    while let Some((size, data)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&data[..size]);
        rest = &data[size + 2..];
    }
    whole
}
