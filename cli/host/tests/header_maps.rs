//! Header maps: which are open when, and what reading and writing them does.

mod common;

use common::{guest, running};
use spctl_host::{HeaderKind, HeaderList, Side};

fn get(map: u32, name: &str) -> String {
    format!("(call $num (call $get (i32.const {map}) `{name}` (i32.const 0) (i32.const 4)))")
}

fn add(map: u32, name: &str, value: &str) -> String {
    format!("(call $num (call $add (i32.const {map}) `{name}` `{value}`))")
}

const PAIRS_OF_REQUEST: &str =
    "(call $num (call $pairs (i32.const 0) (i32.const 0) (i32.const 4))) (call $num (i32.load (i32.const 4)))";

#[test]
fn outside_their_window_values_are_a_bad_argument_and_pairs_are_empty() {
    let outside = format!("{}{}{PAIRS_OF_REQUEST}", get(0, ":path"), add(0, "a", "b"));
    let size = "(call $num (call $size (i32.const 0) (i32.const 0)))";
    let sandbox =
        running(&guest().request_headers("(i32.const 0)").request_body(&format!("{outside}{size}(i32.const 0)")));
    sandbox.stream().request(&[], false).data(Side::Request, "x", true);
    assert_eq!(sandbox.take_log(), ["2", "2", "0", "0", "2"]);
}

#[test]
fn a_headers_callback_that_pauses_keeps_its_map_until_the_stream_goes_on() {
    let sandbox = running(
        &guest()
            .request_headers("(i32.const 1)")
            .on(
                "proxy_on_tick",
                1,
                false,
                &format!(
                    "(drop (call $effective (i32.const 2))) {0} (drop (call $resume (i32.const 0))) {0}",
                    get(0, ":path")
                ),
            )
            .configure("(drop (call $tick (i32.const 1))) (i32.const 1)"),
    );
    sandbox.run();
    let mut stream = sandbox.stream();
    stream.request(&[], true);
    assert!(stream.sent().request.headers.is_none());
    std::thread::sleep(std::time::Duration::from_millis(5));
    sandbox.take_log();
    sandbox.run();
    assert_eq!(sandbox.take_log(), ["0", "2"]);
    assert!(stream.sent().request.ended);
}

#[test]
fn unknown_maps_are_a_bad_argument() {
    let sandbox = running(&guest().request_headers(&format!("{}{}(i32.const 0)", get(8, "x"), add(99, "x", "y"))));
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["2", "2"]);
}

#[test]
fn names_are_found_in_any_case_and_host_is_the_authority() {
    let probe =
        format!("{0}(call $out){1}(call $out){2}(i32.const 0)", get(0, "X-Mixed"), get(0, "host"), get(0, "nope"));
    let sandbox = running(&guest().request_headers(&probe));
    sandbox.stream().request(&[("x-mixed", "v")], true);
    assert_eq!(sandbox.take_log(), ["0", "v", "0", "host", "1"]);
}

#[test]
fn abi_0_1_0_finds_an_empty_value_where_there_is_no_header() {
    let body = format!("{}(i32.const 0)", get(0, "nope"));
    let old = guest().abi("proxy_abi_version_0_1_0").on("proxy_on_request_headers", 2, true, &body);
    let sandbox = running(&old);
    sandbox.stream().request(&[], true);
    assert_eq!(sandbox.take_log(), ["0"]);
}

#[test]
fn of_a_repeated_header_the_first_value_is_read() {
    let sandbox = running(&guest().request_headers(&format!("{}(call $out)(i32.const 0)", get(0, "x"))));
    sandbox.stream().request(&[("x", "one"), ("x", "two")], true);
    assert_eq!(sandbox.take_log(), ["0", "one"]);
}

#[test]
fn on_log_everything_is_readable_and_nothing_writable() {
    let probe = format!("{}{}{}{}", get(0, ":path"), get(2, ":status"), get(2, "nope"), add(0, "a", "b"));
    let sandbox = running(&guest().on("proxy_on_log", 1, false, &probe));
    sandbox.stream().request(&[], true).response(&[], true).finish();
    assert_eq!(sandbox.take_log(), ["0", "0", "1", "2"]);
}

#[test]
fn a_request_refused_before_the_chain_has_no_headers_in_on_log() {
    let sandbox = running(&guest().on("proxy_on_log", 1, false, &get(0, ":path")));
    sandbox.stream().finish();
    assert_eq!(sandbox.take_log(), ["1"]);
}

#[test]
fn trailers_come_into_being_at_the_very_end_of_a_body() {
    let body = format!("{}(i32.const 0)", add(1, "x-new", "1"));
    let sandbox = running(&guest().request_body(&body).on(
        "proxy_on_request_trailers",
        2,
        true,
        "(call $num (local.get $a)) (i32.const 0)",
    ));
    let mut stream = sandbox.stream();
    stream.request(&[], false).data(Side::Request, "a", false).data(Side::Request, "b", true);
    // The filter that made them is not called for them.
    assert_eq!(sandbox.take_log(), ["2", "0"]);
    let sent = &stream.sent().request;
    assert_eq!(sent.trailers.as_deref(), Some(&[("x-new".to_owned(), "1".to_owned())][..]));
    assert_eq!((sent.body.as_slice(), sent.ended), (&b"ab"[..], true));
}

#[test]
fn single_slot_headers_join_and_others_repeat() {
    let mut list = HeaderList::new(HeaderKind::Request);
    for name in ["accept", "x-other", "cookie"] {
        list.add(name.as_bytes(), b"1");
        list.add(name.to_uppercase().as_bytes(), b"2");
    }
    let texts: Vec<_> =
        list.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
    assert_eq!(texts, ["accept=1,2", "x-other=1", "x-other=2", "cookie=1", "cookie=2"]);
}

#[test]
fn pseudo_headers_stay_in_front_and_a_replaced_header_moves_to_the_end() {
    let mut list = HeaderList::new(HeaderKind::Request);
    list.add(b"a", b"1");
    list.add(b":path", b"/");
    list.add(b"b", b"2");
    list.set(b"host", b"h");
    list.set(b"a", b"3");
    let names: Vec<_> = list.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, [":path", ":authority", "b", "a"]);
    assert_eq!(list.byte_size(), ":path/:authorityhb2a3".len());
    assert_eq!(list.remove(b"b"), 1);
    list.set_in_place(b":path", b"/longer");
    assert_eq!(list.get(b":path"), Some(&b"/longer"[..]));
    assert_eq!(list.len(), 3);
}

#[test]
fn removing_the_status_is_answered_with_502() {
    let sandbox = running(&guest().response_headers("(drop (call $remove (i32.const 2) `:status`)) (i32.const 0)"));
    let mut stream = sandbox.stream();
    stream.request(&[], true).response(&[], true);
    let sent = &stream.sent().response;
    assert_eq!(sent.header(":status"), Some("502"));
    assert_eq!(sent.body, b"missing required header: :status");
}
