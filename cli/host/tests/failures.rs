//! Traps and endless loops under each failure policy.

mod common;

use std::time::Duration;

use common::{guest, named, running, running_as, sandbox};
use spctl_host::{ContextKind, FailurePolicy, Level, PluginConfig, ReloadBackoff, Side, StatValue};

const POLICIES: [FailurePolicy; 4] =
    [FailurePolicy::FailClosed, FailurePolicy::FailOpen, FailurePolicy::FailReload, FailurePolicy::LegacyFailOpen];

fn with(failure_policy: FailurePolicy) -> PluginConfig {
    let reload_backoff = ReloadBackoff { base_interval: Duration::from_millis(20) };
    PluginConfig { failure_policy, reload_backoff, ..named("plugin") }
}

/// Traps on requests that carry `x-trap`.
fn fragile() -> common::Guest {
    guest().request_headers(
        "(if (i32.eqz (call $get (i32.const 0) `x-trap` (i32.const 0) (i32.const 4))) (then unreachable)) (i32.const 0)",
    )
}

fn status(sandbox: &spctl_host::sandbox::Sandbox, headers: &[(&str, &str)]) -> Option<String> {
    let mut stream = sandbox.stream();
    stream.request(headers, true);
    let status = stream.sent().response.header(":status").map(str::to_owned);
    stream.finish();
    status
}

#[test]
fn the_request_that_traps_is_answered_with_503_unless_the_old_option_lets_it_pass() {
    for policy in POLICIES {
        let sandbox = running_as(&fragile(), with(policy));
        let mut stream = sandbox.stream();
        stream.request(&[("x-trap", "1")], true);
        let expected = (policy != FailurePolicy::LegacyFailOpen).then_some("503");
        assert_eq!(stream.sent().response.header(":status"), expected, "{policy:?}");
        assert!(stream.sent().response.body.is_empty());
        if expected.is_some() {
            let details = stream.chain().exchange().info().response_code_details.clone();
            assert_eq!(details.as_deref(), Some("wasm_fail_stream"));
        }
    }
}

#[test]
fn later_requests_meet_the_policy() {
    for (policy, expected) in [
        (FailurePolicy::FailClosed, Some("503")),
        (FailurePolicy::FailOpen, None),
        (FailurePolicy::LegacyFailOpen, None),
        (FailurePolicy::FailReload, Some("503")),
    ] {
        let sandbox = running_as(&fragile(), with(policy));
        status(&sandbox, &[("x-trap", "1")]);
        assert_eq!(status(&sandbox, &[]).as_deref(), expected, "{policy:?}");
    }
}

#[test]
fn reload_makes_a_new_virtual_machine_once_the_back_off_has_passed() {
    let sandbox = running_as(&fragile(), with(FailurePolicy::FailReload));
    assert_eq!(status(&sandbox, &[("x-trap", "1")]).as_deref(), Some("503"));
    assert_eq!(status(&sandbox, &[]).as_deref(), Some("503"));
    std::thread::sleep(Duration::from_millis(35));
    assert_eq!(status(&sandbox, &[]), None);
    let stats = sandbox.process().stats().snapshot();
    let count = |name: &str| stats.iter().find(|stat| stat.name == name).map(|stat| stat.value.clone());
    assert_eq!(count("wasm.plugin.vm_reload_success"), Some(StatValue::Counter(1)));
    assert_eq!(count("wasm.plugin.vm_reload_backoff"), Some(StatValue::Counter(1)));
}

#[test]
fn nothing_is_called_in_a_failed_virtual_machine() {
    let noisy = fragile()
        .on("proxy_on_log", 1, false, "(call $say `log`)")
        .on("proxy_on_done", 1, true, "(call $say `done`) (i32.const 1)")
        .on("proxy_on_delete", 1, false, "(call $say `delete`)")
        .response_headers("(call $say `response`) (i32.const 0)");
    let sandbox = running_as(&noisy, with(FailurePolicy::FailClosed));
    status(&sandbox, &[("x-trap", "1")]);
    status(&sandbox, &[]);
    let lines = sandbox.take_lines();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].level, lines[0].context), (Level::Error, ContextKind::Host));
    let text = &lines[0].message;
    assert!(text.starts_with("Function: proxy_on_request_headers failed: Uncaught RuntimeError: unreachable\nProxy-Wasm plugin in-VM backtrace:\n  0:  0x"), "{text}");
}

#[test]
fn other_streams_of_the_virtual_machine_fail_at_their_next_callback() {
    let both = fragile().request_body("(i32.const 0)").response_headers("(i32.const 0)");
    let sandbox = running_as(&both, with(FailurePolicy::FailClosed));
    let (mut uploading, mut waiting) = (sandbox.stream(), sandbox.stream());
    uploading.request(&[], false);
    waiting.request(&[], true);
    status(&sandbox, &[("x-trap", "1")]);
    assert_eq!(uploading.data(Side::Request, "x", true).sent().response.header(":status"), Some("503"));
    assert_eq!(waiting.response(&[], true).sent().response.header(":status"), Some("503"));
}

