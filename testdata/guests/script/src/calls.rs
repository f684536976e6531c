//! Operations that call out: HTTP and gRPC.

use serde_json::Value;

use crate::VM;
use crate::abi;
use crate::ops::{pairs, say, text};

fn part(argument: &Value, name: &str) -> String {
    argument.get(name).map(text).unwrap_or_default()
}

fn encoded(argument: &Value, name: &str) -> Vec<u8> {
    match argument.get(name) {
        // So many headers, or none that can be parsed.
        Some(Value::Number(count)) => {
            let many = (0..count.as_u64().unwrap_or(0)).map(|n| (format!("x-{n}").into_bytes(), b"v".to_vec()));
            abi::encode(&many.collect())
        }
        Some(value) => abi::encode(&pairs(value)),
        None => abi::encode(&Vec::new()),
    }
}

pub fn http(argument: &Value) {
    let (cluster, body) = (part(argument, "cluster"), part(argument, "body"));
    let mut headers = encoded(argument, "headers");
    if let Some(count) = argument.get("more").and_then(Value::as_u64) {
        let mut all = abi::decode(&headers);
        all.extend((0..count).map(|n| (format!("x-{n}").into_bytes(), b"v".to_vec())));
        headers = abi::encode(&all);
    }
    let trailers = encoded(argument, "trailers");
    let timeout = argument.get("timeout").and_then(Value::as_u64).unwrap_or(1000) as u32;
    let mut token = 0;
    let status = unsafe {
        abi::proxy_http_call(
            cluster.as_ptr(), cluster.len(), headers.as_ptr(), headers.len(), body.as_ptr(), body.len(),
            trailers.as_ptr(), trailers.len(), timeout, &mut token,
        )
    };
    if argument.get("token").is_some() {
        return say(&format!("call {cluster} -> {status} token {token}"));
    }
    say(&format!("call {cluster} -> {status}"));
}

/// `service` is a cluster's name; `service_hex` the bytes themselves.
fn service(argument: &Value) -> Vec<u8> {
    match argument.get("service_hex") {
        Some(hex) => unhex(&text(hex)),
        None => part(argument, "service").into_bytes(),
    }
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair.get(1).unwrap_or(&0)) as u8).collect()
}

fn opened(name: &str, argument: &Value, status: u32, token: u32) {
    let known = part(argument, "as");
    if status == 0 {
        VM.with_borrow_mut(|vm| vm.calls.insert(known.clone(), token));
    }
    let token = if argument.get("token").is_some() { format!(" token {token}") } else { String::new() };
    say(&format!("{name} {known} -> {status}{token}"));
}

pub fn grpc_call(argument: &Value) {
    let (service, name, method) = (service(argument), part(argument, "name"), part(argument, "method"));
    let (metadata, message) = (encoded(argument, "metadata"), part(argument, "message"));
    let timeout = argument.get("timeout").and_then(Value::as_u64).unwrap_or(1000) as u32;
    let mut token = 0;
    let status = unsafe {
        abi::proxy_grpc_call(
            service.as_ptr(), service.len(), name.as_ptr(), name.len(), method.as_ptr(), method.len(),
            metadata.as_ptr(), metadata.len(), message.as_ptr(), message.len(), timeout, &mut token,
        )
    };
    opened("grpc_call", argument, status, token);
}

pub fn grpc_stream(argument: &Value) {
    let (service, name, method) = (service(argument), part(argument, "name"), part(argument, "method"));
    let metadata = encoded(argument, "metadata");
    let mut token = 0;
    let status = unsafe {
        abi::proxy_grpc_stream(
            service.as_ptr(), service.len(), name.as_ptr(), name.len(), method.as_ptr(), method.len(),
            metadata.as_ptr(), metadata.len(), &mut token,
        )
    };
    opened("grpc_stream", argument, status, token);
}

/// A token by its name in the script, or a number.
fn token(value: &Value) -> u32 {
    let known = VM.with_borrow(|vm| vm.calls.get(&text(value)).copied());
    known.unwrap_or_else(|| value.as_u64().unwrap_or(0) as u32)
}

/// `[name, message, end of stream]`.
pub fn grpc_send(argument: &Value) {
    let of = |n: usize| argument.get(n).unwrap_or(&Value::Null);
    let message = text(of(1));
    let end = u32::from(of(2).as_bool().unwrap_or(false));
    let status = unsafe { abi::proxy_grpc_send(token(of(0)), message.as_ptr(), message.len(), end) };
    say(&format!("grpc_send {} -> {status}", text(of(0))));
}

pub fn grpc_end(name: &str, argument: &Value) {
    let token = token(argument);
    let status = unsafe { if name == "grpc_close" { abi::proxy_grpc_close(token) } else { abi::proxy_grpc_cancel(token) } };
    say(&format!("{name} {} -> {status}", text(argument)));
}
