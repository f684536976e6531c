//! Guests that call the host with whatever comes to hand.

use std::fmt::Write as _;

use super::random::Random;

/// Every host function of ABI 0.2.1: name and parameters (`l` is 64 bits wide).
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("env", "proxy_log", "iii"),
    ("env", "proxy_get_log_level", "i"),
    ("env", "proxy_get_current_time_nanoseconds", "i"),
    ("env", "proxy_set_tick_period_milliseconds", "i"),
    ("env", "proxy_get_property", "iiii"),
    ("env", "proxy_set_property", "iiii"),
    ("env", "proxy_get_status", "iii"),
    ("env", "proxy_get_header_map_value", "iiiii"),
    ("env", "proxy_add_header_map_value", "iiiii"),
    ("env", "proxy_replace_header_map_value", "iiiii"),
    ("env", "proxy_remove_header_map_value", "iii"),
    ("env", "proxy_get_header_map_pairs", "iii"),
    ("env", "proxy_set_header_map_pairs", "iii"),
    ("env", "proxy_get_header_map_size", "ii"),
    ("env", "proxy_get_buffer_bytes", "iiiii"),
    ("env", "proxy_get_buffer_status", "iii"),
    ("env", "proxy_set_buffer_bytes", "iiiii"),
    ("env", "proxy_send_local_response", "iiiiiiii"),
    ("env", "proxy_continue_stream", "i"),
    ("env", "proxy_close_stream", "i"),
    ("env", "proxy_set_effective_context", "i"),
    ("env", "proxy_done", ""),
    ("env", "proxy_http_call", "iiiiiiiiii"),
    ("env", "proxy_grpc_call", "iiiiiiiiiiii"),
    ("env", "proxy_grpc_stream", "iiiiiiiii"),
    ("env", "proxy_grpc_send", "iiii"),
    ("env", "proxy_grpc_close", "i"),
    ("env", "proxy_grpc_cancel", "i"),
    ("env", "proxy_get_shared_data", "iiiii"),
    ("env", "proxy_set_shared_data", "iiiii"),
    ("env", "proxy_register_shared_queue", "iii"),
    ("env", "proxy_resolve_shared_queue", "iiiii"),
    ("env", "proxy_enqueue_shared_queue", "iii"),
    ("env", "proxy_dequeue_shared_queue", "iii"),
    ("env", "proxy_define_metric", "iiii"),
    ("env", "proxy_increment_metric", "il"),
    ("env", "proxy_record_metric", "il"),
    ("env", "proxy_get_metric", "ii"),
    ("env", "proxy_call_foreign_function", "iiiiii"),
    ("wasi_snapshot_preview1", "fd_write", "iiii"),
    ("wasi_snapshot_preview1", "environ_get", "ii"),
    ("wasi_snapshot_preview1", "environ_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "args_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "clock_time_get", "ili"),
    ("wasi_snapshot_preview1", "random_get", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_get", "ii"),
    ("wasi_snapshot_preview1", "poll_oneoff", "iiii"),
];

/// Numbers at which things end: small ones, addresses of the data below, edges
/// of the memory's two pages, of signs and of words.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "16",
    "64",
    "100",
    "128",
    "255",
    "1024",
    "4096",
    "65535",
    "65536",
    "131000",
    "131068",
    "131071",
    "131072",
    "131073",
    "1048577",
    "0x7fffffff",
    "0x80000000",
    "0xfffffff0",
    "0xffffffff",
];

/// What lies in the guest's memory: names the host knows, pairs, good and bad.
const DATA: &str = r#"(data (i32.const 64) "app\00:path\00plugin_name\00request\00path\00compress\00uncompress\00declare_property")
  (data (i32.const 128) "\02\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00:method\00GET\00:path\00/\00")
  (data (i32.const 255) "\ff\ff\ff\ff\ff\ff\ff\7f")
  (data (i32.const 1024) "\40\00\00\00\08\00\00\00\40\00\00\00\ff\ff\ff\ff")"#;

/// Ways for the guest's allocator to behave.
const ALLOCATORS: &[&str] = &[
    "(i32.const 4096)",
    "(i32.const 0)",
    "(i32.const -1)",
    "(i32.const 131060)",
    "(unreachable)",
    "(drop (memory.grow (i32.const 7))) (i32.const 4096)",
    "(loop $l (br $l)) (i32.const 0)",
];

