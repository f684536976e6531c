//! The operations. Each logs `<name> … -> <status>` and what came back.

use serde_json::Value;

use crate::abi::{self, Pairs};
use crate::{Call, VM, calls, state, wasi, wrong};

/// Runs a list of operations, or a single one.
pub fn run(script: &Value, call: &mut Call) {
    match script {
        Value::Array(list) => list.iter().for_each(|op| run(op, call)),
        Value::Object(op) => {
            if op.contains_key("if") {
                branch(op, call);
            } else if let Some((name, argument)) = op.iter().next() {
                one(name, argument, call);
            }
        }
        _ => {}
    }
}

/// `{"if": {"eos": true, "call": 2, "path": "/x"}, "then": […], "else": […]}`;
/// see the conditions below.
fn branch(op: &serde_json::Map<String, Value>, call: &mut Call) {
    let met = op.get("if").and_then(Value::as_object).is_some_and(|conditions| {
        conditions.iter().all(|(name, wanted)| match name.as_str() {
            "eos" => wanted.as_bool() == Some(call.eos),
            "call" => wanted.as_u64() == Some(u64::from(call.number)),
            "total" => wanted.as_u64() == Some(u64::from(call.total)),
            "context" => wanted.as_u64() == Some(u64::from(call.context)),
            "shared" => shared(wanted),
            "path" => header(0, ":path").1 == text(wanted).as_bytes(),
            _ => false,
        })
    });
    if let Some(script) = op.get(if met { "then" } else { "else" }) {
        run(script, call);
    }
}

