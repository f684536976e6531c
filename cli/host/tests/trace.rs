//! Traces: what is told of a call, what is only measured, and where it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::sync::{Arc, Mutex};

use common::{guest, limits, named};
use spctl_host::sandbox::Sandbox;
use spctl_host::trace::{Call, Frame, Value};

/// A sandbox that keeps what it is told; the frames of the start are dropped.
fn traced(guest: &common::Guest) -> (Sandbox, Arc<Mutex<Vec<Frame>>>) {
    let frames: Arc<Mutex<Vec<Frame>>> = Arc::default();
    let sink = Arc::clone(&frames);
    let sandbox = Sandbox::traced(limits(), Some(Arc::new(move |frame| sink.lock().unwrap().push(frame)))).unwrap();
    sandbox.add(&guest.wasm(), named("plugin")).unwrap();
    frames.lock().unwrap().clear();
    (sandbox, frames)
}

fn take(frames: &Mutex<Vec<Frame>>, callback: &str) -> Frame {
    let mut frames = std::mem::take(&mut *frames.lock().unwrap());
    frames.retain(|frame| frame.callback == callback);
    assert_eq!(frames.len(), 1, "{callback}");
    frames.remove(0)
}

fn words(call: &Call) -> String {
    let show = |value: &Value| match value {
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Word(word) => word.to_string(),
        Value::Text(cut) | Value::Path(cut) => String::from_utf8_lossy(&cut.bytes).replace('\0', "."),
        Value::Size(size) => format!("{size} bytes"),
        Value::Header { name, value } => {
            format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(&value.bytes))
        }
        Value::Property { path, value } => {
            format!("{}={}", String::from_utf8_lossy(path), String::from_utf8_lossy(&value.bytes))
        }
        Value::Headers { headers, count } => format!("{} of {count} headers", headers.len()),
        Value::Unreadable => "unreadable".to_owned(),
    };
    let list = |fields: &[spctl_host::trace::Field]| {
        fields.iter().map(|field| format!("{} {}", field.name, show(&field.value))).collect::<Vec<_>>().join(", ")
    };
    format!("{}({}) = {} {}", call.name, list(&call.arguments), call.status, list(&call.returned))
}

#[test]
fn a_callback_is_told_with_the_calls_in_it() {
    let (sandbox, frames) = traced(&guest().request_headers(
        "(drop (call $get (i32.const 0) `x-a` (i32.const 0) (i32.const 4)))
         (drop (call $get (i32.const 0) `x-b` (i32.const 0) (i32.const 4)))
         (drop (call $add (i32.const 0) `x-c` `new`))
         (drop (call $log (i32.const 2) `hello`))
         (drop (call $pairs (i32.const 0) (i32.const 0) (i32.const 4)))
         (i32.const 1)",
    ));
    sandbox.stream().request(&[("x-a", "one")], true);
    let frame = take(&frames, "proxy_on_request_headers");
    assert_eq!((frame.returned.as_ref(), frame.context, frame.stream), ("Pause", 2, Some(1)));
    assert_eq!(frame.origin.plugin, "plugin");
    assert_eq!(
        frame.calls.iter().map(words).collect::<Vec<_>>(),
        [
            "proxy_get_header_map_value(map request_headers, key x-a) = Ok value x-a=one",
            "proxy_get_header_map_value(map request_headers, key x-b) = NotFound ",
            "proxy_add_header_map_value(map request_headers, key x-c, value x-c=new) = Ok ",
            "proxy_log(level info, message hello) = Ok ",
            "proxy_get_header_map_pairs(map request_headers) = Ok headers 6 of 6 headers",
        ]
    );
    assert!(frame.calls.iter().map(|call| call.took).sum::<std::time::Duration>() <= frame.took);
}

#[test]
fn bodies_and_configurations_are_measured_and_not_told() {
    let (sandbox, frames) = traced(&guest().request_body(
        "(drop (call $body (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 0) (i32.const 4)))
         (drop (call $set_body (i32.const 0) (i32.const 0) (i32.const 3) `changed`))
         (drop (call $set_data `key` `a secret` (i32.const 0)))
         (i32.const 0)",
    ));
    sandbox.stream().request(&[], false).data(spctl_host::Side::Request, "a secret", true);
    let frame = take(&frames, "proxy_on_request_body");
    assert_eq!(
        frame.calls.iter().map(words).collect::<Vec<_>>(),
        [
            "proxy_get_buffer_bytes(buffer request_body, start 0, length 100) = Ok bytes 8 bytes",
            "proxy_set_buffer_bytes(buffer request_body, start 0, length 3, bytes 7 bytes) = Ok ",
            "proxy_set_shared_data(key key, value 8 bytes, cas 0) = Ok ",
        ]
    );
    assert!(!format!("{frame:?}").contains("secret"));
}

#[test]
fn two_plugins_of_a_chain_speak_of_one_stream() {
    let (sandbox, frames) = traced(&guest().request_headers("(i32.const 0)"));
    sandbox.add(&guest().request_headers("(i32.const 0)").wasm(), named("second")).unwrap();
    frames.lock().unwrap().clear();
    sandbox.stream().request(&[], true);
    sandbox.stream().request(&[], true);
    let streams: Vec<_> =
        frames.lock().unwrap().iter().filter(|f| f.callback == "proxy_on_request_headers").map(|f| f.stream).collect();
    assert_eq!(streams, [Some(1), Some(1), Some(2), Some(2)]);
}

#[test]
fn bad_pointers_and_traps_are_told_as_such() {
    let (sandbox, frames) = traced(&guest().request_headers(
        "(drop (call $log (i32.const 2) (i32.const -8) (i32.const 100)))
         (drop (call $get (i32.const 9) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
         unreachable",
    ));
    sandbox.stream().request(&[], true);
    let frame = take(&frames, "proxy_on_request_headers");
    assert_eq!(frame.returned, "trapped");
    assert_eq!(
        frame.calls.iter().map(words).collect::<Vec<_>>(),
        [
            "proxy_log(level info, message unreadable) = InvalidMemoryAccess ",
            "proxy_get_header_map_value(map 9, key unreadable) = BadArgument ",
        ]
    );
}

#[test]
fn what_one_callback_may_hold_is_bounded_and_the_rest_counted() {
    let (sandbox, frames) = traced(&guest().request_headers(
        "(local $n i32)
         (loop $again
           (drop (call $time (i32.const 0)))
           (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $n) (i32.const 1500))))
         (i32.const 0)",
    ));
    sandbox.stream().request(&[], true);
    let frame = take(&frames, "proxy_on_request_headers");
    assert!(frame.calls.len() <= 1000 && frame.left_out > 0);
    assert_eq!(frame.calls.len() as u64 + frame.left_out, 1500);
}

#[test]
fn loading_is_told_too() {
    let frames: Arc<Mutex<Vec<Frame>>> = Arc::default();
    let sink = Arc::clone(&frames);
    let sandbox = Sandbox::traced(limits(), Some(Arc::new(move |frame| sink.lock().unwrap().push(frame)))).unwrap();
    sandbox
        .add(&guest().configure("(drop (call $log (i32.const 2) `hello`)) (i32.const 1)").wasm(), named("p"))
        .unwrap();
    let frames = frames.lock().unwrap();
    let configured: Vec<_> = frames.iter().filter(|f| f.callback == "proxy_on_configure").collect();
    // The canary, then this thread's own.
    assert_eq!(configured.len(), 2);
    assert_eq!(configured[0].thread.as_ref(), "load");
    assert!(configured.iter().all(|frame| frame.returned == "true" && frame.calls.len() == 1));
}
