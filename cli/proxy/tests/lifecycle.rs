//! Starting, reloading under load, draining, stopping.

mod common;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Guest, echo, eventually, guest, setup, spec, upstream};
use spctl_proxy::{LoadError, Proxy, ReloadError, StartError};

/// A guest that marks requests with its version.
fn version(name: &str) -> Guest {
    guest().request_headers(&format!("(drop (call $set (i32.const 0) `x-version` `{name}`)) (i32.const 0)"))
}

fn refusal(setup: common::Setup) -> StartError {
    match Proxy::start(setup.config) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = refusal(setup(echo()).with(|config| config.listeners[0].address = address));
    assert!(
        matches!(&error, StartError::PortInUse { listener, address: at } if listener == "ingress" && *at == address)
    );
    assert_eq!(error.to_string(), format!("listener `ingress`: {address} is in use"));
}

#[test]
fn references_to_nothing_are_refused() {
    let error = refusal(setup(echo()).with(|config| config.listeners[0].filters.push("nope".into())));
    assert!(matches!(error, StartError::UnknownFilter { .. }));
    let error = refusal(setup(echo()).with(|config| config.clusters.clear()));
    assert!(matches!(error, StartError::UnknownCluster { .. }));
    let error = refusal(setup(echo()).with(|config| config.clusters[0].endpoints.push("no-port".into())));
    assert!(matches!(error, StartError::BadEndpoint { .. }));
    let error = refusal(setup(echo()).with(|config| config.clusters.push(config.clusters[0].clone())));
    assert!(matches!(error, StartError::Duplicate { .. }));
}

#[test]
fn a_plugin_that_refuses_to_start_leaves_nothing_behind() {
    let refuses = guest().configure("(call $say `not with this`) (i32.const 0)");
    let prepared = setup(echo()).filter(spec("plugin", &refuses));
    let address = {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap()
    };
    let StartError::Filter(failure) = refusal(prepared.with(|config| config.listeners[0].address = address)) else {
        panic!()
    };
    assert_eq!((failure.filter.as_str(), &failure.error), ("plugin", &LoadError::RefusedToConfigure));
    assert_eq!(failure.log[0].message, "not with this");
    TcpListener::bind(address).unwrap();
}

#[test]
fn stopping_frees_the_port_and_cuts_what_is_open() {
    let running = setup(echo()).start();
    let mut client = running.client();
    client.get("/");
    let address = running.address;
    running.proxy.stop();
    assert!(client.rest().is_empty());
    TcpListener::bind(address).unwrap();
}

#[test]
fn a_reload_under_load_fails_no_request_and_reaches_every_worker() {
    let (old, new) = (version("old"), version("new"));
    let running = setup(echo()).filter(spec("plugin", &old)).start();
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, served, address) = (Arc::clone(&stop), Arc::clone(&served), running.address);
            thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut versions = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/");
                    assert_eq!(answer.status(), 200);
                    let version = if answer.text().contains("x-version: new") { "new" } else { "old" };
                    versions.push(version);
                    served.fetch_add(1, Ordering::Relaxed);
                }
                versions
            })
        })
        .collect();
    eventually("there is load", || served.load(Ordering::Relaxed) > 200);
    let reloaded = running.proxy.reload(spec("plugin", &new)).unwrap();
    let digests: Vec<_> = running.proxy.served_digests().into_iter().map(|served| served.digest).collect();
    assert_eq!(digests, [reloaded.new_digest.clone(), reloaded.new_digest.clone()]);
    assert_ne!(reloaded.old_digest, reloaded.new_digest);
    assert!(running.client().get("/").text().contains("x-version: new"));
    let before = served.load(Ordering::Relaxed);
    eventually("load goes on", || served.load(Ordering::Relaxed) > before + 200);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let versions = client.join().unwrap();
        assert_eq!((versions.first(), versions.last()), (Some(&"old"), Some(&"new")));
        assert!(versions.is_sorted_by_key(|version| *version == "new"), "a client saw the old one again");
    }
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let running = setup(echo()).filter(spec("plugin", &version("old"))).start();
    let refuses = guest().configure("(call $say `never`) (i32.const 0)");
    let Err(ReloadError::Filter(failure)) = running.proxy.reload(spec("plugin", &refuses)) else { panic!() };
    assert_eq!((failure.error, failure.log[0].message.as_str()), (LoadError::RefusedToConfigure, "never"));
    assert!(matches!(running.proxy.reload(spec("other", &refuses)), Err(ReloadError::UnknownFilter(_))));
    assert!(running.client().get("/").text().contains("x-version: old"));
}

#[test]
fn a_stream_in_flight_finishes_on_the_old_virtual_machine() {
    let old = version("old")
        .response_headers("(drop (call $add (i32.const 2) `x-finished-on` `old`)) (i32.const 0)")
        .on("proxy_on_delete", 1, false, "(call $say `old deleted`)");
    let running = setup(upstream(|mut client| {
        client.message();
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }))
    .filter(spec("plugin", &old))
    .start();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
    eventually("the request is under way", || running.stat("cluster.app.upstream_rq_active") == 1);
    running.proxy.reload(spec("plugin", &version("new"))).unwrap();
    // The main thread and the idle worker let go; the busy one cannot yet.
    eventually("idle roots are gone", || running.log().len() == 2);
    let answer = client.send("ok").message();
    assert_eq!(answer.header("x-finished-on"), Some("old"));
    eventually("the stream and the last root are gone", || running.log().len() == 4);
    eventually("its machine is gone", || running.stat("wasm.envoy.wasm.runtime.v8.active") == 4);
}

#[test]
fn a_drain_waits_for_streams_and_lets_plugins_flush() {
    let flushes = guest()
        .on("proxy_on_done", 1, true, "(drop (call $tick (i32.const 10))) (i32.eq (local.get $ctx) (i32.const 2))")
        .on("proxy_on_tick", 1, false, "(call $say `flushed`) (drop (call $done ))");
    let running = setup(upstream(|mut client| {
        client.message();
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }))
    .filter(spec("plugin", &flushes))
    .start();
    let mut busy = running.client();
    let mut idle = running.client();
    busy.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
    eventually("the request is under way", || running.stat("cluster.app.upstream_rq_active") == 1);
    thread::scope(|scope| {
        let drain = scope.spawn(|| running.proxy.drain(Duration::from_secs(5)));
        assert!(idle.rest().is_empty());
        let answer = busy.send("ok").message();
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
        let report = drain.join().unwrap();
        assert_eq!((report.cut_streams, report.unfinished_roots), (0, 0));
        assert!(report.took < Duration::from_secs(4));
    });
    assert_eq!(running.log(), ["flushed"; 3]);
    assert!(std::net::TcpStream::connect(running.address).is_err());
}

#[test]
fn a_drain_ends_at_its_deadline_and_says_what_was_left() {
    let stubborn = guest().on("proxy_on_done", 1, true, "(i32.const 0)");
    let running = setup(upstream(|mut client| {
        client.head();
        client.rest();
    }))
    .filter(spec("plugin", &stubborn))
    .start();
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request is under way", || running.stat("cluster.app.upstream_rq_active") == 1);
    let started = Instant::now();
    let report = running.proxy.drain(Duration::from_millis(200));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(report.cut_streams, 1);
    // The main thread's and the idle worker's; the busy one still has its stream.
    assert!(report.unfinished_roots >= 2);
    assert!(matches!(running.proxy.reload(spec("plugin", &stubborn)), Err(ReloadError::Stopping)));
}
