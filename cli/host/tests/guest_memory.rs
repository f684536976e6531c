//! Guest memory: bad pointers are statuses, never harm; growth has an end.

mod common;

use common::{guest, named, running, running_as};
use spctl_host::{LoadError, PluginConfig};

/// Addresses at, around and far behind the end of 128 KiB of memory.
const BAD: [&str; 3] =
    ["(i32.const 131072) (i32.const 1)", "(i32.const 131060) (i32.const 100)", "(i32.const -16) (i32.const 100)"];

#[test]
fn pointers_outside_memory_are_refused_by_every_host_function() {
    let out = "(i32.const 0) (i32.const 4)";
    for bad in BAD {
        let calls = [
            format!("(call $log (i32.const 2) {bad})"),
            format!("(call $get (i32.const 0) {bad} {out})"),
            format!("(call $add (i32.const 0) {bad} `v`)"),
            format!("(call $add (i32.const 0) `k` {bad})"),
            format!("(call $set (i32.const 0) {bad} `v`)"),
            format!("(call $remove (i32.const 0) {bad})"),
            format!("(call $set_pairs (i32.const 0) {bad})"),
            format!("(call $property {bad} {out})"),
            format!("(call $set_property {bad} `v`)"),
            format!("(call $reply (i32.const 200) {bad} `b` `` (i32.const -1))"),
            format!("(call $reply (i32.const 200) `d` {bad} `` (i32.const -1))"),
            format!("(call $reply (i32.const 200) `d` `b` {bad} (i32.const -1))"),
            format!("(call $call {bad} `` `` `` (i32.const 0) (i32.const 8))"),
            format!("(call $get_data {bad} {out} (i32.const 8))"),
            format!("(call $set_data {bad} `v` (i32.const 0))"),
            format!("(call $register {bad} (i32.const 8))"),
            format!("(call $resolve {bad} `n` (i32.const 8))"),
            format!("(call $enqueue (i32.const 1) {bad})"),
            format!("(call $define (i32.const 0) {bad} (i32.const 8))"),
            format!("(call $foreign {bad} `` {out})"),
            "(call $time (i32.const 131065))".to_owned(),
            "(call $log_level (i32.const -1))".to_owned(),
            "(call $pairs (i32.const 0) (i32.const -4) (i32.const 4))".to_owned(),
            "(call $body (i32.const 6) (i32.const 0) (i32.const 9) (i32.const 131070) (i32.const 4))".to_owned(),
            "(call $status (i32.const -4) (i32.const 0) (i32.const 4))".to_owned(),
        ];
        let body: String = calls.iter().map(|call| format!("(call $num {call})\n")).collect();
        let sandbox = running(&guest().request_headers(&format!("{body} (i32.const 0)")));
        sandbox.stream().request(&[], true);
        assert_eq!(sandbox.take_log(), vec!["6"; calls.len()], "{bad}");
    }
}

#[test]
fn an_allocator_that_gives_nothing_makes_reading_fail() {
    let read = "(call $num (call $get (i32.const 0) `:path` (i32.const 0) (i32.const 4))) (i32.const 0)";
    let sandbox = running(&guest().malloc("(i32.const 0)").request_headers(read));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["6"]);
}

#[test]
fn an_allocator_that_points_outside_memory_makes_reading_fail() {
    let read = "(call $num (call $get (i32.const 0) `:path` (i32.const 0) (i32.const 4))) (i32.const 0)";
    let sandbox = running(&guest().malloc("(i32.const 0x7fffffff)").request_headers(read));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["6"]);
}

#[test]
fn an_empty_value_needs_no_allocation() {
    let read = "(call $num (call $get (i32.const 0) `x-empty` (i32.const 0) (i32.const 4)))
        (call $num (i32.load (i32.const 0))) (call $num (i32.load (i32.const 4))) (i32.const 0)";
    let sandbox = running(&guest().malloc("unreachable").request_headers(read));
    sandbox.stream().request(&[("x-empty", "")], true);
    assert_eq!(sandbox.take_log(), ["0", "0", "0"]);
}

#[test]
fn inside_the_allocator_a_guest_may_log_and_nothing_else() {
    let read = "(drop (call $get (i32.const 0) `:path` (i32.const 0) (i32.const 4))) (i32.const 0)";
    let logs = guest().malloc("(call $say (i32.const 16) (i32.const 1)) (i32.const 1024)").request_headers(read);
    let sandbox = running(&logs);
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), [":"]);

    let asks = guest().malloc("(drop (call $done )) (i32.const 1024)").request_headers(read);
    let sandbox = running(&asks);
    let mut stream = sandbox.stream();
    assert_eq!(stream.request(&[], true).sent().response.header(":status"), Some("503"));
    assert!(sandbox.take_log()[0].contains("restricted_callback: env.proxy_done"));
}

#[test]
fn memory_stops_growing_at_the_cap() {
    let grow = "(call $num (i32.gt_s (memory.grow (i32.const 64)) (i32.const 0)))
        (call $num (i32.eq (memory.grow (i32.const 300)) (i32.const -1)))
        (call $num (memory.size)) (i32.const 0)";
    let sandbox = running(&guest().request_headers(grow));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["1", "1", "66"]);
}

#[test]
fn a_module_that_starts_beyond_the_cap_is_refused() {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1000) (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 8)))"#,
    );
    let error = common::refused_bytes(&wasm.unwrap()).error;
    assert!(matches!(error, LoadError::Trapped { .. } | LoadError::Engine(_)), "{error:?}");
}

#[test]
fn reading_past_the_end_of_a_buffer_gives_what_there_is() {
    let read = |start: &str, len: &str| {
        format!(
            "(call $num (call $body (i32.const 6) (i32.const {start}) (i32.const {len}) (i32.const 0) (i32.const 4))) (call $out)"
        )
    };
    let probe = format!("{}{}{}(i32.const 0)", read("2", "100"), read("100", "100"), read("2", "-1"));
    let config = PluginConfig { vm_configuration: "abcdef".into(), ..named("plugin") };
    let sandbox = running_as(&guest().request_headers(&probe), config);
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0", "cdef", "0", "", "0", "cdef"]);
}
