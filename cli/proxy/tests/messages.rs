//! HTTP/1.1 between client and upstream, without a filter.

mod common;

use common::{Client, Running, echo, eventually, setup, upstream};
use spctl_proxy::{Cluster, Route};

fn plain() -> Running {
    setup(echo()).start()
}

/// An upstream that answers every request with these bytes.
fn answering(bytes: &'static [u8]) -> Running {
    setup(upstream(move |mut client| {
        client.head();
        client.send(bytes);
    }))
    .start()
}

#[test]
fn a_request_arrives_with_what_envoy_adds_in_its_order() {
    let answer = plain().client().send("GET /p?q HTTP/1.1\r\nHost: h\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\n\r\n").message();
    let text = answer.text();
    let id = text.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    assert_eq!(id.len(), 36);
    let expected = format!(
        "GET /p?q HTTP/1.1\r\nhost: h\r\nx-b: 1\r\nx-a: 2\r\nx-b: 3\r\nx-forwarded-proto: http\r\n\
         x-request-id: {id}\r\nx-envoy-expected-rq-timeout-ms: 15000\r\n\r\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn a_response_arrives_with_what_envoy_adds_in_its_order() {
    let running = answering(b"HTTP/1.1 200 Fine\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\nContent-Length: 2\r\n\r\nok");
    let answer = running.client().get("/");
    let names: Vec<_> =
        answer.head.lines().skip(1).filter_map(|line| line.split(':').next()).filter(|n| !n.is_empty()).collect();
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(names, ["x-b", "x-a", "x-b", "content-length", "x-envoy-upstream-service-time", "date", "server"]);
    assert_eq!((answer.header("server"), answer.text().as_str()), (Some("envoy"), "ok"));
}

#[test]
fn connections_are_kept_on_both_sides() {
    let running = plain();
    let mut client = running.client();
    for index in 0..50 {
        assert!(client.get(&format!("/{index}")).text().starts_with(&format!("GET /{index} ")));
    }
    assert_eq!(running.stat("http.ingress.downstream_cx_total"), 1);
    assert_eq!(running.stat("cluster.app.upstream_cx_total"), 1);
    assert_eq!(running.stat("cluster.app.upstream_rq_total"), 50);
    assert_eq!(running.stat("http.ingress.downstream_rq_2xx"), 50);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let running = plain();
    let mut client = running.client();
    let all: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.send(all);
    for n in 0..20 {
        assert!(client.message().text().starts_with(&format!("GET /{n} ")));
    }
}

#[test]
fn bodies_pass_in_both_framings() {
    let running = plain();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    let text = client.message().text();
    assert!(text.contains("content-length: 5\r\n") && text.ends_with("\r\n\r\nhello"), "{text}");
    client
        .send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    let text = client.message().text();
    assert!(text.contains("transfer-encoding: chunked\r\n") && text.ends_with("\r\n\r\nhello"), "{text}");
}

#[test]
fn trailers_pass_both_ways_unannounced() {
    let running = setup(upstream(|mut client| {
        client.head();
        let body = client.until("x-up: 1\r\n\r\n");
        assert!(body.ends_with("0\r\nx-up: 1\r\n\r\n"), "{body}");
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-down: 2\r\n\r\n");
    }))
    .start();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n");
    client.head();
    assert_eq!(client.until("x-down: 2\r\n\r\n"), "2\r\nok\r\n0\r\nx-down: 2\r\n\r\n");
}

#[test]
fn trailers_are_dropped_where_they_are_not_enabled() {
    let running = setup(upstream(|mut client| {
        client.head();
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-down: 2\r\n\r\n");
    }))
    .with(|config| config.clusters[0].enable_trailers = false)
    .start();
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").head();
    assert_eq!(client.until("0\r\n\r\n"), "2\r\nok\r\n0\r\n\r\n");
}

#[test]
fn answers_to_head_have_a_length_and_no_body() {
    let running = setup(upstream(|mut client| {
        for _ in 0..2 {
            let method = client.head();
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
            if method.starts_with("GET") {
                client.send("hello");
            }
        }
    }))
    .start();
    let mut client = running.client();
    let head = client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").head();
    assert!(head.contains("content-length: 5\r\n"));
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn expectations_are_answered_here_and_do_not_travel() {
    let running = plain();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    let text = client.send("ok").message().text();
    assert!(text.ends_with("\r\n\r\nok") && !text.contains("\r\nexpect: "), "{text}");
}

#[test]
fn interim_answers_of_upstreams_end_here() {
    let running =
        answering(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(running.client().get("/").text(), "ok");
}

#[test]
fn a_client_that_asks_to_close_is_closed() {
    let running = plain();
    let mut client = running.client();
    let answer = client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n").message();
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(!answer.text().contains("x-hop"));
    assert!(client.rest().is_empty());
}

#[test]
fn a_body_that_ends_with_its_connection_is_chunked_onwards() {
    let running = answering(b"HTTP/1.1 200 OK\r\n\r\nuntil close");
    let answer = running.client().get("/");
    assert_eq!((answer.header("transfer-encoding"), answer.text().as_str()), (Some("chunked"), "until close"));
}

#[test]
fn requests_that_cannot_be_read_are_refused_as_envoy_refuses_them() {
    let running = plain();
    for (request, status, body) in [
        ("GARBAGE\r\n\r\n", 400, "Bad Request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, ""),
        ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", 426, "Upgrade Required"),
        ("GET / HTTP/1.1\r\nHost: h\r\nBad Name: 1\r\n\r\n", 400, "Bad Request"),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Bad Request"),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, "Bad Request"),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", 400, "Bad Request"),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Not Implemented"),
        ("GET /#fragment HTTP/1.1\r\nHost: h\r\n\r\n", 400, ""),
    ] {
        let mut client = running.client();
        let answer = client.send(request).message();
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{request}");
        assert_eq!(answer.header("connection"), Some("close"), "{request}");
        assert!(client.rest().is_empty());
    }
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "a".repeat(61 << 10));
    for headers in [many, long] {
        let answer = running.client().send(format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n")).message();
        assert_eq!(answer.status(), 431);
    }
}

#[test]
fn a_broken_chunk_is_answered_and_ends_the_connection() {
    let running = plain();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    let answer = client.message();
    assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")));
    assert!(client.rest().is_empty());
    eventually("the stream is counted out", || running.stat("http.ingress.downstream_rq_active") == 0);
}

#[test]
fn an_absolute_target_names_the_authority() {
    let text = plain().client().send("GET http://other:81/p?q HTTP/1.1\r\nHost: h\r\n\r\n").message().text();
    assert!(text.starts_with("GET /p?q HTTP/1.1\r\nhost: other:81\r\n"), "{text}");
}

#[test]
fn routes_are_tried_in_order_and_may_rewrite() {
    let app = echo();
    let mut rewritten = Route::new("/api/", "app");
    rewritten.prefix_rewrite = Some("/v1/".into());
    rewritten.host_rewrite = spctl_proxy::HostRewrite::Literal("inner".into());
    let mut exact = Route::new("", "app");
    exact.matches = spctl_proxy::RouteMatch::Path("/exact".into());
    let running = setup(app).with(|config| config.listeners[0].routes = vec![rewritten, exact]).start();
    let mut client = running.client();
    let text = client.get("/api/x?y").text();
    assert!(text.starts_with("GET /v1/x?y HTTP/1.1\r\nhost: inner\r\n"), "{text}");
    assert!(text.contains("x-envoy-original-path: /api/x?y\r\n"), "{text}");
    assert_eq!(client.get("/exact?q").status(), 200);
    let nowhere = client.get("/elsewhere");
    assert_eq!((nowhere.status(), nowhere.text().as_str(), nowhere.header("content-length")), (404, "", Some("0")));
}

#[test]
fn endpoints_take_turns() {
    let name = |name: &'static str| {
        upstream(move |mut client| {
            loop {
                client.head();
                client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()));
            }
        })
    };
    let (a, b) = (name("a"), name("b"));
    let running = setup(a).with(|config| config.clusters[0].endpoints.push(b.to_string())).start();
    let mut client = running.client();
    let turns: String = (0..6).map(|_| client.get("/").text()).collect();
    assert!(turns == "ababab" || turns == "bababa", "{turns}");
}

