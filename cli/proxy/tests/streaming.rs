//! Streaming: nothing waits for an end, and nothing piles up.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{eventually, setup, upstream};

#[test]
fn parts_of_a_response_arrive_as_they_are_sent() {
    let (next, steps) = mpsc::channel::<()>();
    let steps = std::sync::Mutex::new(steps);
    let running = setup(upstream(move |mut client| {
        client.head();
        client.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for n in 0..3 {
            client.send(format!("5\r\npart{n}\r\n"));
            steps.lock().unwrap().recv().unwrap();
        }
        client.send("0\r\n\r\n");
    }))
    .start();
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").head();
    for n in 0..3 {
        client.until(&format!("part{n}\r\n"));
        next.send(()).unwrap();
    }
    client.until("0\r\n\r\n");
}

#[test]
fn parts_of_a_request_arrive_as_they_are_sent() {
    let (seen_tx, seen) = mpsc::channel();
    let running = setup(upstream(move |mut client| {
        client.head();
        for n in 0..3 {
            client.until(&format!("part{n}\r\n"));
            seen_tx.send(n).unwrap();
        }
        client.until("0\r\n\r\n");
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }))
    .start();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for n in 0..3 {
        client.send(format!("5\r\npart{n}\r\n"));
        assert_eq!(seen.recv_timeout(Duration::from_secs(5)), Ok(n));
    }
    assert_eq!(client.send("0\r\n\r\n").message().status(), 200);
}

#[test]
fn large_bodies_arrive_whole_both_ways() {
    let running = setup(common::echo()).start();
    let body: Vec<u8> = (0..5_000_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let mut client = running.client();
    let mut writer = client.socket().try_clone().unwrap();
    let sent = body.clone();
    let sender = thread::spawn(move || {
        writer
            .write_all(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", sent.len()).as_bytes())
            .unwrap();
        writer.write_all(&sent).unwrap();
    });
    let answer = client.message();
    sender.join().unwrap();
    assert!(answer.body.ends_with(&body));
}

#[test]
fn a_slow_client_slows_the_upstream_down() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    const TOTAL: usize = 64 << 20;
    let running = setup(upstream(move |mut client| {
        client.head();
        client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n"));
        let chunk = vec![b'x'; 64 << 10];
        for _ in 0..TOTAL / chunk.len() {
            client.send(&chunk);
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    }))
    .start();
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").head();
    // Nothing is read: what the kernel and the proxy hold is all that leaves.
    let mut last = usize::MAX;
    eventually("the upstream is held up", || {
        thread::sleep(Duration::from_millis(100));
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    assert!(last < TOTAL / 2, "{last} bytes were taken from an upstream nobody reads");
    assert_eq!(client.exactly(TOTAL).len(), TOTAL);
}

#[test]
fn a_slow_upstream_slows_the_client_down() {
    let go = Arc::new(AtomicBool::new(false));
    let may_read = Arc::clone(&go);
    const TOTAL: usize = 64 << 20;
    let running = setup(upstream(move |mut client| {
        client.head();
        while !may_read.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        client.exactly(TOTAL);
        client.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    }))
    .start();
    let mut client = running.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {TOTAL}\r\n\r\n"));
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let mut io = client.socket().try_clone().unwrap();
    thread::spawn(move || {
        let chunk = vec![b'x'; 64 << 10];
        for _ in 0..TOTAL / chunk.len() {
            if io.write_all(&chunk).is_err() {
                return;
            }
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let mut last = usize::MAX;
    eventually("the client is held up", || {
        thread::sleep(Duration::from_millis(100));
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    assert!(last < TOTAL / 2, "{last} bytes were taken from a client for an upstream that does not read");
    go.store(true, Ordering::Relaxed);
    assert_eq!(client.message().status(), 200);
}

#[test]
fn a_client_that_leaves_takes_its_upstream_request_along() {
    let (gone_tx, gone) = mpsc::channel();
    let running = setup(upstream(move |mut client| {
        client.head();
        gone_tx.send(client.rest()).unwrap();
    }))
    .start();
    let mut client = running.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request is under way", || running.stat("cluster.app.upstream_rq_active") == 1);
    drop(client);
    assert_eq!(gone.recv_timeout(Duration::from_secs(5)), Ok(Vec::new()));
    eventually("the stream is counted out", || running.stat("http.ingress.downstream_rq_active") == 0);
    assert_eq!(running.stat("http.ingress.downstream_rq_rx_reset"), 1);
}

#[test]
fn an_early_answer_ends_the_upload_and_the_connection() {
    let running = setup(upstream(|mut client| {
        client.head();
        client.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
    }))
    .start();
    let mut client = running.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc");
    let answer = client.message();
    assert_eq!((answer.status(), answer.text().as_str(), answer.header("connection")), (413, "no", Some("close")));
    assert!(client.rest().is_empty());
}
