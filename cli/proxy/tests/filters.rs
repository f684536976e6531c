//! Plugins in the way of real traffic: callouts, timers, pauses, answers.

mod common;

use common::{Guest, Running, echo, eventually, guest, setup, spec, upstream};
use spctl_proxy::{Cluster, FilterSpec, ServedState, Threads};

/// A guest with the headers of a callout to `app` at address 2000.
fn caller(path: &str) -> (Guest, String) {
    let mut pairs = vec![];
    for (name, value) in [(":method", "GET"), (":path", path), (":authority", "a")] {
        pairs.push((name, value));
    }
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in &pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.bytes());
        bytes.push(0);
    }
    let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let call = format!(
        "(call $call `called` (i32.const 2000) (i32.const {}) `` `` (i32.const 5000) (i32.const 8))",
        bytes.len()
    );
    (guest().with(&format!("(data (i32.const 2000) \"{text}\")")), call)
}

fn with_called(guest: &Guest, called: std::net::SocketAddr) -> Running {
    setup(echo())
        .with(|config| config.clusters.push(Cluster::new("called", vec![called.to_string()])))
        .filter(spec("plugin", guest))
        .start()
}

#[test]
fn a_filter_changes_both_messages() {
    let changes = guest()
        .request_headers("(drop (call $set (i32.const 0) `x-new` `1`)) (drop (call $remove (i32.const 0) `x-old`)) (i32.const 0)")
        .response_headers("(drop (call $set (i32.const 2) `:status` `201`)) (drop (call $add (i32.const 2) `x-seen` `yes`)) (i32.const 0)");
    let running = setup(echo()).filter(spec("plugin", &changes)).start();
    let answer = running.client().send("GET / HTTP/1.1\r\nHost: h\r\nX-Old: 1\r\n\r\n").message();
    assert!(answer.text().contains("x-new: 1\r\n") && !answer.text().contains("x-old"));
    assert!(answer.head.starts_with("HTTP/1.1 201 Created\r\n"));
    assert_eq!(answer.header("x-seen"), Some("yes"));
}

#[test]
fn a_request_waits_for_a_callout_and_goes_on() {
    let (guest, call) = caller("/auth?x=1");
    let waits = guest.request_headers(&format!("(drop {call}) (i32.const 1)")).on(
        "proxy_on_http_call_response",
        5,
        false,
        "(drop (call $get (i32.const 6) `x-user` (i32.const 0) (i32.const 4)))
        (drop (call $effective (i32.add (local.get $ctx) (i32.const 1))))
        (drop (call $add (i32.const 0) `x-user` (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (drop (call $resume (i32.const 0)))",
    );
    let running = with_called(
        &waits,
        upstream(|mut client| {
            let head = client.head();
            assert!(head.starts_with("GET /auth?x=1 HTTP/1.1\r\nhost: a\r\nx-envoy-internal: true\r\n"), "{head}");
            assert!(head.contains("x-envoy-expected-rq-timeout-ms: 5000\r\n"), "{head}");
            client.send("HTTP/1.1 200 OK\r\nx-user: somebody\r\ncontent-length: 0\r\n\r\n");
        }),
    );
    assert!(running.client().get("/").text().contains("x-user: somebody\r\n"));
    assert_eq!(running.stat("cluster.called.upstream_rq_2xx"), 1);
}

#[test]
fn a_callout_that_cannot_connect_is_answered_with_503() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (guest, call) = caller("/");
    let waits = guest.request_headers(&format!("(drop {call}) (i32.const 1)")).on(
        "proxy_on_http_call_response",
        5,
        false,
        "(drop (call $get (i32.const 6) `:status` (i32.const 0) (i32.const 4))) (call $out)
        (drop (call $effective (i32.const 2))) (drop (call $reply (i32.const 401) `` `no` `` (i32.const -1)))",
    );
    let running = with_called(&waits, dead);
    let answer = running.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (401, "no"));
    assert_eq!(running.log(), ["503"]);
}

#[test]
fn timers_tick_on_the_main_thread_and_on_every_worker() {
    let ticks = guest().configure("(drop (call $tick (i32.const 20))) (i32.const 1)").on(
        "proxy_on_tick",
        1,
        false,
        "(drop (call $tick (i32.const 0))) (call $say `tick`)",
    );
    let running = setup(echo()).filter(spec("plugin", &ticks)).start();
    eventually("all three have ticked", || running.log().len() == 3);
    std::thread::sleep(std::time::Duration::from_millis(60));
    assert_eq!(running.log(), ["tick"; 3]);
}

#[test]
fn a_body_is_held_until_its_end_and_replaced() {
    let replaces =
        guest().request_headers("(drop (call $remove (i32.const 0) `content-length`)) (i32.const 0)").request_body(
            "(if (local.get $b) (then (drop (call $set_body (i32.const 0) (i32.const 0) (local.get $a) `replaced`))))
            (i32.eqz (local.get $b))",
        );
    let running = setup(echo()).filter(spec("plugin", &replaces)).start();
    let text =
        running.client().send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\noriginal").message().text();
    assert!(text.ends_with("transfer-encoding: chunked\r\n\r\nreplaced"), "{text}");
}

#[test]
fn a_reply_from_a_filter_needs_no_upstream() {
    let replies =
        guest().request_headers("(drop (call $reply (i32.const 403) `` `denied` `` (i32.const -1))) (i32.const 0)");
    let running = setup(echo()).filter(spec("plugin", &replies)).start();
    let mut client = running.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.text().as_str()), (403, "denied"));
    }
    assert_eq!(running.stat("cluster.app.upstream_rq_total"), 0);
    // A body that nobody will read ends the connection.
    let answer = client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n").message();
    assert_eq!((answer.status(), answer.header("connection")), (403, Some("close")));
}

