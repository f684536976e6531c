//! The host's functions, as they are, and the memory they share with us.

use std::ptr::null_mut;

pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[allow(clippy::too_many_arguments)]
mod raw {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
        pub fn proxy_get_log_level(level: *mut u32) -> u32;
        pub fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_property(path: *const u8, size: usize, data: *mut *mut u8, out: *mut usize) -> u32;
        pub fn proxy_set_property(path: *const u8, size: usize, value: *const u8, value_size: usize) -> u32;
        pub fn proxy_get_status(code: *mut u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_get_header_map_value(map: u32, key: *const u8, size: usize, data: *mut *mut u8, out: *mut usize) -> u32;
        pub fn proxy_add_header_map_value(map: u32, key: *const u8, size: usize, value: *const u8, value_size: usize) -> u32;
        pub fn proxy_replace_header_map_value(map: u32, key: *const u8, size: usize, value: *const u8, value_size: usize) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, key: *const u8, size: usize) -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
        pub fn proxy_get_header_map_size(map: u32, size: *mut u32) -> u32;
        pub fn proxy_get_buffer_bytes(kind: u32, start: u32, length: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_get_buffer_status(kind: u32, length: *mut u32, flags: *mut u32) -> u32;
        pub fn proxy_set_buffer_bytes(kind: u32, start: u32, length: u32, data: *const u8, size: usize) -> u32;
        pub fn proxy_send_local_response(
            code: u32, details: *const u8, details_size: usize, body: *const u8, body_size: usize,
            headers: *const u8, headers_size: usize, grpc_status: i32,
        ) -> u32;
        pub fn proxy_continue_stream(stream: u32) -> u32;
        pub fn proxy_close_stream(stream: u32) -> u32;
        pub fn proxy_set_effective_context(context: u32) -> u32;
        pub fn proxy_done() -> u32;
        pub fn proxy_http_call(
            cluster: *const u8, cluster_size: usize, headers: *const u8, headers_size: usize, body: *const u8, body_size: usize,
            trailers: *const u8, trailers_size: usize, timeout: u32, token: *mut u32,
        ) -> u32;
        pub fn proxy_grpc_call(
            service: *const u8, service_size: usize, name: *const u8, name_size: usize, method: *const u8, method_size: usize,
            metadata: *const u8, metadata_size: usize, message: *const u8, message_size: usize, timeout: u32, token: *mut u32,
        ) -> u32;
        pub fn proxy_grpc_stream(
            service: *const u8, service_size: usize, name: *const u8, name_size: usize, method: *const u8, method_size: usize,
            metadata: *const u8, metadata_size: usize, token: *mut u32,
        ) -> u32;
        pub fn proxy_grpc_send(token: u32, message: *const u8, size: usize, end: u32) -> u32;
        pub fn proxy_grpc_close(token: u32) -> u32;
        pub fn proxy_grpc_cancel(token: u32) -> u32;
        pub fn proxy_get_shared_data(key: *const u8, size: usize, data: *mut *mut u8, out: *mut usize, cas: *mut u32) -> u32;
        pub fn proxy_set_shared_data(key: *const u8, size: usize, value: *const u8, value_size: usize, cas: u32) -> u32;
        pub fn proxy_register_shared_queue(name: *const u8, size: usize, token: *mut u32) -> u32;
        pub fn proxy_resolve_shared_queue(vm: *const u8, vm_size: usize, name: *const u8, size: usize, token: *mut u32) -> u32;
        pub fn proxy_enqueue_shared_queue(token: u32, data: *const u8, size: usize) -> u32;
        pub fn proxy_dequeue_shared_queue(token: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
        pub fn proxy_increment_metric(id: u32, delta: i64) -> u32;
        pub fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
        pub fn proxy_call_foreign_function(name: *const u8, size: usize, args: *const u8, args_size: usize, data: *mut *mut u8, out: *mut usize) -> u32;
    }
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn random_get(data: *mut u8, size: usize) -> u32;
        pub fn clock_time_get(id: u32, precision: u64, time: *mut u64) -> u32;
        pub fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
        pub fn environ_get(array: *mut *mut u8, buffer: *mut u8) -> u32;
        pub fn args_sizes_get(count: *mut usize, size: *mut usize) -> u32;
        pub fn args_get(array: *mut *mut u8, buffer: *mut u8) -> u32;
        pub fn fd_write(fd: u32, iovs: *const [usize; 2], count: usize, written: *mut usize) -> u32;
        pub fn fd_read(fd: u32, iovs: *const [usize; 2], count: usize, read: *mut usize) -> u32;
        pub fn fd_seek(fd: u32, offset: i64, whence: u32, out: *mut u64) -> u32;
        pub fn fd_close(fd: u32) -> u32;
        pub fn fd_fdstat_get(fd: u32, out: *mut u8) -> u32;
        pub fn fd_fdstat_set_flags(fd: u32, flags: u32) -> u32;
        pub fn fd_prestat_get(fd: u32, out: *mut u8) -> u32;
        pub fn fd_prestat_dir_name(fd: u32, path: *mut u8, size: usize) -> u32;
        pub fn path_open(
            fd: u32, flags: u32, path: *const u8, size: usize, open: u32, rights: u64, inheriting: u64, descriptor: u32, out: *mut u32,
        ) -> u32;
        pub fn sched_yield() -> u32;
        pub fn poll_oneoff(subscriptions: *const u8, events: *mut u8, count: usize, out: *mut usize) -> u32;
        pub fn proc_exit(code: u32);
    }
}

pub use raw::*;

pub fn allocate(size: usize) -> *mut u8 {
    let mut bytes = Vec::<u8>::with_capacity(size.max(1));
    let pointer = bytes.as_mut_ptr();
    std::mem::forget(bytes);
    pointer
}

/// Calls a function with two out-parameters and takes over what it allocated.
pub fn output(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> (u32, Vec<u8>) {
    let (mut data, mut size) = (null_mut::<u8>(), 0usize);
    let status = call(&mut data, &mut size);
    let bytes = if data.is_null() { Vec::new() } else { unsafe { Vec::from_raw_parts(data, size, size) } };
    (status, bytes)
}

pub fn log(level: u32, text: &str) {
    unsafe { proxy_log(level, text.as_ptr(), text.len()) };
}

pub fn get_buffer(kind: u32, start: u32, length: u32) -> (u32, Vec<u8>) {
    output(|data, size| unsafe { proxy_get_buffer_bytes(kind, start, length, data, size) })
}

pub fn get_pairs(map: u32) -> (u32, Pairs) {
    let (status, bytes) = output(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) });
    (status, decode(&bytes))
}

/// `u32 count`, the lengths, then keys and values each with a NUL.
pub fn encode(pairs: &Pairs) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (key, value) in pairs {
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (key, value) in pairs {
        bytes.extend(key);
        bytes.push(0);
        bytes.extend(value);
        bytes.push(0);
    }
    bytes
}

pub fn decode(bytes: &[u8]) -> Pairs {
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let count = word(0);
    let mut at = 4 + count * 8;
    (0..count)
        .map(|n| {
            let (key, value) = (word(4 + n * 8), word(8 + n * 8));
            let pair = (bytes[at..at + key].to_vec(), bytes[at + key + 1..at + key + 1 + value].to_vec());
            at += key + value + 2;
            pair
        })
        .collect()
}
