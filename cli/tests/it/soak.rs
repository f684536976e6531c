//! Many requests through the capture filter, with a good backend and with bad
//! ones: nothing is lost silently, no request suffers, memory stays flat.

mod pressure;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use crate::common::load::{self, Served};
use crate::common::sink::{Backend, Mood, upstream};
use crate::common::{Spctl, address, dropped, in_background, native_harnesses, runtime};

/// As many as `SPCTL_SOAK_REQUESTS` says, or so many.
const REQUESTS: u64 = 100_000;
const WARM_UP: u64 = 20_000;
const CONCURRENCY: usize = 32;
/// What memory may grow by after the warm-up.
const GROWTH_KIB: u64 = 5 * 1024;
const ROUNDS: usize = 3;

fn requests() -> u64 {
    std::env::var("SPCTL_SOAK_REQUESTS").map_or(REQUESTS, |count| count.parse().unwrap())
}

fn drive(address: std::net::SocketAddr, first: u64, count: u64) -> Served {
    runtime().block_on(load::run(address, first, count, CONCURRENCY, Arc::new(AtomicBool::new(false))))
}

/// Runs the capture filter with one worker before an upstream; the proxy's address.
fn started(spctl: &Spctl, harness: &str, with: &[&str]) -> std::net::SocketAddr {
    let upstream = format!("http://{}", in_background(upstream()));
    let args = ["run", "--detach", "--harness", harness, "--workers", "1", "--upstream", &upstream];
    address(&spctl.data(&[&args[..], with].concat())["instances"][0]["proxy_url"])
}

fn settled(status: &Value, captured: u64) -> bool {
    let counters = &status["counters"];
    counters["captured"] == captured
        && counters["queued"] == 0
        && counters["exported"].as_u64().unwrap() + dropped(counters) == captured
}

