//! Embedded and Envoy side by side in one run: no filter, a no-op filter, the
//! capture filter where its rules skip, the capture filter; and on Envoy other
//! builds of it, if SPCTL_BENCH_BEFORE names some (`:` between them). Requests per
//! second of proxy CPU ("per core"), latency, CPU per request, memory.
//! SPCTL_TEST_HARNESS leaves one of the two.
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Spctl, address, ask};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

const ROUNDS: usize = 25;
const REQUESTS: u64 = 4_000;
const CONCURRENCY: usize = 32;
/// One kilobyte of JSON, each way.
const BODY: usize = 1024;

struct Variant {
    harness: &'static str,
    filter: String,
    spctl: Spctl,
    proxy: SocketAddr,
    admin: SocketAddr,
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
    // Load, upstream and backend on one core, the proxies on another: what they
    // do to each other's caches is not the filter's doing.
    pin(std::process::id().into(), 0);
    let noop = match spctl::builder::build(&common::testdata().join("guests/noop"), &|_| ()) {
        Ok(built) => built.path,
        Err(error) => panic!("{error}"),
    };
    let upstream = background_upstream();
    let only = std::env::var("SPCTL_TEST_HARNESS").ok();
    let mut harnesses = vec!["embedded"];
    if common::envoy().is_some() {
        harnesses.push("envoy");
    }
    harnesses.retain(|harness| only.as_ref().is_none_or(|only| only == harness));
    let before = std::env::var_os("SPCTL_BENCH_BEFORE").unwrap_or_default();
    let mut variants = Vec::new();
    for harness in harnesses {
        for filter in ["none", "noop", "skipped", "capture"] {
            variants.push(start(harness, filter, upstream, &noop));
        }
        for module in std::env::split_paths(&before).filter(|_| harness == "envoy") {
            let name = module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            variants.push(start(harness, &name, upstream, &module));
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

/// `module` is the no-op filter, or a build of the capture filter by another name.
fn start(harness: &'static str, filter: &str, upstream: SocketAddr, module: &Path) -> Variant {
    let spctl = Spctl::new();
    let upstream = format!("http://{upstream}");
    let module = module.display().to_string();
    let other = format!("capture={module}");
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
        "noop" => args.extend(["--plugin", &module]),
        "skipped" => args.extend(["--config", skipping.to_str().unwrap()]),
        "capture" => {}
        _ => args.extend(["--plugin", &other]),
    }
    let data = spctl.data(&args);
    let record: Value =
        serde_json::from_slice(&std::fs::read(spctl.instance_dir("default").join("record.json")).unwrap()).unwrap();
    let pid = if harness == "envoy" { &record["children"][0]["pid"] } else { &record["pid"] };
    let pid = pid.as_u64().unwrap();
    for (_, task) in workers(pid) {
        pin(task, 1);
    }
    Variant {
        harness,
        filter: filter.to_owned(),
        proxy: address(&data["instances"][0]["proxy_url"]),
        admin: address(&data["instances"][0]["admin_url"]),
        pid,
        spctl,
        rounds: Vec::new(),
    }
}

fn round(variant: &Variant) -> Round {
    let before = workers_cpu(variant.pid);
    let started = Instant::now();
    let mut latencies = common::runtime().block_on(load(variant.proxy));
    let wall = started.elapsed().as_secs_f64();
    if !matches!(variant.filter.as_str(), "none" | "noop" | "skipped") {
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

/// The threads that serve traffic, as directories of `/proc` and ids: Envoy's
/// `wrk:worker_N`, the embedded proxy's `worker-N`.
fn workers(pid: u64) -> Vec<(PathBuf, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let named = tasks.filter(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.starts_with("wrk:worker") || comm.starts_with("worker")
    });
    named.map(|task| (task.path(), task.file_name().to_string_lossy().parse().unwrap())).collect()
}

/// CPU seconds of the workers, by the scheduler's nanoseconds.
fn workers_cpu(pid: u64) -> f64 {
    let ns = |(task, _): &(PathBuf, u64)| -> u64 {
        let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
        stat.split_whitespace().next().unwrap().parse().unwrap()
    };
    workers(pid).iter().map(ns).sum::<u64>() as f64 / 1e9
}

/// Keeps a thread on one core, where there are several.
fn pin(task: u64, core: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    if cores > 1 {
        rustix::thread::sched_setaffinity(rustix::process::Pid::from_raw(task as i32), &set).unwrap();
    }
}

/// Exchanges that went with one upload; none went with none.
fn exchanges_per_upload(variant: &Variant) -> f64 {
    let stats = ask(variant.admin, "GET", "/stats?filter=wasmcustom.softprobe");
    let stats = String::from_utf8_lossy(&stats.body).into_owned();
    let of = |name: &str| -> Option<f64> {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse().ok()
    };
    match (of("wasmcustom.softprobe.exported"), of("wasmcustom.softprobe.export_calls")) {
        (Some(exported), Some(calls)) if calls > 0.0 => exported / calls,
        _ => f64::NAN,
    }
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
        "{:<9} {:<8} {:>10} {:>8} {:>10} {:>9} {:>9} {:>9} {:>8} {:>10}",
        "harness",
        "filter",
        "req/s/core",
        "× Envoy",
        "CPU us/req",
        "× plain",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "per upload"
    );
    let cpu = |v: &Variant| median(v.rounds.iter().map(|r| r.cpu / REQUESTS as f64));
    // Round by round: what slows the machine for a while slows both.
    let ratio = |a: &Variant, b: &Variant| median(a.rounds.iter().zip(&b.rounds).map(|(a, b)| a.cpu / b.cpu));
    for variant in variants {
        let own = cpu(variant);
        let of = |harness: &str, filter: &str| variants.iter().find(|v| v.harness == harness && v.filter == filter);
        let against = of("envoy", &variant.filter).map_or(f64::NAN, |envoy| ratio(envoy, variant));
        let plain = of(variant.harness, "none").map_or(f64::NAN, |plain| ratio(variant, plain));
        let ms = |d: fn(&Round) -> Duration| median(variant.rounds.iter().map(|r| d(r).as_secs_f64() * 1000.0));
        let (p50, p99) = (ms(|r| r.p50), ms(|r| r.p99));
        let rss = resident_kib(variant.pid) as f64 / 1024.0;
        let uploads = exchanges_per_upload(variant);
        println!(
            "{:<9} {:<8} {:>10.0} {:>8.2} {:>10.1} {:>9.2} {:>9.2} {:>9.2} {:>8.0} {:>10.0}",
            variant.harness,
            variant.filter,
            1.0 / own,
            against,
            own * 1e6,
            plain,
            p50,
            p99,
            rss,
            uploads
        );
        let wall = median(variant.rounds.iter().map(|r| r.wall));
        println!(
            "{}",
            json!({"harness": variant.harness, "filter": variant.filter, "cpu_us_per_request": own * 1e6, "requests_per_second": REQUESTS as f64 / wall, "p50_ms": p50, "p99_ms": p99, "rss_mib": rss, "exchanges_per_upload": uploads})
        );
    }
}