#[test]
fn upstream_failures_have_envoys_answers() {
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let closes = upstream(|mut client| {
        client.head();
    });
    let hangs = upstream(|mut client| {
        client.head();
        std::thread::sleep(std::time::Duration::from_secs(60));
    });
    let garbage = upstream(|mut client| {
        client.head();
        client.send("NOT HTTP\r\n\r\n");
    });
    let running = setup(dead)
        .with(|config| {
            config.clusters.push(Cluster::new("closes", vec![closes.to_string()]));
            config.clusters.push(Cluster::new("hangs", vec![hangs.to_string()]));
            config.clusters.push(Cluster::new("garbage", vec![garbage.to_string()]));
            config.clusters.push(Cluster::new("empty", vec![]));
            let mut slow = Route::new("/hangs", "hangs");
            slow.timeout = std::time::Duration::from_millis(100);
            let mut routes = vec![
                slow,
                Route::new("/empty", "empty"),
                Route::new("/closes", "closes"),
                Route::new("/garbage", "garbage"),
            ];
            routes.append(&mut config.listeners[0].routes);
            config.listeners[0].routes = routes;
        })
        .start();
    let mut client = running.client();
    let before = "upstream connect error or disconnect/reset before headers. reset reason: ";
    for (path, status, body) in [
        ("/", 503, format!("{before}remote connection failure")),
        ("/closes", 503, format!("{before}connection termination")),
        ("/garbage", 502, format!("{before}protocol error")),
        ("/hangs", 504, "upstream request timeout".to_owned()),
        ("/empty", 503, "no healthy upstream".to_owned()),
    ] {
        let answer = client.get(path);
        assert_eq!((answer.status(), answer.text()), (status, body), "{path}");
    }
    assert_eq!(running.stat("cluster.app.upstream_cx_connect_fail"), 1);
    assert_eq!(running.stat("cluster.hangs.upstream_rq_timeout"), 1);
}

#[test]
fn a_response_that_is_cut_upstream_is_cut_downstream() {
    let running = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").head();
    assert_eq!(client.rest(), b"abc");
}

#[test]
fn a_connection_that_upstream_closed_while_idle_is_not_used() {
    let running = setup(upstream(|mut client| {
        client.head();
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }))
    .start();
    let mut client = running.client();
    for _ in 0..10 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn connections_are_spread_over_the_workers() {
    let running = plain();
    let mut clients: Vec<Client> = (0..8).map(|_| running.client()).collect();
    clients.iter_mut().for_each(|client| {
        client.get("/");
    });
    // Each worker has connections of its own to the upstream.
    assert_eq!(running.stat("cluster.app.upstream_cx_total"), 2);
}