fn one(name: &str, argument: &Value, call: &mut Call) {
    let arg = |n: usize| argument.get(n).unwrap_or(&Value::Null);
    let number = |n: usize| arg(n).as_u64().unwrap_or(0) as u32;
    let bytes = |n: usize| text(arg(n)).into_bytes();
    match name {
        "log" => say(&template(&text(argument), call)),
        "level" => abi::log(number(0), &text(arg(1))),
        "return" => call.result = argument.as_u64().unwrap_or(0) as u32,
        "get" => {
            let (status, value) = header(number(0), &text(arg(1)));
            say(&format!("get {} {} -> {status} {}", number(0), text(arg(1)), shown(&value)));
        }
        "pairs" => {
            let map = argument.as_u64().unwrap_or(0) as u32;
            let (status, pairs) = abi::get_pairs(map);
            say(&format!("pairs {map} -> {status} {}", pairs.len()));
            for (key, value) in pairs {
                say(&format!("  {}: {}", shown(&key), shown(&value)));
            }
        }
        "add" | "set" | "remove" => change_header(name, number(0), &text(arg(1)), &bytes(2)),
        "set_pairs" => {
            let encoded = abi::encode(&pairs(arg(1)));
            say(&format!("set_pairs {} -> {}", number(0), unsafe { abi::proxy_set_header_map_pairs(number(0), encoded.as_ptr(), encoded.len()) }));
        }
        "map_size" => {
            let (map, mut size) = (argument.as_u64().unwrap_or(0) as u32, 0);
            let status = unsafe { abi::proxy_get_header_map_size(map, &mut size) };
            say(&format!("map_size {map} -> {status} {size}"));
        }
        "body" => {
            let (status, body) = abi::get_buffer(number(0), number(1), arg(2).as_u64().unwrap_or(u64::from(u32::MAX)) as u32);
            say(&format!("body {} -> {status} {} bytes {}", number(0), body.len(), shown(&body)));
        }
        "buffer_status" => {
            let (kind, mut length, mut flags) = (argument.as_u64().unwrap_or(0) as u32, 0, 0);
            let status = unsafe { abi::proxy_get_buffer_status(kind, &mut length, &mut flags) };
            say(&format!("buffer_status {kind} -> {status} {length} {flags}"));
        }
        "set_body" => {
            let data = bytes(3);
            let status = unsafe { abi::proxy_set_buffer_bytes(number(0), number(1), arg(2).as_u64().unwrap_or(u64::from(u32::MAX)) as u32, data.as_ptr(), data.len()) };
            say(&format!("set_body {} {} -> {status}", number(0), number(1)));
        }
        "reply" => reply(argument),
        "continue" => say(&format!("continue -> {}", unsafe { abi::proxy_continue_stream(argument.as_u64().unwrap_or(0) as u32) })),
        "close" => say(&format!("close -> {}", unsafe { abi::proxy_close_stream(argument.as_u64().unwrap_or(0) as u32) })),
        "property" => property(argument),
        "property_as" => property_as(&text(arg(0)), arg(1)),
        "set_property" => {
            let (path, value) = (text(arg(0)), bytes(1));
            let status = unsafe { abi::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
            say(&format!("set_property {path} -> {status}"));
        }
        "call" => calls::http(argument),
        "grpc_call" => calls::grpc_call(argument),
        "grpc_stream" => calls::grpc_stream(argument),
        "grpc_send" => calls::grpc_send(argument),
        "grpc_close" | "grpc_cancel" => calls::grpc_end(name, argument),
        "status" => {
            let mut code = 0;
            let (status, message) = abi::output(|data, size| unsafe { abi::proxy_get_status(&mut code, data, size) });
            say(&format!("status -> {status} {code} {}", shown(&message)));
        }
        "tick" => say(&format!("tick -> {}", unsafe { abi::proxy_set_tick_period_milliseconds(argument.as_u64().unwrap_or(0) as u32) })),
        "shared_get" => {
            let (key, mut cas) = (text(argument), 0);
            let (status, value) = abi::output(|data, size| unsafe { abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut cas) });
            VM.with_borrow_mut(|vm| vm.last_cas = cas);
            say(&format!("shared_get {key} -> {status} {}", shown(&value)));
        }
        "shared_set" => {
            let (key, value) = (text(arg(0)), bytes(1));
            let cas = if arg(2) == "last" { VM.with_borrow(|vm| vm.last_cas) } else { number(2) };
            say(&format!("shared_set {key} -> {}", unsafe { abi::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) }));
        }
        "queue" | "queue_of" | "enqueue" | "dequeue" => state::queue(name, argument),
        "define" | "add_metric" | "record" | "read_metric" => state::metric(name, argument),
        "foreign" => {
            let function = text(arg(0));
            let (status, result) = foreign(&function, &bytes(1));
            say(&format!("foreign {function} -> {status} {}", shown(&result)));
        }
        "foreign_hex" => {
            let function = text(arg(0));
            let (status, result) = foreign(&function, &calls::unhex(&text(arg(1))));
            say(&format!("foreign {function} -> {status} {}", shown(&result)));
        }
        "zlib" => {
            let (packed, bytes) = foreign("compress", &bytes(0));
            let (unpacked, bytes) = foreign("uncompress", &bytes);
            say(&format!("zlib -> {packed} {unpacked} {}", shown(&bytes)));
        }
        "many_pairs" => {
            let pairs = (0..number(1)).map(|n| (format!("x-{n}").into_bytes(), b"v".to_vec())).collect();
            let encoded = abi::encode(&pairs);
            let status = unsafe { abi::proxy_set_header_map_pairs(number(0), encoded.as_ptr(), encoded.len()) };
            say(&format!("many_pairs {} -> {status}", number(0)));
        }
        "repeat" => (0..number(0)).for_each(|_| run(arg(1), call)),
        "grow" => {
            let before = core::arch::wasm32::memory_grow(0, argument.as_u64().unwrap_or(0) as usize);
            say(&format!("grow -> {}", before != usize::MAX));
        }
        "effective" => {
            let context = argument.as_u64().map_or_else(|| VM.with_borrow(|vm| vm.last_stream), |n| n as u32);
            say(&format!("effective -> {}", unsafe { abi::proxy_set_effective_context(context) }));
        }
        "done" => say(&format!("done -> {}", unsafe { abi::proxy_done() })),
        "log_level" => {
            let mut level = 99;
            let status = unsafe { abi::proxy_get_log_level(&mut level) };
            say(&format!("log_level -> {status} {level}"));
        }
        "time" => {
            let mut time = 0;
            let status = unsafe { abi::proxy_get_current_time_nanoseconds(&mut time) };
            say(&format!("time -> {status} {}", time > 1_600_000_000_000_000_000));
        }
        "trap" => trap(&text(argument)),
        "wasi" => wasi::call(&text(argument)),
        "bad" => match argument {
            Value::Array(list) => list.iter().for_each(|what| wrong::call(&text(what))),
            what => wrong::call(&text(what)),
        },
        other => say(&format!("unknown operation {other}")),
    }
}

fn change_header(name: &str, map: u32, key: &str, value: &[u8]) {
    let status = unsafe {
        match name {
            "add" => abi::proxy_add_header_map_value(map, key.as_ptr(), key.len(), value.as_ptr(), value.len()),
            "set" => abi::proxy_replace_header_map_value(map, key.as_ptr(), key.len(), value.as_ptr(), value.len()),
            _ => abi::proxy_remove_header_map_value(map, key.as_ptr(), key.len()),
        }
    };
    say(&format!("{name} {map} {key} -> {status}"));
}

