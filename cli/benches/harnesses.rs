//! Embedded and Envoy side by side in one run: no filter, a no-op filter, the
//! capture filter where its rules skip, the capture filter; and on Envoy another
//! build of it, if SPCTL_BENCH_BEFORE names one. Requests per second of proxy CPU ("per core"), latency, CPU
//! per request, memory.
//!
//!     cargo bench -p spctl --bench harnesses          (SPCTL_TEST_ENVOY or PATH names Envoy)
//!
//! CPU is that of the proxies' worker threads alone, so that load, upstream
//! and backend on the same machine do not count. Rounds of all variants take
//! turns and the median round counts, so that a busy moment hits all alike.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops at what it did not expect"
)]

#[path = "../tests/it/common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Spctl, address};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

const ROUNDS: usize = 5;
const REQUESTS: u64 = 20_000;
const CONCURRENCY: usize = 32;
/// One kilobyte of JSON, each way.
const BODY: usize = 1024;

struct Variant {
    harness: &'static str,
    filter: &'static str,
    spctl: Spctl,
    proxy: SocketAddr,
    pid: u64,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    /// Seconds of the workers' CPU.
    cpu: f64,
    wall: f64,
    p50: Duration,
    p99: Duration,
}

fn main() {
    let noop = match spctl::builder::build(&common::testdata().join("guests/noop"), &|_| ()) {
        Ok(built) => built.path,
        Err(error) => panic!("{error}"),
    };
    let upstream = background_upstream();
    let harnesses = if common::envoy().is_some() { vec!["embedded", "envoy"] } else { vec!["embedded"] };
    let mut variants = Vec::new();
    for harness in harnesses {
        for filter in ["none", "noop", "skipped", "capture"] {
            variants.push(start(harness, filter, upstream, &noop));
        }
        if let (Some(before), "envoy") = (std::env::var_os("SPCTL_BENCH_BEFORE"), harness) {
            variants.push(start(harness, "before", upstream, Path::new(&before)));
        }
    }
    for variant in &mut variants {
        // Warm: connections, allocators, compiled code.
        round(variant);
    }
    for n in 1..=ROUNDS {
        eprintln!("round {n} of {ROUNDS}");
        for variant in &mut variants {
            let measured = round(variant);
            variant.rounds.push(measured);
        }
    }
    report(&variants);
}

