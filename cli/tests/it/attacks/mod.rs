//! Guests that mean harm: damaged modules, and host calls with arguments that
//! nobody would write. The host must not panic, must come back within its
//! deadline, and must not grow beyond its bounds.
//!
//! Everything follows from a seed, which a failure prints: it then joins
//! `REGRESSIONS`, which run first. `SPCTL_ATTACK_SECONDS` says how long to go on.

mod calls;
mod mutate;
mod random;

use std::sync::Arc;
use std::time::{Duration, Instant};

use random::Random;
use spctl_host::sandbox::Sandbox;
use spctl_host::trace::Sink;
use spctl_host::{Limits, PluginConfig, Side};

use crate::scenarios::guests::Guests;

/// Seeds that have once shown a fault.
const REGRESSIONS: &[u64] = &[];
/// How long each of the two attacks lasts where nothing else is said.
const LASTS: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits { memory: 16 << 20, deadline: Duration::from_millis(100) };
/// A whole drive: compiling, and at most one call that runs into the deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// Peak of the test process; guests may have 16 MiB each.
const MOST_MEMORY_KB: u64 = 1_500_000;

/// Says which seed it was when a test panics.
struct Seed(&'static str, u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} with seed {}", self.0, self.1);
        }
    }
}

/// Runs `attack` with every known seed, then with new ones until time is up.
fn attack(name: &'static str, mut attack: impl FnMut(&mut Random)) {
    let lasts = std::env::var("SPCTL_ATTACK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = Instant::now() + lasts.map_or(LASTS, Duration::from_secs);
    let fresh = (1..).take_while(|_| Instant::now() < until);
    let last = std::env::temp_dir().join(format!("spctl-attack-{}-{}", name.replace(' ', "-"), std::process::id()));
    let mut count = 0;
    for seed in REGRESSIONS.iter().copied().chain(fresh) {
        let _seed = Seed(name, seed);
        // What aborts the process leaves nothing else behind.
        let _ = std::fs::write(&last, format!("{name}: {seed}\n"));
        let began = Instant::now();
        attack(&mut Random::new(seed));
        assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
        assert!(peak_memory_kb() < MOST_MEMORY_KB, "{} kB", peak_memory_kb());
        count += 1;
    }
    let _ = std::fs::remove_file(&last);
    eprintln!("{name}: {count} attacks");
    assert!(count > 20, "{count} attacks are too few to mean anything");
}

/// Peak resident memory, where the system tells; else 0.
fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Loads a module if it can be loaded and takes two streams through it.
fn drive(wasm: &[u8], configuration: &str) {
    // Whoever watches reads the same memory, and must read it as carefully.
    let watch: Sink = Arc::new(|frame| assert!(frame.calls.len() <= 1000));
    let sandbox = Sandbox::traced(LIMITS, wasm.len().is_multiple_of(2).then_some(watch)).unwrap();
    let config = PluginConfig {
        name: "attack".into(),
        configuration: configuration.to_owned().into(),
        ..PluginConfig::default()
    };
    if sandbox.add(wasm, config).is_err() {
        return;
    }
    for _ in 0..2 {
        let mut stream = sandbox.stream();
        stream.request(&[("x-a", "b"), ("te", "trailers")], false).data(Side::Request, "some data", false);
        stream.trailers(Side::Request, &[("x-t", "v")]);
        stream.response(&[("x-r", "v")], false).data(Side::Response, "an answer", false);
        stream.data(Side::Response, "", true);
        stream.sent();
        sandbox.run();
        stream.finish();
        stream.sent();
        while sandbox.worker().next_callout().is_some() || sandbox.worker().next_grpc().is_some() {}
        sandbox.run();
    }
}

#[test]
fn damaged_modules_harm_nobody() {
    let guests = Guests::default();
    let modules = [guests.module("script"), guests.module("noop"), guests.module("abi_0_2_0.wat")];
    let script = r#"{"request_headers": [{"pairs": 0}, {"set": [0, "x", "y"]}, {"shared_set": ["k", "v", 0]}],
        "request_body": [{"body": [0, 0]}, {"set_body": [0, 0, 9, "new"]}], "response_headers": [{"property": ["xds", "node", "id"]}]}"#;
    attack("damaged modules", |random| {
        let module = &modules[random.below(modules.len())];
        drive(&mutate::damaged(&module.bytes, random), script);
    });
}

#[test]
fn host_calls_with_any_arguments_harm_nobody() {
    attack("random host calls", |random| {
        let text = calls::guest(random);
        let wasm = wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        drive(&wasm, "configuration");
    });
}

/// What a guest makes the host keep in one call is bounded like its memory.
#[test]
fn a_guest_that_fills_its_host_is_stopped() {
    for call in calls::KEEPERS {
        let before = Instant::now();
        drive(&wat::parse_str(calls::endless(call)).unwrap(), "");
        assert!(before.elapsed() < PATIENCE, "{call}: {:?}", before.elapsed());
        assert!(peak_memory_kb() < MOST_MEMORY_KB, "{call}: {} kB", peak_memory_kb());
    }
}
