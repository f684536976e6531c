//! Host calls. Most are imported here rather than taken from the SDK, whose
//! wrappers panic on statuses they do not expect and copy header maps into
//! hundreds of small allocations; calls go through the SDK, which has to know
//! whom an answer belongs to.
#![expect(unsafe_code, reason = "the Proxy-Wasm ABI is raw pointers")]

use crate::headers::Headers;
use crate::host::{Buffer, Call, CallRefused, Host, Level, Map, MetricKind};
use crate::inject::Reply;
use std::ptr::null_mut;
use std::time::Duration;

/// `proxy_result_t` of the ABI: anything but this is a failure.
const OK: u32 = 0;
const CAS_MISMATCH: u32 = 8;
/// WASI clock of `clock_time_get`.
const MONOTONIC: u32 = 1;
/// `proxy_stream_type_t` of a request.
const HTTP_REQUEST: u32 = 0;
/// Envoy's details of a local reply, in access logs.
const DETAILS: &str = "softprobe_inject";
/// Host limit of one `random_get`.
const MAX_RANDOM: usize = 64 * 1024;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_get_log_level(level: *mut u32) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, delta: i64) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, queue: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(queue: u32, item: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(queue: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, size: usize, version: u32) -> u32;
    fn proxy_done() -> u32;
    fn proxy_continue_stream(kind: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

// Envoy links its WASI subset for modules of every target.
#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(buffer: *mut u8, size: usize) -> u32;
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn environ_get(pointers: *mut *mut u8, buffer: *mut u8) -> u32;
}

/// The proxy this module runs in.
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvoyHost;

/// Runs a call that returns bytes in memory which the host allocated through
/// this module's `malloc`, that is, as a `Vec` of exactly that capacity.
fn take_bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut data, mut size) = (null_mut(), 0);
    if call(&mut data, &mut size) != OK {
        return None;
    }
    if data.is_null() {
        return Some(Vec::new());
    }
    // SAFETY: the SDK's `malloc` hands out a boxed slice of `size` bytes, and
    // the host filled all of them.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// A value and its version, for compare-and-swap.
fn shared_data(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut version = 0;
    // SAFETY: the pointers are to live data.
    let value =
        take_bytes(|data, size| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version) });
    Some((value?, version))
}

impl Host for EnvoyHost {
    fn wall_ns(&self) -> u64 {
        let mut time = 0;
        // SAFETY: the pointer is to a live local.
        unsafe { proxy_get_current_time_nanoseconds(&mut time) };
        time
    }

    fn monotonic_ns(&self) -> u64 {
        let mut time = 0;
        // SAFETY: the pointer is to a live local.
        if unsafe { clock_time_get(MONOTONIC, 0, &mut time) } == OK { time } else { self.wall_ns() }
    }

    fn random(&self, buffer: &mut [u8]) -> bool {
        // SAFETY: pointer and size are of one live slice.
        buffer.chunks_mut(MAX_RANDOM).all(|part| unsafe { random_get(part.as_mut_ptr(), part.len()) } == OK)
    }

    fn headers(&self, map: Map) -> Headers {
        // SAFETY: the pointers are to live locals.
        let raw = take_bytes(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
        Headers::from_raw(raw.unwrap_or_default())
    }

    fn set_header(&self, map: Map, name: &str, value: &str) {
        // SAFETY: pointers and sizes are of live strings.
        unsafe {
            proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len());
        }
    }

    fn remove_header(&self, map: Map, name: &str) {
        // SAFETY: pointer and size are of a live string.
        unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
    }

    fn buffer(&self, buffer: Buffer, start: usize, max: usize) -> Vec<u8> {
        // SAFETY: the pointers are to live locals.
        let bytes = take_bytes(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, start, max, data, size) });
        bytes.unwrap_or_default()
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        let path = path.join("\0");
        // SAFETY: the pointers are to live locals.
        take_bytes(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
    }

    fn environment(&self) -> Vec<String> {
        let (mut count, mut size) = (0, 0);
        // SAFETY: the pointers are to live locals.
        if unsafe { environ_sizes_get(&mut count, &mut size) } != OK {
            return Vec::new();
        }
        let (mut pointers, mut text) = (vec![null_mut(); count], vec![0; size]);
        // SAFETY: the buffers have the sizes that the host asked for.
        if unsafe { environ_get(pointers.as_mut_ptr(), text.as_mut_ptr()) } != OK {
            return Vec::new();
        }
        text.split(|byte| *byte == 0).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    fn set_tick_ms(&self, period: u32) {
        // SAFETY: no pointers.
        unsafe { proxy_set_tick_period_milliseconds(period) };
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, CallRefused> {
        let timeout = Duration::from_millis(call.timeout_ms);
        proxy_wasm::hostcalls::dispatch_http_call(
            call.cluster,
            call.headers.to_vec(),
            Some(call.body),
            Vec::new(),
            timeout,
        )
        .map_err(|_| CallRefused)
    }

    fn resume_request(&self) {
        // SAFETY: no pointers.
        unsafe { proxy_continue_stream(HTTP_REQUEST) };
    }

    fn activate(&self, context: u32) {
        // SAFETY: no pointers.
        unsafe { proxy_set_effective_context(context) };
    }

    fn reply(&self, reply: &Reply) {
        let pairs = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let headers = Headers::from_pairs(pairs);
        let (headers, body) = (headers.raw(), &reply.body);
        // SAFETY: pointers and sizes are of live slices.
        unsafe {
            proxy_send_local_response(
                u32::from(reply.status),
                DETAILS.as_ptr(),
                DETAILS.len(),
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                -1,
            );
        }
    }

    fn log_level(&self) -> Level {
        let mut level = Level::Info as u32;
        // SAFETY: the pointer is to a live local.
        unsafe { proxy_get_log_level(&mut level) };
        Level::from_number(level)
    }

    fn log(&self, level: Level, line: &str) {
        // SAFETY: pointer and size are of a live string.
        unsafe { proxy_log(level as u32, line.as_ptr(), line.len()) };
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let mut id = 0;
        // SAFETY: the pointers are to live data.
        let status = unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) };
        (status == OK).then_some(id)
    }

    fn add_metric(&self, id: u32, delta: i64) {
        // SAFETY: no pointers.
        unsafe { proxy_increment_metric(id, delta) };
    }

    fn register_queue(&self, name: &str) -> Option<u32> {
        let mut queue = 0;
        // SAFETY: the pointers are to live data.
        let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &mut queue) };
        (status == OK).then_some(queue)
    }

    fn enqueue(&self, queue: u32, item: &[u8]) -> bool {
        // SAFETY: pointer and size are of a live slice.
        unsafe { proxy_enqueue_shared_queue(queue, item.as_ptr(), item.len()) == OK }
    }

    fn dequeue(&self, queue: u32) -> Option<Vec<u8>> {
        // SAFETY: the pointers are to live locals.
        take_bytes(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) })
    }

    fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        shared_data(key).map(|(value, _)| value)
    }

    fn change_shared_data(&self, key: &str, change: &dyn Fn(Option<&[u8]>) -> Vec<u8>) {
        loop {
            let before = shared_data(key);
            let (value, version) =
                (change(before.as_ref().map(|(value, _)| value.as_slice())), before.map_or(0, |b| b.1));
            // SAFETY: pointers and sizes are of live data.
            let status =
                unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) };
            if status != CAS_MISMATCH {
                return;
            }
        }
    }

    fn done(&self) {
        // SAFETY: no pointers.
        unsafe { proxy_done() };
    }
}