#[test]
fn a_stream_that_a_filter_closes_closes_its_connection() {
    let running = setup(echo())
        .filter(spec("plugin", &guest().request_headers("(drop (call $close (i32.const 0))) (i32.const 0)")))
        .start();
    let mut client = running.client();
    assert!(client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").rest().is_empty());
}

#[test]
fn a_trap_fails_one_worker_and_is_seen() {
    let traps = guest().request_headers("unreachable");
    let running = setup(echo()).filter(spec("plugin", &traps)).start();
    let answer = running.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, ""));
    let states: Vec<_> = running.proxy.served_digests().iter().map(|served| served.state).collect();
    assert_eq!(states.iter().filter(|state| **state == ServedState::Failed).count(), 1);
    assert_eq!(states.len(), 2);
}

#[test]
fn a_service_ticks_on_every_thread_a_singleton_on_one() {
    let ticks = guest().configure("(drop (call $tick (i32.const 20))) (i32.const 1)").on(
        "proxy_on_tick",
        1,
        false,
        "(call $say `tick`) (drop (call $tick (i32.const 0)))",
    );
    for (threads, expected) in [(Threads::Main, 1), (Threads::All, 3)] {
        let service = FilterSpec { threads, ..spec("service", &ticks) };
        let running = setup(echo()).with(|config| config.filters.push(service.clone())).start();
        assert_eq!(running.client().get("/").status(), 200);
        eventually("every thread has ticked", || running.log().len() >= expected);
        let served = running.proxy.served_digests();
        assert_eq!(
            served.iter().filter(|served| served.worker.is_none()).count(),
            usize::from(threads == Threads::Main)
        );
        let mut other = service;
        other.plugin.configuration = b"other".as_slice().into();
        running.proxy.reload(other).unwrap();
        eventually("and so has the new one", || running.log().len() >= 2 * expected);
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert_eq!(running.log().len(), 2 * expected, "{threads:?}");
    }
}

#[test]
fn refused_requests_and_left_clients_are_logged_by_the_filter() {
    let logs = guest().on("proxy_on_log", 1, false, "(call $say `logged`)");
    let running = setup(upstream(|mut client| {
        client.head();
        client.rest();
    }))
    .filter(spec("plugin", &logs))
    .start();
    running.client().send("GARBAGE\r\n\r\n").message();
    eventually("the refusal is logged", || running.log().len() == 1);
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request is under way", || running.stat("cluster.app.upstream_rq_active") == 1);
    drop(client);
    eventually("the leaving is logged", || running.log().len() == 2);
}

#[test]
fn the_log_level_can_be_changed_while_it_runs() {
    let says = guest().request_headers("(drop (call $log (i32.const 1) `debug`)) (i32.const 0)");
    let running = setup(echo()).filter(spec("plugin", &says)).start();
    let mut client = running.client();
    client.get("/");
    assert!(running.log().is_empty());
    running.proxy.set_log_level(spctl_proxy::Level::Debug);
    client.get("/");
    assert_eq!(running.log(), ["debug"]);
}
