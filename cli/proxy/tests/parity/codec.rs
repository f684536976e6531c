//! Conversations about HTTP/1.1 itself: what is a message, and where it ends.

use super::wire::{Case, OK};

const HOST: &str = "Host: h\r\n";

/// What a client has to send to be let through by one and not by another.
const STRICTER: &str =
    "a carriage return within Transfer-Encoding hides it from Envoy's framing; here the request is refused";

fn get(headers: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{HOST}{headers}\r\n").into_bytes()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\n{HOST}{headers}\r\n{body}").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

pub(crate) fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (headers, status) in [
        ("Content-Length: 2\r\n", 200),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 2, 2\r\n", 400),
        ("Content-Length: +2\r\n", 400),
        ("Content-Length: -2\r\n", 400),
        ("Content-Length: 0x2\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: 2 2\r\n", 400),
        ("Content-Length: 2 \r\n", 200),
        ("Content-Length:\t2\r\n", 200),
        ("Content-Length: 002\r\n", 200),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: \x0b2\r\n", 400),
        ("Content-Length : 2\r\n", 400),
        ("Content-Length:\r\n 2\r\n", 200),
        ("Content-Length: 1\r\n 2\r\n", 400),
        ("Content-Length: 1\r2\r\n", 400),
        ("Content-Length: 2\r\r\n", 200),
        ("Content-Length: 2\r\n \r\n", 200),
        ("Content-Length: 2\r\nConnection: content-length\r\n", 200),
        ("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", 400),
    ] {
        cases.push(Case::new(format!("{headers:?}"), post(headers, "hi"), [status]));
    }
    for (headers, status) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, gzip\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: \"chunked\"\r\n", 501),
        ("Transfer-Encoding: chunked;q=1\r\n", 501),
        ("Transfer-Encoding: \r\n", 501),
        ("Transfer-Encoding: chun\r\n ked\r\n", 501),
        ("Transfer-Encoding: \x0bchunked\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        ("Transfer-Encoding: Chunked\r\n", 200),
        ("Transfer-Encoding: chunked \r\n", 200),
        ("Transfer-Encoding:\tchunked\r\n", 200),
        ("Transfer-Encoding:\r\n chunked\r\n", 200),
        ("Transfer-Encoding: chunked\r\r\n", 200),
        ("Transfer-Encoding: \rchunked\r\n", 200),
        ("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", 200),
    ] {
        cases.push(Case::new(format!("{headers:?}"), post(headers, "2\r\nhi\r\n0\r\n\r\n"), [status]));
    }
    let hidden = post("Transfer-Encoding: chun\rked\r\n", "2\r\nhi\r\n0\r\n\r\n");
    cases.push(Case::new("a coding with a carriage return within", hidden, [200, 400]).differs(STRICTER));
    let get = b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    cases.push(Case::new("a GET with chunks", get, [200]));
    cases
}