fn import(module: &str, name: &str, parameters: &str) -> String {
    let types: Vec<_> = parameters.chars().map(|kind| if kind == 'l' { "i64" } else { "i32" }).collect();
    format!("(import \"{module}\" \"{name}\" (func ${name} (param {}) (result i32)))\n", types.join(" "))
}

/// A module that makes some dozen calls in each of its callbacks.
pub fn guest(random: &mut Random) -> String {
    let mut text = String::from("(module\n");
    FUNCTIONS.iter().for_each(|(module, name, parameters)| text += &import(module, name, parameters));
    // The last ones are rare: they end most of what follows.
    let kinds = if random.below(4) == 0 { ALLOCATORS.len() } else { 4 };
    let allocator = ALLOCATORS[random.below(kinds)];
    let _ = write!(
        text,
        "(memory (export \"memory\") 2)\n  {DATA}\n  (func (export \"proxy_abi_version_0_2_1\"))
        (func (export \"malloc\") (param i32) (result i32) {allocator})\n"
    );
    let callbacks: &[(&str, usize, bool)] = &[
        ("proxy_on_context_create", 2, false),
        ("proxy_on_configure", 2, true),
        ("proxy_on_request_headers", 3, true),
        ("proxy_on_request_body", 3, true),
        ("proxy_on_request_trailers", 2, true),
        ("proxy_on_response_headers", 3, true),
        ("proxy_on_response_body", 3, true),
        ("proxy_on_queue_ready", 2, false),
        ("proxy_on_log", 1, false),
        ("proxy_on_done", 1, true),
        ("proxy_on_delete", 1, false),
    ];
    for (name, parameters, result) in callbacks {
        let _ = write!(text, "(func (export \"{name}\") (param{})", " i32".repeat(*parameters));
        text += if *result { " (result i32)\n" } else { "\n" };
        (0..random.below(14)).for_each(|_| text += &call(random));
        if *result {
            let _ = writeln!(text, "(i32.const {})", if *name == "proxy_on_configure" { 1 } else { random.below(6) });
        }
        text += ")\n";
    }
    text + ")"
}

fn call(random: &mut Random) -> String {
    let (_, name, parameters) = FUNCTIONS[random.below(FUNCTIONS.len())];
    let arguments = parameters.chars().map(|kind| {
        let number = NUMBERS[random.below(NUMBERS.len())];
        if kind == 'l' { format!(" (i64.const {number})") } else { format!(" (i32.const {number})") }
    });
    format!("  (drop (call ${name}{}))\n", arguments.collect::<String>())
}

/// Calls after which the host keeps something, with arguments that it takes.
pub const KEEPERS: &[&str] = &[
    "$proxy_add_header_map_value (i32.const 0) (i32.const 64) (i32.const 3) (i32.const 0) (i32.const 65536)",
    "$proxy_set_shared_data (local.get 0) (i32.const 4) (i32.const 0) (i32.const 65536) (i32.const 0)",
    "$proxy_enqueue_shared_queue (i32.const 1) (i32.const 0) (i32.const 65536)",
    "$proxy_set_property (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 65536)",
    "$proxy_define_metric (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 8)",
    "$proxy_grpc_stream (i32.const 64) (i32.const 3) (i32.const 64) (i32.const 3) (i32.const 64) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8)",
    "$proxy_continue_stream (i32.const 0)",
];

/// A module that makes one call over and over, with a key that counts.
pub fn endless(call: &str) -> String {
    let mut text = String::from("(module\n");
    FUNCTIONS.iter().for_each(|(module, name, parameters)| text += &import(module, name, parameters));
    format!(
        "{text}(memory (export \"memory\") 2)\n  {DATA}\n  (func (export \"proxy_abi_version_0_2_1\"))
        (func (export \"malloc\") (param i32) (result i32) (i32.const 4096))
        (func (export \"proxy_on_context_create\") (param i32 i32))
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32)
          (drop (call $proxy_register_shared_queue (i32.const 64) (i32.const 3) (i32.const 8)))
          (loop $again
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (drop (call {}))
            (br $again))
          (i32.const 0)))",
        call.replace("(local.get 0)", "(i32.const 0)")
    )
}
