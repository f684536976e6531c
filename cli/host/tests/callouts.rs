//! Callouts and timers: who is asked, who is answered, what is refused.

mod common;

use std::time::Duration;

use common::{guest, named, running, running_as, sandbox};
use spctl_host::{CallResponse, CalloutResult, HeaderKind, HeaderList, PluginConfig};

/// Headers of a callout in the wire form, as WebAssembly text at address 2000.
fn with_headers(guest: common::Guest, pairs: &[(&str, &str)]) -> (common::Guest, usize) {
    let encoded = spctl_host::pairs::to_vec(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let text: String = encoded.iter().map(|byte| format!("\\{byte:02x}")).collect();
    (guest.with(&format!("(data (i32.const 2000) \"{text}\")")), encoded.len())
}

const WHOLE: &[(&str, &str)] = &[(":method", "POST"), (":path", "/p"), (":authority", "a")];

fn call(cluster: &str, len: usize, timeout: i32) -> String {
    format!(
        "(call $num (call $call `{cluster}` (i32.const 2000) (i32.const {len}) `body` `` (i32.const {timeout}) (i32.const 8)))
        (call $num (i32.load (i32.const 8)))"
    )
}

fn caller(body: impl Fn(usize) -> String) -> common::Guest {
    let (guest, len) = with_headers(guest(), WHOLE);
    guest.request_headers(&format!("{} (i32.const 1)", body(len))).on(
        "proxy_on_http_call_response",
        5,
        false,
        "(call $num (local.get $ctx)) (call $num (local.get $a)) (call $num (local.get $b)) (call $num (local.get $c)) (call $num (local.get $d))
        (call $num (call $get (i32.const 6) `:status` (i32.const 0) (i32.const 4)))
        (call $num (call $body (i32.const 4) (i32.const 0) (i32.const 99) (i32.const 0) (i32.const 4)))
        (call $num (call $status (i32.const 8) (i32.const 0) (i32.const 4))) (call $num (i32.load (i32.const 8))) (call $out)
        (call $num (call $effective (i32.const 2))) (drop (call $resume (i32.const 0)))",
    )
}

fn answer() -> CalloutResult {
    let mut headers = HeaderList::new(HeaderKind::Response);
    headers.add(b":status", b"200");
    headers.add(b"x", b"y");
    CalloutResult::Response(CallResponse { headers, body: "answer".into(), trailers: None })
}

#[test]
fn an_answer_goes_to_the_root_which_can_resume_the_stream() {
    let sandbox = running(&caller(|len| call("app", len, 1500)));
    let mut stream = sandbox.stream();
    stream.request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "4"]);
    let callout = sandbox.worker().next_callout().unwrap();
    assert_eq!(
        (callout.cluster.as_str(), &callout.body[..], callout.timeout),
        ("app", &b"body"[..], Some(Duration::from_millis(1500)))
    );
    assert_eq!(callout.headers.get(b"content-length"), Some(&b"4"[..]));
    assert!(!stream.sent().request.ended);
    callout.answer.deliver(answer());
    assert_eq!(sandbox.take_log(), ["1", "4", "2", "6", "0", "0", "0", "0", "0", "", "0"]);
    assert!(stream.sent().request.ended);
}

#[test]
fn a_reset_is_told_with_nothing_and_a_status() {
    let sandbox = running(&caller(|len| call("app", len, 0)));
    sandbox.stream().request(&[], true);
    sandbox.take_log();
    let callout = sandbox.worker().next_callout().unwrap();
    assert_eq!(callout.timeout, None);
    callout.answer.deliver(CalloutResult::Reset);
    assert_eq!(sandbox.take_log(), ["1", "4", "0", "0", "0", "2", "1", "0", "11", "reset", "2"]);
}

#[test]
fn tokens_count_in_fours() {
    let sandbox = running(&caller(|len| call("app", len, 0)));
    let mut streams: Vec<_> = (0..3).map(|_| sandbox.stream()).collect();
    streams.iter_mut().for_each(|stream| {
        stream.request(&[], true);
    });
    assert_eq!(sandbox.take_log(), ["0", "4", "0", "8", "0", "12"]);
}

#[test]
fn calls_that_cannot_be_made_are_refused_as_envoy_refuses_them() {
    let sandbox = running(&caller(|len| {
        [call("nowhere", len, 0), call("empty", len, 0), call("app", len, -1), call("app", 4, 0)].concat()
    }));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["2", "0", "10", "0", "2", "0", "2", "0"]);
    assert!(sandbox.worker().next_callout().is_none());
}

