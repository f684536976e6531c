//! Traffic that broke earlier filters, on every harness: each request is
//! answered as without a filter, and recorded as it was. The names of the tests
//! follow the defects that a request can trigger.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use crate::common::{self, Spctl, address, harnesses};

/// Echoes the request's head in the body; the path says how.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let path = head.split(|b| *b == b' ').nth(1).unwrap_or_default().to_vec();
    let is = |prefix: &[u8]| path.starts_with(prefix);
    let mut out: Vec<u8> = Vec::new();
    if is(b"/trailers") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-end: yes\r\n\r\n");
    } else if is(b"/cut") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf");
    } else if is(b"/upgrade") {
        // Then it says everything again.
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        return;
    } else {
        let status = if is(b"/fail") { "503 Service Unavailable" } else { "200 OK" };
        let kind = if is(b"/binary") { "application/octet-stream" } else { "Text/Plain; charset=utf-8" };
        let body = if is(b"/binary") { vec![0xff, 0xfe, 0, 1] } else { head.clone() };
        let length = if head.starts_with(b"HEAD") { 7 } else { body.len() };
        out.extend_from_slice(
            format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n").as_bytes(),
        );
        out.extend_from_slice(b"set-cookie: a=1\r\nx-raw: \xe9\xff\r\nset-cookie: b=2\r\ntraceparent: 00-11111111111111111111111111111111-2222222222222222-01\r\n\r\n");
        if !head.starts_with(b"HEAD") {
            out.extend_from_slice(&body);
        }
    }
    let _ = stream.write_all(&out);
}

struct Rig {
    spctl: Spctl,
    proxy: SocketAddr,
    sent: std::cell::Cell<u64>,
}

impl Rig {
    fn new(harness: &str, config: &str) -> Self {
        let spctl = Spctl::new();
        let config = spctl.file("c.json", config);
        let upstream = format!("http://{}", upstream());
        let args = ["run", "--detach", "--harness", harness, "--upstream", &upstream, "--config"];
        spctl.data(&[&args[..], &[config.to_str().unwrap()]].concat());
        let proxy = address(&spctl.status()["proxy_url"]);
        Self { spctl, proxy, sent: Default::default() }
    }