fn start(harness: &'static str, filter: &'static str, upstream: SocketAddr, noop: &Path) -> Variant {
    let spctl = Spctl::new();
    let upstream = format!("http://{upstream}");
    let noop = noop.display().to_string();
    let before = format!("capture={noop}");
    let skipping = spctl.file("skip.json", r#"{"collectionRules": {"http": {"server": [{"path": "^/other"}]}}}"#);
    let mut args = vec![
        "run",
        "--detach",
        "--harness",
        harness,
        "--workers",
        "1",
        "--upstream",
        &upstream,
        "--listen",
        "127.0.0.1:0",
    ];
    match filter {
        "none" => args.push("--no-plugin"),
        "noop" => args.extend(["--plugin", &noop]),
        "before" => args.extend(["--plugin", &before]),
        "skipped" => args.extend(["--config", skipping.to_str().unwrap()]),
        _ => {}
    }
    let data = spctl.data(&args);
    let record: Value =
        serde_json::from_slice(&std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap()).unwrap();
    let pid = if harness == "envoy" { &record["children"][0]["pid"] } else { &record["pid"] };
    Variant {
        harness,
        filter,
        proxy: address(&data["instances"][0]["proxy_url"]),
        pid: pid.as_u64().unwrap(),
        spctl,
        rounds: Vec::new(),
    }
}

fn round(variant: &Variant) -> Round {
    let before = workers_cpu(variant.pid);
    let started = Instant::now();
    let mut latencies = common::runtime().block_on(load(variant.proxy));
    let wall = started.elapsed().as_secs_f64();
    if matches!(variant.filter, "capture" | "before") {
        // Its exports belong to the price.
        variant.spctl.wait_status("exports", |s| {
            s["counters"]["queued"] == 0 && s["counters"]["captured"] == s["counters"]["exported"]
        });
    }
    let cpu = workers_cpu(variant.pid) - before;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Round { cpu, wall, p50: at(0.5), p99: at(0.99) }
}

/// CPU seconds of the threads that serve traffic: Envoy's `wrk:worker_N`, the
/// embedded proxy's `worker-N`.
fn workers_cpu(pid: u64) -> f64 {
    let mut ticks = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if comm.starts_with("wrk:worker") || comm.starts_with("worker") {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    // USER_HZ is 100 on every Linux that matters.
    ticks as f64 / 100.0
}

fn resident_kib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn load(proxy: SocketAddr) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let body = Bytes::from(format!(r#"{{"name":"load","text":"{}"}}"#, "x".repeat(BODY - 25)));
    let mut tasks = Vec::new();
    for _ in 0..CONCURRENCY {
        let (next, body) = (next.clone(), body.clone());
        tasks.push(tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(proxy).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut latencies = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= REQUESTS {
                    return latencies;
                }
                let request = http::Request::post(format!("/items/{n}"))
                    .header("host", "bench.test")
                    .header("content-type", "application/json")
                    .header("x-session-id", format!("s-{n}"));
                let started = Instant::now();
                sender.ready().await.unwrap();
                let response = sender.send_request(request.body(Full::new(body.clone())).unwrap()).await.unwrap();
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.unwrap();
                latencies.push(started.elapsed());
            }
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

fn background_upstream() -> SocketAddr {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        common::runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            tx.send(listener.local_addr().unwrap()).unwrap();
            let body = format!(r#"{{"ok":true,"text":"{}"}}"#, "y".repeat(BODY - 23));
            let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
                let body = body.clone();
                async move {
                    let _ = request.into_body().collect().await;
                    ([("content-type", "application/json")], body)
                }
            });
            axum::serve(listener, router).await.unwrap();
        });
    });
    rx.recv().unwrap()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(variants: &[Variant]) {
    println!(
        "{:<9} {:<8} {:>10} {:>8} {:>10} {:>9} {:>9} {:>9} {:>8}",
        "harness", "filter", "req/s/core", "× Envoy", "CPU us/req", "× plain", "p50 ms", "p99 ms", "RSS MiB"
    );
    let cpu = |v: &Variant| median(v.rounds.iter().map(|r| r.cpu / REQUESTS as f64));
    for variant in variants {
        let own = cpu(variant);
        let of = |harness: &str, filter: &str| {
            variants.iter().find(|v| v.harness == harness && v.filter == filter).map(&cpu)
        };
        let against = of("envoy", variant.filter).map_or(f64::NAN, |envoy| envoy / own);
        let plain = of(variant.harness, "none").map_or(f64::NAN, |plain| own / plain);
        let ms = |d: fn(&Round) -> Duration| median(variant.rounds.iter().map(|r| d(r).as_secs_f64() * 1000.0));
        let (p50, p99) = (ms(|r| r.p50), ms(|r| r.p99));
        let rss = resident_kib(variant.pid) as f64 / 1024.0;
        println!(
            "{:<9} {:<8} {:>10.0} {:>8.2} {:>10.1} {:>9.2} {:>9.2} {:>9.2} {:>8.0}",
            variant.harness,
            variant.filter,
            1.0 / own,
            against,
            own * 1e6,
            plain,
            p50,
            p99,
            rss
        );
        let wall = median(variant.rounds.iter().map(|r| r.wall));
        println!(
            "{}",
            json!({"harness": variant.harness, "filter": variant.filter, "cpu_us_per_request": own * 1e6, "requests_per_second": REQUESTS as f64 / wall, "p50_ms": p50, "p99_ms": p99, "rss_mib": rss})
        );
    }
}
