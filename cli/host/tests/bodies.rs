//! Bodies: what a callback sees of them, and what it can make of them.

mod common;

use common::{guest, running};
use spctl_host::Side;

/// Says size and end, then the body as the guest can read it.
const SHOW: &str = "(call $num (local.get $a)) (call $num (local.get $b))
    (drop (call $body (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0) (i32.const 4))) (call $out)";

fn edit(start: i32, len: i32, data: &str) -> String {
    format!("(call $num (call $set_body (i32.const 0) (i32.const {start}) (i32.const {len}) `{data}`))")
}

#[test]
fn a_callback_that_continues_sees_each_chunk_alone() {
    let sandbox = running(&guest().request_body(&format!("{SHOW}(i32.const 0)")));
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "one", false).data(Side::Request, "two", false);
    stream.data(Side::Request, "", true);
    assert_eq!(sandbox.take_log(), ["3", "0", "one", "3", "0", "two", "0", "1", ""]);
    assert_eq!(stream.sent().request.body, b"onetwo");
}

#[test]
fn a_callback_that_pauses_sees_the_whole_body_grow() {
    let sandbox = running(&guest().request_body(&format!("{SHOW}(i32.eqz (local.get $b))")));
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "one", false).data(Side::Request, "two", false);
    assert!(stream.sent().request.body.is_empty());
    stream.data(Side::Request, "!", true);
    assert_eq!(sandbox.take_log(), ["3", "0", "one", "6", "0", "onetwo", "7", "1", "onetwo!"]);
    let sent = &stream.sent().request;
    assert_eq!((sent.body.as_slice(), sent.ended), (&b"onetwo!"[..], true));
}

#[test]
fn after_a_release_accumulation_starts_again() {
    let second = "(global $calls (mut i32) (i32.const 0))";
    let body = format!(
        "{SHOW} (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (i32.ne (global.get $calls) (i32.const 2))"
    );
    let sandbox = running(&guest().with(second).request_body(&body));
    let mut stream = sandbox.stream();
    stream.request(&[], false);
    for chunk in ["a", "b", "c"] {
        stream.data(Side::Request, chunk, false);
    }
    assert_eq!(sandbox.take_log(), ["1", "0", "a", "2", "0", "ab", "1", "0", "c"]);
    assert_eq!(stream.sent().request.body, b"ab");
}

#[test]
fn with_trailers_the_body_never_ends_and_the_trailers_release_it() {
    let sandbox = running(&guest().request_body(&format!("{SHOW}(i32.const 1)")).on(
        "proxy_on_request_trailers",
        2,
        true,
        "(call $num (local.get $a)) (i32.const 0)",
    ));
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "body", false).trailers(Side::Request, &[("t", "1")]);
    assert_eq!(sandbox.take_log(), ["4", "0", "body", "1"]);
    let sent = &stream.sent().request;
    assert_eq!((sent.body.as_slice(), sent.ended, sent.trailers.is_some()), (&b"body"[..], true, true));
}

#[test]
fn statuses_outside_the_window_drop_the_data_of_the_call() {
    for status in [3, 4, 99] {
        let sandbox = running(&guest().request_body(&format!(
            "(if (result i32) (local.get $b) (then (i32.const 0)) (else (i32.const {status})))"
        )));
        let mut stream = sandbox.stream();
        stream.request(&[], false).data(Side::Request, "lost", false).data(Side::Request, "kept", true);
        assert_eq!(stream.sent().request.body, b"kept", "{status}");
    }
}

#[test]
fn edits_follow_envoys_table() {
    for (edits, status, left) in [
        (edit(0, 0, "pre"), "0", "prebody"),
        (edit(0, 2, "XY"), "0", "XYdy"),
        (edit(0, 4, "all"), "0", "all"),
        (edit(0, 100, ""), "0", ""),
        (edit(0, 1, ""), "0", "ody"),
        (edit(4, 0, "end"), "0", "bodyend"),
        (edit(100, 5, "end"), "0", "bodyend"),
        (edit(1, 1, "x"), "2", "body"),
        (edit(3, 0, "x"), "2", "body"),
    ] {
        let sandbox = running(&guest().request_body(&format!("{edits}(i32.const 0)")));
        let mut stream = sandbox.stream();
        stream.request(&[], false).data(Side::Request, "body", true);
        assert_eq!(sandbox.take_log(), [status], "{edits}");
        assert_eq!(String::from_utf8_lossy(&stream.sent().request.body), left, "{edits}");
    }
}

#[test]
fn the_accumulated_body_is_edited_whole() {
    let last = format!("(if (local.get $b) (then {}))", edit(0, 1000, "replaced"));
    let sandbox = running(&guest().request_body(&format!("{last}(i32.eqz (local.get $b))")));
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "one", false).data(Side::Request, "two", true);
    assert_eq!(stream.sent().request.body, b"replaced");
}

#[test]
fn bodies_out_of_reach_read_as_empty_and_refuse_edits() {
    let outside = format!(
        "(call $num (call $body (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4))) (call $num (i32.load (i32.const 4)))
        (call $num (call $body_status (i32.const 1) (i32.const 0) (i32.const 4))) (call $num (i32.load (i32.const 0)))
        (call $num (call $body (i32.const 4) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))
        (call $num (call $body (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))
        (call $num (call $body (i32.const 9) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))
        {}(i32.const 0)",
        edit(0, 0, "x")
    );
    let sandbox = running(&guest().request_headers(&outside));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "0", "0", "0", "1", "1", "2", "2"]);
}

#[test]
fn a_request_over_the_limit_is_answered_with_413_without_a_further_callback() {
    let mut sandbox = running(&guest().request_body("(call $num (local.get $a)) (i32.const 1)"));
    sandbox.set_buffer_limit(8);
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "12345678", false).data(Side::Request, "9", false);
    assert_eq!(sandbox.take_log(), ["8"]);
    let sent = stream.sent();
    assert_eq!(sent.response.header(":status"), Some("413"));
    assert_eq!(sent.response.body, b"Payload Too Large");
    assert!(sent.request.body.is_empty());
}

#[test]
fn a_response_over_the_limit_becomes_500_or_is_cut_once_it_has_started() {
    let held = guest().response_headers("(i32.const 1)").response_body("(i32.const 1)");
    let mut sandbox = common::running_as(
        &held,
        spctl_host::PluginConfig { allow_on_headers_stop_iteration: true, ..common::named("p") },
    );
    sandbox.set_buffer_limit(4);
    let mut stream = sandbox.stream();
    stream.request(&[], true).response(&[], false).data(Side::Response, "12345", false);
    assert_eq!(stream.sent().response.header(":status"), Some("500"));

    let mut sandbox = running(&guest().response_body("(i32.const 1)"));
    sandbox.set_buffer_limit(4);
    let mut stream = sandbox.stream();
    stream.request(&[], true).response(&[], false).data(Side::Response, "12345", false);
    assert!(stream.sent().was_reset);
}

#[test]
fn back_pressure_instead_of_a_limit_for_the_watermark_status() {
    let mut sandbox = running(&guest().request_body("(i32.mul (i32.eqz (local.get $b)) (i32.const 2))"));
    sandbox.set_buffer_limit(4);
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "1234567", false);
    assert!(!stream.chain().wants_data(Side::Request));
    stream.data(Side::Request, "8", true);
    assert!(stream.chain().wants_data(Side::Request));
    assert_eq!(stream.sent().request.body, b"12345678");
    assert!(stream.sent().response.headers.is_none());
}