    /// Sends lines of a head; the answer as text, lossy.
    fn send(&self, method: &str, path: &str, lines: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: shop:81\r\n").into_bytes();
        for line in lines {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
        if !lines.iter().any(|line| line.starts_with(b"connection")) {
            head.extend_from_slice(b"connection: close\r\n");
        }
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head).unwrap();
        let mut out = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(size @ 1..) = stream.read(&mut chunk) {
            out.extend_from_slice(&chunk[..size]);
        }
        self.sent.set(self.sent.get() + 1);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The last exchange with this path, whole.
    fn shown(&self, path: &str) -> Value {
        let sent = self.sent.get();
        self.spctl.wait_status("all are accounted for", |s| {
            let counters = &s["counters"];
            counters["stored"].as_u64().unwrap() + counters["skipped"].as_u64().unwrap() == sent
        });
        let list = self.spctl.data(&["captures", "list", "--url", path]);
        let id =
            list["exchanges"].as_array().unwrap().last().unwrap_or_else(|| panic!("{path} was not captured"))["id"]
                .clone();
        self.spctl.data(&["captures", "show", id.as_str().unwrap()])
    }
}

fn header<'a>(message: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = message["headers"].as_array().unwrap().iter();
    headers.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

/// What the upstream was told, from the body that it echoes.
fn told<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let prefix = format!("{name}: ");
    body.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn trace_headers_of_every_kind_are_joined_or_started_anew() {
    for harness in harnesses() {
        let rig = Rig::new(harness, r#"{"wire": "softprobe"}"#);
        // B1, B10: the caller's trace, its flags kept, our span the new parent.
        let good = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00");
        let answer =
            rig.send("GET", "/b1", &[good.as_bytes(), b"tracestate: a=1", b"tracestate: b=2", b"x-session-id: s1"]);
        let shown = rig.shown("/b1");
        assert_eq!(
            (&shown["trace_id"], &shown["parent_span_id"]),
            (&TRACE.into(), &"00f067aa0ba902b7".into()),
            "{harness}"
        );
        let ours = format!("00-{TRACE}-{}-00", shown["span_id"].as_str().unwrap());
        assert_eq!(told(&answer, "traceparent"), [ours], "{harness}");
        // B7: other vendors' members survive, in order, on one line.
        assert!(told(&answer, "tracestate")[0].ends_with("a=1,b=2"), "{harness}: {answer}");
        // B14: recorded as it came.
        assert_eq!(header(&shown["request"], "traceparent"), [&good["traceparent: ".len()..]], "{harness}");
        assert!(header(&shown["request"], "x-sp-num").is_empty(), "{harness}");
        assert_eq!(told(&answer, "x-sp-num"), ["1"], "{harness}");
        // B12: the response's own is left alone.
        assert_eq!(header(&shown["response"], "traceparent").len(), 1, "{harness}");
        // B3, B4: what is no traceparent starts a new trace and ends nothing.
        let bad: [&[u8]; 7] = [
            b"traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"traceparent: ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e473\xc3\xa9-00f067aa0ba902b7-01",
            b"traceparent: 00-\xe2\x82\xac\xe2\x82\xac\xe2\x82\xacab-cd-01",
            b"traceparent: 00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"traceparent: ",
        ];
        for (at, line) in bad.iter().enumerate() {
            let path = format!("/b3/{at}");
            let answer = rig.send("GET", &path, &[line, b"tracestate: a=1"]);
            assert!(answer.starts_with("HTTP/1.1 200"), "{harness}: {answer}");
            let shown = rig.shown(&path);
            assert!(shown["parent_span_id"].is_null() && shown["trace_id"] != TRACE, "{harness}: {line:?}");
            // An orphaned list belongs to no trace.
            assert!(!told(&answer, "tracestate").iter().any(|list| list.contains("a=1")), "{harness}: {answer}");
        }
        // B2: ids are random; B11: the hop counter is one line and cannot overflow.
        assert_ne!(rig.shown("/b3/0")["trace_id"], rig.shown("/b3/1")["trace_id"]);
        for (told_us, next) in [("7", "8"), ("4294967295", "4294967295"), ("x, 1", "1")] {
            let line = format!("x-sp-num: {told_us}");
            assert_eq!(told(&rig.send("GET", "/b11", &[line.as_bytes()]), "x-sp-num"), [next], "{harness}");
        }
        // B8, B9: an id that is no legal value stays out of tracestate; one id for all.
        let answer =
            rig.send("GET", "/b8", &[b"x-session-id: a,b=c", b"tracestate: x-sp-session-id=old,k=v", good.as_bytes()]);
        let list = told(&answer, "tracestate").join(",");
        assert!(!list.contains("a,b=c") && !list.contains("old"), "{harness}: {list}");
        assert_eq!(rig.shown("/b8")["session_id"], "a,b=c", "{harness}");
        rig.spctl.data(&["down"]);
    }
}

#[test]
fn headers_and_bodies_of_every_kind_are_recorded_as_they_were() {
    for harness in harnesses() {
        let rig = Rig::new(harness, "{}");
        // B5, B13: bytes that are no UTF-8, repeated names, their order.
        let answer = rig.send("GET", "/b5", &[b"x-raw: caf\xe9", b"via: a", b"x-other: 1", b"via: b"]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{harness}: {answer}");
        let shown = rig.shown("/b5");
        assert_eq!(header(&shown["request"], "x-raw"), ["caf\u{fffd}"], "{harness}");
        assert_eq!(header(&shown["response"], "set-cookie"), ["a=REDACTED", "b=REDACTED"], "{harness}");
        assert_eq!(header(&shown["request"], "via").join(",").replace(' ', ""), "a,b", "{harness}");
        // B15, B20: text by its bytes, whatever the type's case; binary as bytes.
        assert_eq!(shown["response"]["body"]["encoding"], "base64", "{harness}: echoed bytes are no text");
        rig.send("GET", "/plain", &[]);
        assert_eq!(rig.shown("/plain")["response"]["body"]["encoding"], "utf8", "{harness}");
        rig.send("GET", "/binary", &[]);
        assert_eq!(rig.shown("/binary")["response"]["body"]["data"], "//4AAQ==", "{harness}");
        // B16: trailers end an exchange, and so does a reset in its middle.
        rig.send("GET", "/trailers", &[b"te: trailers"]);
        let shown = rig.shown("/trailers");
        assert_eq!(
            (&shown["response"]["body"]["data"], &shown["aborted"]),
            (&"hello".into(), &false.into()),
            "{harness}"
        );
        rig.send("GET", "/cut", &[]);
        assert_eq!(rig.shown("/cut")["aborted"], true, "{harness}");
        // B18: the status as it is; B46: HEAD has a length and no body.
        rig.send("GET", "/fail", &[]);
        assert_eq!(rig.shown("/fail")["status"], 503, "{harness}");
        rig.send("HEAD", "/head", &[]);
        let shown = rig.shown("/head");
        assert_eq!((&shown["method"], &shown["response"]["body"]), (&"HEAD".into(), &Value::Null), "{harness}");
        // B19, B45: where it went, with scheme and port.
        assert_eq!(shown["url"], "http://shop:81/head", "{harness}");
        // B37: no secret in headers or query.
        rig.send(
            "GET",
            "/b37?sig=s3cret&a=1",
            &[b"authorization: Bearer s3cret", b"x-amz-security-token: s3cret", b"cookie: s=s3cret"],
        );
        let shown = rig.shown("/b37");
        assert!(
            !shown["request"].to_string().contains("s3cret") && !shown["url"].to_string().contains("s3cret"),
            "{harness}"
        );
        // B29: nobody is a gateway because a client says so.
        rig.send("GET", "/b29", &[b"x-envoy-peer-metadata-id: router~istio-ingressgateway"]);
        rig.shown("/b29");
        let counters = &rig.spctl.status()["counters"];
        assert_eq!((common::dropped(counters), &counters["skipped"]), (0, &0.into()), "{harness}: {counters}");
        rig.spctl.data(&["down"]);
    }
}

#[test]
fn rules_see_the_path_without_its_query_and_the_destination() {
    for harness in harnesses() {
        let config = r#"{"collectionRules": {"http": {"server": [{"host": "^shop$", "path": "^/in"}], "client": [{"host": "."}]}},
            "limits": {"response_body_bytes": 3}}"#;
        let rig = Rig::new(harness, config);
        // B30: neither exempted nor selected by its query. B31: host without
        // port, client rules are not for inbound requests, referers no hosts.
        rig.send("GET", "/in?next=/v1/logs", &[b"referer: http://other/"]);
        rig.send("GET", "/out?next=/in", &[]);
        // B38: a query does not hide an extension; an error page is no resource.
        rig.send("GET", "/in/a.js?v=1", &[]);
        let shown = rig.shown("/in");
        assert_eq!(rig.spctl.status()["counters"]["skipped"], 2, "{harness}");
        // B15: bounded, with the size on the wire.
        assert_eq!(shown["response"]["body"]["data"].as_str().unwrap().len(), 3, "{harness}");
        assert_eq!(shown["truncated"], true, "{harness}");
        rig.spctl.data(&["down"]);
    }
}

#[test]
fn an_upgrade_is_a_tunnel_whose_exchange_is_over_at_once() {
    for harness in harnesses() {
        let rig = Rig::new(harness, "{}");
        let mut tunnel = TcpStream::connect(rig.proxy).unwrap();
        tunnel.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let asked = b"GET /upgrade HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        tunnel.write_all(asked).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(tunnel.read(&mut byte).unwrap(), 1, "{harness}: {}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{harness}: {}", String::from_utf8_lossy(&head));
        let mut echo = |frame: &[u8; 7]| {
            tunnel.write_all(frame).unwrap();
            let mut back = [0; 7];
            tunnel.read_exact(&mut back).unwrap();
            assert_eq!(&back, frame, "{harness}");
        };
        echo(b"frame 1");
        // B46: recorded while the tunnel is open, and nothing that goes through it.
        rig.sent.set(1);
        let shown = rig.shown("/upgrade");
        assert_eq!((&shown["status"], &shown["aborted"]), (&101.into(), &false.into()), "{harness}");
        assert_eq!((&shown["request"]["body"], &shown["response"]["body"]), (&Value::Null, &Value::Null), "{harness}");
        echo(b"frame 2");
        rig.spctl.data(&["down"]);
    }
}
