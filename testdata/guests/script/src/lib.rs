//! A plugin whose behaviour is its configuration: for each callback a list of
//! operations, each a host call whose status and result it logs. On the bare
//! ABI, so that a scenario can make every call there is, wrong ones included.
//!
//! Configuration: `{"request_headers": [{"log": "hi"}, {"return": 1}], …}`.
//! An operation is an object with one member; see `ops.rs`.

mod abi;
mod calls;
mod ops;
mod state;
mod wasi;
mod wrong;

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

/// What a VM remembers.
#[derive(Default)]
pub struct Vm {
    /// Scripts by root context.
    scripts: HashMap<u32, Value>,
    /// Root of each stream.
    roots: HashMap<u32, u32>,
    pub last_stream: u32,
    pub last_cas: u32,
    pub last_token: u32,
    /// gRPC calls and streams by the names that scripts give them.
    pub calls: HashMap<String, u32>,
    pub metrics: HashMap<String, u32>,
    pub queues: HashMap<String, u32>,
    /// Times each callback ran, by context.
    counts: HashMap<(u32, &'static str), u32>,
    /// The same, of all contexts.
    totals: HashMap<&'static str, u32>,
}

thread_local! {
    pub static VM: RefCell<Vm> = RefCell::default();
}

/// What the operations of one callback know.
pub struct Call {
    pub context: u32,
    /// Header count, body size or whatever the callback is told.
    pub size: u32,
    pub eos: bool,
    /// From 1, for this context.
    pub number: u32,
    /// From 1, for this VM.
    pub total: u32,
    pub result: u32,
}

/// Runs the script of a callback; returns what it says to return, else `default`.
fn run(callback: &'static str, context: u32, size: u32, eos: bool, default: u32) -> u32 {
    let (script, number, total) = VM.with_borrow_mut(|vm| {
        let root = vm.roots.get(&context).copied().unwrap_or(context);
        let number = vm.counts.entry((context, callback)).or_default();
        *number += 1;
        let number = *number;
        let total = vm.totals.entry(callback).or_default();
        *total += 1;
        (vm.scripts.get(&root).and_then(|s| s.get(callback)).cloned(), number, *total)
    });
    let mut call = Call { context, size, eos, number, total, result: default };
    if let Some(script) = script {
        ops::run(&script, &mut call);
    }
    call.result
}

fn read_configuration(root: u32, size: u32) {
    let bytes = abi::get_buffer(7, 0, size).1;
    let script = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    VM.with_borrow_mut(|vm| vm.scripts.insert(root, script));
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    abi::allocate(size)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    if parent == 0 {
        // A root's configuration is readable here and in configure.
        read_configuration(context, u32::MAX);
    } else {
        VM.with_borrow_mut(|vm| {
            vm.roots.insert(context, parent);
            vm.last_stream = context;
        });
    }
    run("create", context, parent, false, 0);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_vm_start(root: u32, size: u32) -> u32 {
    run("vm_start", root, size, false, 1)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(root: u32, size: u32) -> u32 {
    read_configuration(root, size);
    run("configure", root, size, false, 1)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_tick(root: u32) {
    run("tick", root, 0, false, 0);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_queue_ready(root: u32, token: u32) {
    VM.with_borrow_mut(|vm| vm.last_token = token);
    run("queue_ready", root, 0, false, 0);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(context: u32, count: u32, eos: u32) -> u32 {
    run("request_headers", context, count, eos != 0, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_body(context: u32, size: u32, eos: u32) -> u32 {
    run("request_body", context, size, eos != 0, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_trailers(context: u32, count: u32) -> u32 {
    run("request_trailers", context, count, true, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(context: u32, count: u32, eos: u32) -> u32 {
    run("response_headers", context, count, eos != 0, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_body(context: u32, size: u32, eos: u32) -> u32 {
    run("response_body", context, size, eos != 0, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_trailers(context: u32, count: u32) -> u32 {
    run("response_trailers", context, count, true, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_http_call_response(root: u32, _token: u32, headers: u32, body: u32, trailers: u32) {
    abi::log(2, &format!("call response headers={} body={body} trailers={trailers}", u32::from(headers > 0)));
    run("call_response", root, body, false, 0);
}

fn grpc(callback: &'static str, root: u32, token: u32, what: u32) {
    let name = VM.with_borrow(|vm| vm.calls.iter().find(|(_, known)| **known == token).map(|(name, _)| name.clone()));
    abi::log(2, &format!("{callback} of {} {what}", name.unwrap_or_default()));
    run(callback, root, what, false, 0);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive_initial_metadata(root: u32, token: u32, count: u32) {
    grpc("grpc_initial", root, token, u32::from(count > 0));
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive(root: u32, token: u32, size: u32) {
    grpc("grpc_receive", root, token, size);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive_trailing_metadata(root: u32, token: u32, count: u32) {
    grpc("grpc_trailing", root, token, u32::from(count > 0));
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_close(root: u32, token: u32, status: u32) {
    grpc("grpc_close", root, token, status);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_foreign_function(root: u32, function: u32, size: u32) {
    run("foreign", root, function.wrapping_add(size), false, 0);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_done(context: u32) -> u32 {
    run("done", context, 0, false, 1)
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_log(context: u32) {
    run("on_log", context, 0, false, 0);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(context: u32) {
    run("delete", context, 0, false, 0);
    VM.with_borrow_mut(|vm| {
        vm.roots.remove(&context);
        vm.scripts.remove(&context);
        vm.counts.retain(|(of, _), _| *of != context);
    });
}