#[test]
fn a_trap_after_the_response_has_started_cuts_the_stream() {
    let sandbox = running_as(&guest().response_body("unreachable"), with(FailurePolicy::FailClosed));
    let mut stream = sandbox.stream();
    stream.request(&[], true).response(&[], false).data(Side::Response, "x", true);
    assert!(stream.sent().was_reset);
}

#[test]
fn one_trap_takes_every_plugin_of_the_virtual_machine_with_it() {
    let wasm = fragile().wasm();
    let sandbox = sandbox();
    let filters: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|configuration| {
            let config = PluginConfig { configuration: configuration.into(), ..with(FailurePolicy::FailClosed) };
            sandbox.add(&wasm, config).unwrap()
        })
        .collect();
    assert_eq!(status(&sandbox, &[]), None);
    status(&sandbox, &[("x-trap", "1")]);
    assert!(filters.iter().all(|filter| filter.is_failed()));
}

#[test]
fn an_endless_loop_in_a_stream_ends_at_the_deadline() {
    let sandbox =
        running_as(&guest().request_headers("(loop $l (br $l)) (i32.const 0)"), with(FailurePolicy::FailClosed));
    let started = std::time::Instant::now();
    assert_eq!(status(&sandbox, &[]).as_deref(), Some("503"));
    assert!(started.elapsed() < Duration::from_secs(2));
    let text = sandbox.take_log().remove(0);
    assert!(text.contains("it would have blocked an Envoy worker for at least 200 ms"), "{text}");
}

#[test]
fn recursion_without_end_is_a_trap_like_any_other() {
    let deep = guest().with(
        "(func $deep (param i64 i64 i64 i64) (call $deep (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
    );
    let sandbox = running_as(
        &deep.request_headers("(call $deep (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)) (i32.const 0)"),
        with(FailurePolicy::FailClosed),
    );
    assert_eq!(status(&sandbox, &[]).as_deref(), Some("503"));
    assert!(sandbox.take_log()[0].contains("Uncaught RangeError: Maximum call stack size exceeded"));
}

#[test]
fn traps_are_called_by_v8s_names() {
    for (code, name) in [
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const -4)))", "memory access out of bounds"),
        ("(drop (i32.trunc_f64_s (f64.const nan)))", "float unrepresentable in integer range"),
    ] {
        let sandbox =
            running_as(&guest().request_headers(&format!("{code} (i32.const 0)")), with(FailurePolicy::FailClosed));
        status(&sandbox, &[]);
        let text = sandbox.take_log().remove(0);
        assert!(text.contains(&format!("Uncaught RuntimeError: {name}")), "{text}");
    }
}

#[test]
fn a_capability_that_is_not_allowed_is_a_stub_and_says_so() {
    let config = PluginConfig {
        allowed_capabilities: ["proxy_log", "proxy_on_request_headers", "proxy_on_context_create"]
            .map(String::from)
            .to_vec(),
        ..named("plugin")
    };
    let asks = guest()
        .request_headers("(call $num (call $tick (i32.const 1))) (i32.const 0)")
        .response_headers("(call $say `never called`) (i32.const 0)");
    let sandbox = running_as(&asks, config);
    sandbox.stream().request(&[], true).response(&[], true);
    let log = sandbox.take_log();
    let stub = "Attempted call to restricted proxy-wasm capability: proxy_set_tick_period_milliseconds";
    assert_eq!(log, [stub, "10"]);
}

/// Neither that of a filter in use, nor one that waits for its farewell, nor
/// one that has not said `proxy_done` yet.
#[test]
fn a_worker_that_ends_leaves_no_vm_behind() {
    let quiet = guest().request_headers("(i32.const 0)");
    let not_done = guest().on("proxy_on_done", 1, true, "(i32.const 0)");
    for (guest, replaced, told) in [(&quiet, false, false), (&quiet, true, false), (&not_done, true, true)] {
        let sandbox = running(guest);
        sandbox.stream().request(&[], true);
        let process = std::sync::Arc::clone(sandbox.process());
        let active = || {
            let stats = process.stats().snapshot();
            let of = |name: &str| stats.iter().find(|stat| stat.name == name).map(|stat| stat.value.clone());
            of("wasm.envoy.wasm.runtime.v8.active")
        };
        assert_eq!(active(), Some(StatValue::Gauge(2)), "one, and the base");
        if replaced {
            sandbox.clear();
        }
        if told {
            sandbox.run();
        }
        drop(sandbox);
        assert_eq!(active(), Some(StatValue::Gauge(0)), "{replaced} {told}");
    }
}