#[test]
fn an_answer_for_a_stream_that_is_gone_still_reaches_the_root() {
    let sandbox = running(&caller(|len| call("app", len, 0)));
    sandbox.stream().request(&[], true).finish();
    let callout = sandbox.worker().next_callout().unwrap();
    assert!(!callout.answer.is_cancelled());
    sandbox.take_log();
    callout.answer.deliver(answer());
    let log = sandbox.take_log();
    assert_eq!((log[0].as_str(), log.last().map(String::as_str)), ("1", Some("2")));
}

#[test]
fn calls_end_with_their_root() {
    let sandbox = running(&caller(|len| call("app", len, 0)));
    sandbox.stream().request(&[], true).finish();
    let callout = sandbox.worker().next_callout().unwrap();
    sandbox.clear();
    sandbox.run();
    assert!(callout.answer.is_cancelled());
    sandbox.take_log();
    callout.answer.deliver(answer());
    assert_eq!(sandbox.take_log(), Vec::<String>::new());
}

#[test]
fn a_root_that_is_not_done_keeps_ticking_and_calling_until_it_says_so() {
    let (guest, len) = with_headers(guest(), WHOLE);
    let drains = guest
        .on("proxy_on_done", 1, true, "(call $say `not yet`) (drop (call $tick (i32.const 1))) (i32.const 0)")
        .on("proxy_on_tick", 1, false, &format!("{} (drop (call $tick (i32.const 0)))", call("app", len, 0)))
        .on("proxy_on_http_call_response", 5, false, "(call $num (call $done )) (call $num (call $done ))")
        .on("proxy_on_delete", 1, false, "(call $say `deleted`)");
    let sandbox = running(&drains);
    sandbox.clear();
    sandbox.run();
    assert_eq!((sandbox.take_log(), sandbox.worker().draining_roots()), (vec!["not yet".to_owned()], 1));
    std::thread::sleep(Duration::from_millis(3));
    sandbox.run();
    assert_eq!(sandbox.take_log(), ["0", "4"]);
    sandbox.worker().next_callout().unwrap().answer.deliver(answer());
    assert_eq!(sandbox.take_log(), ["0", "1", "deleted"]);
    assert_eq!(sandbox.worker().draining_roots(), 0);
}

#[test]
fn done_without_being_asked_is_not_found() {
    let sandbox = running(&guest().request_headers("(call $num (call $done )) (i32.const 0)"));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["1"]);
}

#[test]
fn a_timer_is_the_roots_own_and_zero_stops_it() {
    let ticks = guest()
        .with("(global $n (mut i32) (i32.const 0))")
        .request_headers("(drop (call $tick (i32.const 1))) (i32.const 0)")
        .on(
            "proxy_on_tick",
            1,
            false,
            "(call $num (local.get $ctx)) (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (if (i32.eq (global.get $n) (i32.const 3)) (then (drop (call $tick (i32.const 0)))))",
        );
    let sandbox = running(&ticks);
    assert!(sandbox.worker().next_deadline().is_none());
    sandbox.stream().request(&[], true);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(3));
        sandbox.run();
    }
    assert_eq!(sandbox.take_log(), ["1", "1", "1"]);
    assert!(sandbox.worker().next_deadline().is_none());
}

#[test]
fn plugins_of_one_code_share_a_virtual_machine_and_keep_their_own_roots() {
    let shared = guest()
        .with("(global $n (mut i32) (i32.const 0))")
        .configure("(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $num (local.get $ctx)) (call $num (global.get $n)) (i32.const 1)");
    let wasm = shared.wasm();
    let sandbox = sandbox();
    for configuration in ["one", "two"] {
        let config = PluginConfig { configuration: configuration.into(), ..named("plugin") };
        sandbox.add(&wasm, config).unwrap();
    }
    // Canary, worker; canary anew, the same worker's virtual machine again.
    assert_eq!(sandbox.take_log(), ["1", "1", "1", "1", "1", "1", "2", "2"]);
}

#[test]
fn a_different_environment_is_a_different_virtual_machine() {
    let counts = guest()
        .with("(global $n (mut i32) (i32.const 0))")
        .configure("(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $num (global.get $n)) (i32.const 1)");
    let sandbox = running_as(&counts, named("plugin"));
    let config = PluginConfig { environment: vec![("A".into(), "b".into())], ..named("plugin") };
    sandbox.add(&counts.wasm(), config).unwrap();
    assert_eq!(sandbox.take_log(), ["1", "1"]);
}