fn reply(argument: &Value) {
    let part = |name: &str| argument.get(name).map(text).unwrap_or_default();
    let (details, body) = (part("details"), part("body"));
    let headers = abi::encode(&pairs(argument.get("headers").unwrap_or(&Value::Null)));
    let code = argument.get("status").and_then(Value::as_u64).unwrap_or(200) as u32;
    let grpc = argument.get("grpc").and_then(Value::as_i64).unwrap_or(-1) as i32;
    let status = unsafe {
        abi::proxy_send_local_response(code, details.as_ptr(), details.len(), body.as_ptr(), body.len(), headers.as_ptr(), headers.len(), grpc)
    };
    say(&format!("reply {code} -> {status}"));
}

fn get_property(path: &Value) -> (String, u32, Vec<u8>) {
    let joined = path.as_array().map(|parts| parts.iter().map(text).collect::<Vec<_>>().join("\0")).unwrap_or_else(|| text(path));
    let (status, value) = abi::output(|data, size| unsafe { abi::proxy_get_property(joined.as_ptr(), joined.len(), data, size) });
    (joined.replace('\0', "."), status, value)
}

fn property(path: &Value) {
    let (name, status, value) = get_property(path);
    say(&format!("property {name} -> {status} {}", shown(&value)));
}

/// A property whose value no two runs share (`size`: how long it is), or that
/// reads better otherwise (`number`, `pairs` in the order of their names).
fn property_as(how: &str, path: &Value) {
    let (name, status, value) = get_property(path);
    match how {
        "number" => {
            let mut word = [0; 8];
            word.iter_mut().zip(&value).for_each(|(to, from)| *to = *from);
            say(&format!("property {name} -> {status} {} bytes {}", value.len(), i64::from_le_bytes(word)));
        }
        "pairs" => {
            let mut pairs = abi::decode(&value);
            pairs.sort();
            say(&format!("property {name} -> {status} {} pairs", pairs.len()));
            pairs.iter().for_each(|(key, value)| say(&format!("  {}: {}", shown(key), shown(value))));
        }
        _ => say(&format!("property {name} -> {status} {} bytes", value.len())),
    }
}

/// Ways to die.
fn trap(how: &str) {
    match how {
        "memory" => unsafe { core::ptr::read_volatile(0xffff_fff0u32 as *const u32) },
        "stack" => endless(0),
        "table" => {
            let nowhere: fn() = unsafe { core::mem::transmute(0x00ff_ffffusize) };
            nowhere();
            0
        }
        _ => std::process::abort(),
    };
}

#[inline(never)]
fn endless(depth: u32) -> u32 {
    let frame = std::hint::black_box([depth; 64]);
    endless(depth + 1) + frame[depth as usize % 64]
}

fn foreign(function: &str, input: &[u8]) -> (u32, Vec<u8>) {
    abi::output(|data, size| unsafe {
        abi::proxy_call_foreign_function(function.as_ptr(), function.len(), input.as_ptr(), input.len(), data, size)
    })
}

/// Shared data `[key, value]`; without a value: there is none.
fn shared(wanted: &Value) -> bool {
    let key = text(&wanted[0]);
    let (status, value) = abi::output(|data, size| unsafe {
        abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut 0)
    });
    if wanted.get(1).is_none() { status != 0 } else { status == 0 && value == text(&wanted[1]).as_bytes() }
}

fn header(map: u32, key: &str) -> (u32, Vec<u8>) {
    abi::output(|data, size| unsafe { abi::proxy_get_header_map_value(map, key.as_ptr(), key.len(), data, size) })
}

pub fn say(text: &str) {
    abi::log(2, text);
}

fn template(text: &str, call: &Call) -> String {
    text.replace("{size}", &call.size.to_string())
        .replace("{eos}", &call.eos.to_string())
        .replace("{call}", &call.number.to_string())
        .replace("{total}", &call.total.to_string())
        .replace("{context}", &call.context.to_string())
}

pub fn pairs(value: &Value) -> Pairs {
    let list = value.as_array().cloned().unwrap_or_default();
    list.iter().map(|pair| (text(&pair[0]).into_bytes(), text(&pair[1]).into_bytes())).collect()
}

pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

/// Bytes as they can stand in a log line.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