/// Resident memory of the process that runs the filter, in KiB.
fn resident(spctl: &Spctl, harness: &str) -> u64 {
    let record: Value =
        serde_json::from_slice(&std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap()).unwrap();
    let pid = if harness == "envoy" { &record["children"][0]["pid"] } else { &record["pid"] };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_hundred_thousand_requests_are_all_stored_and_memory_stays_flat() {
    for harness in native_harnesses() {
        let spctl = Spctl::new();
        let proxy = started(&spctl, harness, &[]);
        assert_eq!(drive(proxy, 0, WARM_UP), Served { ok: WARM_UP, failed: 0 }, "{harness}");
        spctl.wait_status("the warm-up arrives", |s| settled(s, WARM_UP));
        let mut sent = WARM_UP;
        let mut growth = Vec::new();
        // Captures that wait because another process had the cores stay as
        // memory of the VM: then what grows once must not grow again.
        while growth.len() < ROUNDS && growth.last().is_none_or(|kib| *kib >= GROWTH_KIB) {
            let before = resident(&spctl, harness);
            let rest = requests() - WARM_UP;
            assert_eq!(drive(proxy, sent, rest), Served { ok: rest, failed: 0 }, "{harness}");
            sent += rest;
            let status = spctl.wait_status("everything arrives", |s| settled(s, sent));
            growth.push(resident(&spctl, harness).saturating_sub(before));
            assert_eq!(status["counters"]["stored"], sent, "{harness}: {}", status["counters"]);
            assert_eq!(status["counters"]["requests"], sent, "{harness}: {}", status["counters"]);
        }
        eprintln!("{harness}: memory grew by {growth:?} KiB in {sent} requests");
        assert!(growth.last().is_some_and(|kib| *kib < GROWTH_KIB), "{harness}: memory grows: {growth:?} KiB");
        // Distinct by path too, not only by id.
        let page = spctl.data(&["captures", "list", "--url", &format!("/load/{}", sent - 1)]);
        assert_eq!(page["exchanges"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_failing_backend_costs_no_request_and_nothing_is_lost_silently() {
    for harness in native_harnesses() {
        let backend = in_background(Backend::start());
        let spctl = Spctl::new();
        // Small enough that the queue overflows while the backend is away.
        let config = spctl.file("capture.json", r#"{"limits": {"queue_bytes": 400000}}"#);
        let url = format!("http://{}", backend.address);
        let proxy = started(&spctl, harness, &["--backend", &url, "--config", config.to_str().unwrap()]);
        let mut sent = 0;
        for mood in [Mood::Good, Mood::Busy, Mood::Nonsense, Mood::Slow, Mood::Good] {
            backend.set(mood);
            assert_eq!(drive(proxy, sent, 2000), Served { ok: 2000, failed: 0 }, "{harness}");
            sent += 2000;
            if mood == Mood::Slow {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        let status = spctl.wait_status("the backend is back", |s| settled(s, sent));
        let counters = &status["counters"];
        assert!(dropped(counters) > 0, "{harness}: the queue was meant to overflow: {counters}");
        // Late answers of the slow time may count a span as failed that did arrive.
        assert!(
            backend.distinct_spans() + dropped(counters) >= sent,
            "{harness}: {} stored, {counters}",
            backend.distinct_spans()
        );
        assert_eq!(counters["exported"].as_u64().unwrap() + dropped(counters), sent, "{harness}: {counters}");
    }
}

/// `trace id, span id` of what an instance's database holds.
fn stored_ids(spctl: &Spctl, instance: &str) -> HashSet<(Vec<u8>, Vec<u8>)> {
    let database = rusqlite::Connection::open(spctl.instance_dir(instance).join("captures.db")).unwrap();
    let mut ids = database.prepare("SELECT trace_id, span_id FROM exchanges").unwrap();
    ids.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_backend_killed_midway_and_started_again_loses_only_what_is_counted() {
    /// Uploads under way when it dies may have been stored, and be dropped later.
    const UNKNOWN: u64 = 4 * 256;
    for harness in native_harnesses() {
        let spctl = Spctl::new();
        let backend = |listen: &str| {
            let args = ["run", "--detach", "--name", "store", "--no-plugin", "--listen", "127.0.0.1:0"];
            let data = spctl.data(&[&args[..], &["--backend-listen", listen]].concat());
            data["instances"][0]["backend_url"].as_str().unwrap().to_owned()
        };
        let url = backend("127.0.0.1:0");
        let proxy = started(&spctl, harness, &["--backend", &url]);
        let sent = requests();
        let load = std::thread::spawn(move || drive(proxy, 0, sent));
        while spctl.status()["counters"]["captured"].as_u64() < Some(sent / 5 * 2) {
            assert!(!load.is_finished(), "{harness}: the load ended before it was captured");
            std::thread::sleep(Duration::from_millis(20));
        }
        let record = std::fs::read(spctl.instance_dir("store").join("record.json")).unwrap();
        let pid = serde_json::from_slice::<Value>(&record).unwrap()["pid"].as_i64().unwrap();
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let mut ids = stored_ids(&spctl, "store");
        let before = ids.len();
        assert!(before > 0, "{harness}: nothing had been stored");
        assert_eq!(backend(url.strip_prefix("http://").unwrap()), url);
        assert_eq!(load.join().unwrap(), Served { ok: sent, failed: 0 }, "{harness}");
        let status = spctl.wait_status("the backend is back", |s| settled(s, sent));
        ids.extend(stored_ids(&spctl, "store"));
        // A full database lets the oldest go, and says how many.
        let evicted = spctl.data(&["status", "--name", "store"])["instances"][0]["counters"]["evicted"].as_u64();
        let (stored, dropped) = (ids.len() as u64 + evicted.unwrap(), dropped(&status["counters"]));
        eprintln!("{harness}: {before} stored before, {stored} in all, {dropped} dropped of {sent}");
        assert!(stored > before as u64, "{harness}: nothing was stored afterwards");
        assert!((sent..=sent + UNKNOWN).contains(&(stored + dropped)), "{harness}: {stored} + {dropped} of {sent}");
    }
}

#[test]
fn a_backend_that_is_not_there_costs_no_request() {
    for harness in native_harnesses() {
        let spctl = Spctl::new();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = started(&spctl, harness, &["--backend", &format!("http://{nobody}")]);
        assert_eq!(drive(proxy, 0, 3000), Served { ok: 3000, failed: 0 }, "{harness}");
        let status = spctl.wait_status("all are counted", |s| s["counters"]["captured"] == 3000);
        let counters = &status["counters"];
        assert_eq!(counters["queued"].as_u64().unwrap() + dropped(counters), 3000, "{harness}: {counters}");
    }
}