pub(crate) fn heads() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("GET / HTTP/1.1\nHost: h\n\n", 200),
        ("GET / HTTP/1.1\r\nHost: h\nX: 1\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: h\r\nHost: b\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\n x\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", 426),
        ("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 426),
        ("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
        ("GET / http/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\r\nHost: h\r\n\r\n", 426),
        ("GET\r\nHost: h\r\n\r\n", 400),
        ("GET  / \t HTTP/1.1 \r\nHost: h\r\n\r\n", 200),
        (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        ("get / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("FOO-BAR / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("M-SEARCH / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("PURGE / HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        ("gxx / HTTP/1.1\r\n", 400),
        ("\x16\x03\x01\x02", 400),
    ]
    .into_iter()
    .map(|(head, status)| Case::new(format!("{head:?}"), head, [status]))
    .collect();
    for (headers, status) in [
        ("X-A: a\rb\r\n", 200),
        ("X-A: 1\r\n 2\r\n", 200),
        ("X-A: a\0b\r\n", 400),
        ("X-\0A: a\r\n", 400),
        ("X-A: a\x01b\r\n", 400),
        ("X-A: a\x0cb\r\n", 400),
        ("X-A: a\x7fb\r\n", 400),
        ("X-A: a\tb\r\n", 200),
        ("X-A: é\r\n", 200),
        ("X-é: 1\r\n", 400),
        ("X-(A): 1\r\n", 400),
        ("X_A: 1\r\n", 200),
        (": 1\r\n", 400),
        ("X A: 1\r\n", 400),
        ("X\rA: 1\r\n", 400),
        ("\rX: 1\r\n", 400),
        (":path: /x\r\n", 400),
        ("XA\r\n", 400),
        ("X-A:\r\n", 200),
        ("X-A:  a  \r\n", 200),
        ("Connection: x-forwarded-for\r\nX-Forwarded-For: 1.1.1.1\r\n", 400),
        ("Connection: :path\r\n", 400),
        ("Connection: host, x-a\r\nX-A: 1\r\n", 400),
        ("Connection: te\r\nTE: trailers\r\n", 200),
        ("TE: gzip, trailers\r\n", 200),
        ("TE: gzip\r\n", 200),
        ("Connection: keep-alive\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n", 200),
        ("Expect: foo\r\n", 200),
        ("Upgrade: websocket\r\n", 200),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", 403),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n", 403),
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", 200),
    ] {
        cases.push(Case::new(format!("{headers:?}"), get(headers), [status]));
    }
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    cases.push(Case::new("100 headers", get(&many(99)), [200]));
    cases.push(Case::new("101 headers", get(&many(100)), [431]));
    cases.push(Case::new("just within 60 KiB", get(&format!("X: {}\r\n", "a".repeat((60 << 10) - 100))), [200]));
    cases.push(Case::new("more than 60 KiB", get(&format!("X: {}\r\n", "a".repeat(60 << 10))), [431]));
    cases.push(Case::new("a name of 60 KiB", get(&format!("{}: 1\r\n", "a".repeat(60 << 10))), [431]));
    let expects = post("Expect: 100-continue\r\nContent-Length: 2\r\n", "");
    cases.push(Case::new("an expectation", expects, [100, 200]).then("hi"));
    cases
}

pub(crate) fn targets() -> Vec<Case> {
    [
        ("GET http://x.y/p", 200),
        ("GET http://x.y", 200),
        ("GET http://x.y?a", 404),
        ("GET https://x.y/p", 200),
        ("GET ftp://x.y/p", 400),
        ("GET http://u@x.y/p", 200),
        ("GET http:///p", 400),
        ("GET http://x.y:99/p", 200),
        ("GET http://x.y:abc/p", 400),
        ("GET HTTP://x.y/p", 200),
        ("GET p", 400),
        ("GET *", 400),
        ("OPTIONS *", 404),
        ("GET //p", 200),
        ("GET /a#b", 400),
        ("GET /a b", 400),
        ("GET /a\rb", 400),
        ("GET /a\x01b", 400),
        ("GET /é", 400),
        ("GET /a\"<>\\^`{|}", 200),
        ("CONNECT h:80", 404),
        ("CONNECT /p", 400),
        ("CONNECT h", 400),
    ]
    .into_iter()
    .map(|(line, status)| Case::new(format!("{line:?}"), format!("{line} HTTP/1.1\r\n{HOST}\r\n"), [status]))
    .chain([
        Case::new("too long", format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(60 << 10)), [431]),
        Case::new("absolute alone", "GET http://x.y/p HTTP/1.1\r\n\r\n", [200]),
        Case::new("a tunnel with a body", format!("CONNECT h:80 HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\nhi"), [400]),
        Case::new(
            "a tunnel with chunks",
            format!("CONNECT h:80 HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"),
            [501],
        ),
    ])
    .collect()
}

pub(crate) fn chunks() -> Vec<Case> {
    let good = [
        "2;a=b\r\nhi\r\n0\r\n\r\n",
        "2;a=\"b;c\"\r\nhi\r\n0\r\n\r\n",
        "2 \r\nhi\r\n0\r\n\r\n",
        "2\t\r\nhi\r\n0\r\n\r\n",
        "2 a\r\nhi\r\n0\r\n\r\n",
        "2;\0\r\nhi\r\n0\r\n\r\n",
        "0000000000000000000002\r\nhi\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "2\r\nhizzz\n0\r\n\r\n",
        "2\r\nhi\r\n0;x\r\n\r\n",
        "2\r\nhi\r\n000\r\n\r\n",
        "2\r\nhi\r\n0\r\n\n",
        "2\r\nhi\r\n0\r\nx-t: 1\r\n\r\n",
        "0\r\nx: 1\r\n 2\r\n\r\n",
        "0\r\nx_t: 1\r\n\r\n",
        "0\r\nhost: 1\r\n\r\n",
    ];
    let bad = [
        "2;a\nhi\r\n0\r\n\r\n",
        "2;a\rb\r\nhi\r\n0\r\n\r\n",
        "2\nhi\r\n0\r\n\r\n",
        " 2\r\nhi\r\n0\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        "+2\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        "\r\nhi\r\n0\r\n\r\n",
        "2\r\r\nhi\r\n0\r\n\r\n",
        "2\x0b\r\nhi\r\n0\r\n\r\n",
        "10000000000000002\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r0\r\n\r\n",
        "2\r\nhi\r\n0\n\n",
        "0\r\n x: 1\r\n\r\n",
        "0\r\n:path: 1\r\n\r\n",
        "2\r\nhi\r\n0\r\nx t: 1\r\n\r\n",
        "2\r\nhi\r\n0\r\nxt\r\n\r\n",
    ];
    let mut cases: Vec<Case> = good.iter().map(|body| Case::new(format!("{body:?}"), chunked(body), [200])).collect();
    cases.extend(bad.iter().map(|body| Case::new(format!("{body:?}"), chunked(body), [400]).client_only()));
    let long = format!("2;{}\r\nhi\r\n0\r\n\r\n", "a".repeat(70_000));
    cases.push(Case::new("a long extension", chunked(&long), [200]));
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    cases.push(Case::new("101 trailers", chunked(&format!("0\r\n{many}\r\n")), [431]).client_only());
    let big = format!("0\r\nx: {}\r\n\r\n", "a".repeat(61_500));
    cases.push(Case::new("trailers of more than 60 KiB", chunked(&big), [431]).client_only());
    cases.push(Case::new("a broken chunk behind a good one", chunked("2\r\nhi\r\n"), [400]).then("zz\r\n"));
    cases
}

pub(crate) fn responses() -> Vec<Case> {
    const LINE: &str = "HTTP/1.1 200 OK\r\n";
    let mut cases = Vec::new();
    for (answer, statuses) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", vec![502]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", vec![502]),
        ("!HTTP/1.1 200 OK\r\n\r\nok", vec![200]),
        ("!HTTP/1.0 200 OK\r\n\r\nok", vec![200]),
        ("!HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", vec![200]),
        ("ok", vec![502]),
        ("HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok", vec![600]),
        ("HTTP/1.1 1000 OK\r\nContent-Length: 2\r\n\r\nok", vec![1000]),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", vec![200]),
        ("HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        ("HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        ("HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nX(A: 1\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 204 OK\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n", vec![502]),
        ("HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n", vec![204]),
        ("HTTP/1.1 304 OK\r\nContent-Length: 2\r\n\r\n", vec![304]),
        ("HTTP/1.1 304 OK\r\nTransfer-Encoding: chunked\r\n\r\n", vec![304]),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        ("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n", vec![101]),
        ("HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", vec![502]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA", vec![200]),
        ("!HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", vec![200]),
        ("!HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", vec![200]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\nok\r\n0\r\n\r\n", vec![200]),
        ("!", vec![503]),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", vec![200]),
        (
            "HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: 1\r\nKeep-Alive: 3\r\nProxy-Connection: y\r\nUpgrade: z\r\n\
             Trailer: t\r\nVia: 1.1 q\r\nContent-Length: 2\r\n\r\nok",
            vec![200],
        ),
        ("HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon\r\nContent-Length: 2\r\n\r\nok", vec![200]),
    ] {
        cases.push(Case::new(format!("{answer:?}"), get(""), statuses).answer(answer));
    }
    for (name, count, status) in [("100 headers", 99, 200), ("101 headers", 100, 502)] {
        let many: String = (0..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        cases.push(Case::new(name, get(""), [status]).answer(format!("{LINE}{many}content-length: 2\r\n\r\nok")));
    }
    for (name, size, status) in [("61 KiB", 61 << 10, 200), ("80 KiB", 80 << 10, 502)] {
        let answer = format!("{LINE}x: {}\r\ncontent-length: 2\r\n\r\nok", "a".repeat(size));
        cases.push(Case::new(name, get(""), [status]).answer(answer));
    }
    for answer in
        ["Content-Length: 2\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "\r\n", "Content-Length: 2\r\n\r\nok"]
    {
        let head = format!("HEAD / HTTP/1.1\r\n{HOST}\r\n");
        cases.push(Case::new(format!("HEAD {answer:?}"), head, [200]).answer(format!("{LINE}{answer}")));
    }
    cases
}

pub(crate) fn endings() -> Vec<Case> {
    let both = |first: &str| [first.as_bytes(), &get("")].concat();
    vec![
        Case::new("pipelined", both("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"), [200, 200]),
        Case::new("close asked for", both("GET /1 HTTP/1.1\r\nHost: h\r\nConnection: CLOSE\r\n\r\n"), [200]),
        Case::new(
            "close in a second header",
            both("GET /1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"),
            [200],
        ),
        Case::new("behind no host", both("GET / HTTP/1.1\r\n\r\n"), [400]),
        Case::new("behind a fragment", both("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"), [400]),
        Case::new("behind no route", both("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), [404, 200]),
        Case::new("behind a tunnel", both("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"), [404]),
        Case::new(
            "a bad one behind a good one",
            [get(""), b"GET / HTTP/1.1\r\nHost : h\r\n\r\n".to_vec()].concat(),
            [200, 400],
        ),
        Case::new("a refused one, before", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n".to_vec(), [400]).watch(700),
        Case::new("a refused one, later", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n".to_vec(), [400]).watch(1400),
        Case::new("a cut response, before", get(""), [200])
            .answer("!HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
            .watch(700),
        Case::new("a cut response, later", get(""), [200])
            .answer("!HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
            .watch(1400),
        Case::new("an answer before the whole question", post("Content-Length: 5\r\n", "hi"), []).answer(OK),
        Case::new("nothing but empty lines", "\r\n\r\n\r\n", []),
        Case::new("half a head", "GET / HTTP/1.1\r\nHo", []),
    ]
}
