//! The operations. Each logs `<name> … -> <status>` and what came back.

use serde_json::Value;

use crate::abi::{self, Pairs};
use crate::{Call, VM};

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

/// `{"if": {"eos": true, "call": 2, "path": "/x"}, "then": […], "else": […]}`.
fn branch(op: &serde_json::Map<String, Value>, call: &mut Call) {
    let met = op.get("if").and_then(Value::as_object).is_some_and(|conditions| {
        conditions.iter().all(|(name, wanted)| match name.as_str() {
            "eos" => wanted.as_bool() == Some(call.eos),
            "call" => wanted.as_u64() == Some(u64::from(call.number)),
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
        "set_property" => {
            let (path, value) = (text(arg(0)), bytes(1));
            let status = unsafe { abi::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
            say(&format!("set_property {path} -> {status}"));
        }
        "call" => http_call(argument),
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
        "queue" | "queue_of" | "enqueue" | "dequeue" => queue(name, argument),
        "define" | "add_metric" | "record" | "read_metric" => metric(name, argument),
        "foreign" => {
            let (function, input) = (text(arg(0)), bytes(1));
            let (status, result) = abi::output(|data, size| unsafe {
                abi::proxy_call_foreign_function(function.as_ptr(), function.len(), input.as_ptr(), input.len(), data, size)
            });
            say(&format!("foreign {function} -> {status} {}", shown(&result)));
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
        "trap" => std::process::abort(),
        "wasi" => wasi(&text(argument)),
        "bad" => bad(&text(argument)),
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

fn property(path: &Value) {
    let joined = path.as_array().map(|parts| parts.iter().map(text).collect::<Vec<_>>().join("\0")).unwrap_or_else(|| text(path));
    let (status, value) = abi::output(|data, size| unsafe { abi::proxy_get_property(joined.as_ptr(), joined.len(), data, size) });
    say(&format!("property {} -> {status} {}", joined.replace('\0', "."), shown(&value)));
}

fn http_call(argument: &Value) {
    let part = |name: &str| argument.get(name).map(text).unwrap_or_default();
    let (cluster, body) = (part("cluster"), part("body"));
    let headers = abi::encode(&pairs(argument.get("headers").unwrap_or(&Value::Null)));
    let trailers = abi::encode(&pairs(argument.get("trailers").unwrap_or(&Value::Null)));
    let timeout = argument.get("timeout").and_then(Value::as_u64).unwrap_or(1000) as u32;
    let mut token = 0;
    let status = unsafe {
        abi::proxy_http_call(
            cluster.as_ptr(), cluster.len(), headers.as_ptr(), headers.len(), body.as_ptr(), body.len(),
            trailers.as_ptr(), trailers.len(), timeout, &mut token,
        )
    };
    say(&format!("call {cluster} -> {status}"));
}

fn queue(name: &str, argument: &Value) {
    let of = |n: usize| text(argument.get(n).unwrap_or(&Value::Null));
    let known = |name: &str| VM.with_borrow(|vm| vm.queues.get(name).copied().unwrap_or(vm.last_token));
    match name {
        "queue" | "queue_of" => {
            let (vm, queue) = if name == "queue" { (String::new(), text(argument)) } else { (of(0), of(1)) };
            let mut token = 0;
            let status = unsafe {
                if name == "queue" {
                    abi::proxy_register_shared_queue(queue.as_ptr(), queue.len(), &mut token)
                } else {
                    abi::proxy_resolve_shared_queue(vm.as_ptr(), vm.len(), queue.as_ptr(), queue.len(), &mut token)
                }
            };
            if status == 0 {
                VM.with_borrow_mut(|vm| vm.queues.insert(queue.clone(), token));
            }
            say(&format!("{name} {queue} -> {status}"));
        }
        "enqueue" => {
            let data = of(1);
            say(&format!("enqueue {} -> {}", of(0), unsafe { abi::proxy_enqueue_shared_queue(known(&of(0)), data.as_ptr(), data.len()) }));
        }
        _ => {
            let queue = text(argument);
            let (status, data) = abi::output(|data, size| unsafe { abi::proxy_dequeue_shared_queue(known(&queue), data, size) });
            say(&format!("dequeue {queue} -> {status} {}", shown(&data)));
        }
    }
}

fn metric(name: &str, argument: &Value) {
    let of = |n: usize| argument.get(n).cloned().unwrap_or(Value::Null);
    if name == "define" {
        let (kind, metric, mut id) = (of(0).as_u64().unwrap_or(0) as u32, text(&of(1)), 0);
        let status = unsafe { abi::proxy_define_metric(kind, metric.as_ptr(), metric.len(), &mut id) };
        VM.with_borrow_mut(|vm| vm.metrics.insert(metric.clone(), id));
        return say(&format!("define {metric} -> {status}"));
    }
    let metric = if name == "read_metric" { text(argument) } else { text(&of(0)) };
    let id = VM.with_borrow(|vm| vm.metrics.get(&metric).copied().unwrap_or(9999));
    let amount = of(1).as_i64().unwrap_or(0);
    let mut value = 0;
    let status = unsafe {
        match name {
            "add_metric" => abi::proxy_increment_metric(id, amount),
            "record" => abi::proxy_record_metric(id, amount as u64),
            _ => abi::proxy_get_metric(id, &mut value),
        }
    };
    let seen = if name == "read_metric" { format!(" {value}") } else { String::new() };
    say(&format!("{name} {metric} -> {status}{seen}"));
}

fn wasi(function: &str) {
    let status = unsafe {
        match function {
            "random" => abi::random_get([0u8; 64].as_mut_ptr(), 64),
            "random_too_much" => abi::random_get(vec![0u8; 65 * 1024].as_mut_ptr(), 65 * 1024),
            "realtime" => abi::clock_time_get(0, 0, &mut 0),
            "monotonic" => abi::clock_time_get(1, 0, &mut 0),
            "cpu_time" => abi::clock_time_get(2, 0, &mut 0),
            "environ" => abi::environ_sizes_get(&mut 0, &mut 0),
            "stdout" | "stderr" | "fd3" => {
                let line = format!("to {function}\n");
                let iov = [line.as_ptr() as usize, line.len()];
                let fd = match function {
                    "stdout" => 1,
                    "stderr" => 2,
                    _ => 3,
                };
                abi::fd_write(fd, &iov, 1, &mut 0)
            }
            _ => 9999,
        }
    };
    say(&format!("wasi {function} -> {status}"));
}

/// Calls with pointers that no memory backs.
fn bad(what: &str) {
    let nowhere = 0xffff_0000u32 as *const u8;
    let status = unsafe {
        match what {
            "log_pointer" => abi::proxy_log(2, nowhere, 100),
            "log_level" => abi::proxy_log(77, b"x".as_ptr(), 1),
            "header_key" => abi::proxy_remove_header_map_value(0, nowhere, 100),
            "map_type" => abi::output(|data, size| abi::proxy_get_header_map_pairs(42, data, size)).0,
            "buffer_type" => abi::get_buffer(42, 0, 10).0,
            "out_pointer" => abi::proxy_get_current_time_nanoseconds(nowhere as *mut u64),
            "stream_type" => abi::proxy_continue_stream(9),
            "close_type" => abi::proxy_close_stream(9),
            "metric_type" => abi::proxy_define_metric(9, b"m".as_ptr(), 1, &mut 0),
            "context" => abi::proxy_set_effective_context(424_242),
            "pairs" => abi::proxy_set_header_map_pairs(0, b"\x01\x02\x03".as_ptr(), 3),
            _ => 9999,
        }
    };
    say(&format!("bad {what} -> {status}"));
}

fn header(map: u32, key: &str) -> (u32, Vec<u8>) {
    abi::output(|data, size| unsafe { abi::proxy_get_header_map_value(map, key.as_ptr(), key.len(), data, size) })
}

fn say(text: &str) {
    abi::log(2, text);
}

fn template(text: &str, call: &Call) -> String {
    text.replace("{size}", &call.size.to_string())
        .replace("{eos}", &call.eos.to_string())
        .replace("{call}", &call.number.to_string())
        .replace("{context}", &call.context.to_string())
}

fn pairs(value: &Value) -> Pairs {
    let list = value.as_array().cloned().unwrap_or_default();
    list.iter().map(|pair| (text(&pair[0]).into_bytes(), text(&pair[1]).into_bytes())).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

/// Bytes as they can stand in a log line.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
