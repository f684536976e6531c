//! Calls with arguments that no guest should make: pointers that no memory
//! backs, numbers that stand for nothing.

use crate::abi;
use crate::ops::say;

const NOWHERE: u32 = 0xffff_0000;

fn at() -> *const u8 {
    NOWHERE as *const u8
}

fn out<T>() -> *mut T {
    NOWHERE as *mut T
}

pub fn call(what: &str) {
    let good = b"x".as_ptr();
    let none = abi::encode(&Vec::new());
    let pairs = none.as_ptr();
    let mut token = 7u32;
    let status = unsafe {
        match what {
            "log_pointer" => abi::proxy_log(2, at(), 100),
            "log_level" => abi::proxy_log(77, good, 1),
            "log_level_off" => abi::proxy_log(6, good, 1),
            "get_level" => abi::proxy_get_log_level(out()),
            "header_key" => abi::proxy_remove_header_map_value(0, at(), 100),
            "get_key" => abi::output(|data, size| abi::proxy_get_header_map_value(0, at(), 9, data, size)).0,
            "get_out" => abi::proxy_get_header_map_value(0, b":path".as_ptr(), 5, out(), out()),
            "add_value" => abi::proxy_add_header_map_value(0, good, 1, at(), 9),
            "set_value" => abi::proxy_replace_header_map_value(0, good, 1, at(), 9),
            "pairs_out" => abi::proxy_get_header_map_pairs(0, out(), out()),
            "set_pairs_pointer" => abi::proxy_set_header_map_pairs(0, at(), 9),
            "size_out" => abi::proxy_get_header_map_size(0, out()),
            "map_type" => abi::output(|data, size| abi::proxy_get_header_map_pairs(42, data, size)).0,
            "map_type_get" => abi::output(|data, size| abi::proxy_get_header_map_value(8, good, 1, data, size)).0,
            "map_type_set" => abi::proxy_set_header_map_pairs(8, pairs, none.len()),
            "map_type_size" => abi::proxy_get_header_map_size(8, &mut 0),
            "map_type_add" => abi::proxy_add_header_map_value(8, good, 1, good, 1),
            "map_type_remove" => abi::proxy_remove_header_map_value(8, good, 1),
            "buffer_type" => abi::get_buffer(42, 0, 10).0,
            "buffer_status_type" => abi::proxy_get_buffer_status(9, &mut 0, &mut 0),
            "buffer_set_type" => abi::proxy_set_buffer_bytes(9, 0, 0, good, 1),
            "buffer_range" => abi::get_buffer(0, u32::MAX, u32::MAX).0,
            "buffer_out" => abi::proxy_get_buffer_bytes(7, 0, 9, out(), out()),
            "buffer_status_out" => abi::proxy_get_buffer_status(6, out(), out()),
            "buffer_set_pointer" => abi::proxy_set_buffer_bytes(0, 0, 0, at(), 9),
            "out_pointer" => abi::proxy_get_current_time_nanoseconds(out()),
            "stream_type" => abi::proxy_continue_stream(9),
            "close_type" => abi::proxy_close_stream(9),
            "metric_type" => abi::proxy_define_metric(9, b"m".as_ptr(), 1, &mut 0),
            "metric_name" => abi::proxy_define_metric(0, at(), 9, &mut 0),
            "metric_out" => abi::proxy_define_metric(0, b"out".as_ptr(), 3, out()),
            "metric_kind" => abi::proxy_increment_metric(3, 1),
            "metric_kind_record" => abi::proxy_record_metric(7, 1),
            "metric_kind_get" => abi::proxy_get_metric(7, &mut 0),
            "counter_unknown" => abi::proxy_increment_metric(4000, 1),
            "gauge_unknown" => abi::proxy_record_metric(4001, 1),
            "histogram_unknown" => abi::proxy_record_metric(4002, 1),
            "histogram_unknown_get" => abi::proxy_get_metric(4002, &mut 0),
            "context" => abi::proxy_set_effective_context(424_242),
            "pairs" => abi::proxy_set_header_map_pairs(0, b"\x01\x02\x03".as_ptr(), 3),
            "response_pairs" => abi::proxy_set_header_map_pairs(2, b"\x01\x02\x03".as_ptr(), 3),
            "property_path" => abi::output(|data, size| abi::proxy_get_property(at(), 9, data, size)).0,
            "property_out" => abi::proxy_get_property(b"plugin_name".as_ptr(), 11, out(), out()),
            "set_property_path" => abi::proxy_set_property(at(), 9, good, 1),
            "set_property_value" => abi::proxy_set_property(good, 1, at(), 9),
            "status_out" => abi::proxy_get_status(out(), out(), out()),
            "reply_body" => abi::proxy_send_local_response(200, good, 1, at(), 9, pairs, none.len(), -1),
            "reply_details" => abi::proxy_send_local_response(200, at(), 9, good, 1, pairs, none.len(), -1),
            "reply_headers" => abi::proxy_send_local_response(200, good, 1, good, 1, at(), 9, -1),
            "call_cluster" => abi::proxy_http_call(at(), 9, pairs, none.len(), good, 1, pairs, none.len(), 9, &mut token),
            "call_headers" => abi::proxy_http_call(good, 1, at(), 9, good, 1, pairs, none.len(), 9, &mut token),
            "call_body" => abi::proxy_http_call(good, 1, pairs, none.len(), at(), 9, pairs, none.len(), 9, &mut token),
            "call_trailers" => abi::proxy_http_call(good, 1, pairs, none.len(), good, 1, at(), 9, 9, &mut token),
            "call_token" => abi::proxy_http_call(good, 1, pairs, none.len(), good, 1, pairs, none.len(), 9, out()),
            "call_failed_token" => {
                let status = abi::proxy_http_call(good, 1, pairs, none.len(), good, 1, pairs, none.len(), 9, &mut token);
                return say(&format!("bad {what} -> {status} token {token}"));
            }
            "grpc_service" => abi::proxy_grpc_stream(at(), 9, good, 1, good, 1, pairs, none.len(), &mut token),
            "grpc_message" => abi::proxy_grpc_call(good, 1, good, 1, good, 1, pairs, none.len(), at(), 9, 9, &mut token),
            "grpc_send" => abi::proxy_grpc_send(6, at(), 9, 0),
            "shared_key" => abi::output(|data, size| abi::proxy_get_shared_data(at(), 9, data, size, &mut 0)).0,
            "shared_out" => abi::proxy_get_shared_data(good, 1, out(), out(), out()),
            "shared_set_key" => abi::proxy_set_shared_data(at(), 9, good, 1, 0),
            "shared_set_value" => abi::proxy_set_shared_data(good, 1, at(), 9, 0),
            "queue_name" => abi::proxy_register_shared_queue(at(), 9, &mut token),
            "queue_out" => abi::proxy_register_shared_queue(good, 1, out()),
            "resolve_vm" => abi::proxy_resolve_shared_queue(at(), 9, good, 1, &mut token),
            "resolve_name" => abi::proxy_resolve_shared_queue(good, 1, at(), 9, &mut token),
            "enqueue_value" => abi::proxy_enqueue_shared_queue(1, at(), 9),
            "enqueue_token" => abi::proxy_enqueue_shared_queue(4242, good, 1),
            "dequeue_token" => abi::output(|data, size| abi::proxy_dequeue_shared_queue(4242, data, size)).0,
            "foreign_name" => abi::output(|data, size| abi::proxy_call_foreign_function(at(), 9, good, 1, data, size)).0,
            "foreign_arguments" => {
                abi::output(|data, size| abi::proxy_call_foreign_function(b"compress".as_ptr(), 8, at(), 9, data, size)).0
            }
            "foreign_no_out" => {
                let nowhere = std::ptr::null_mut();
                abi::proxy_call_foreign_function(b"compress".as_ptr(), 8, good, 1, nowhere, nowhere.cast())
            }
            _ => 9999,
        }
    };
    say(&format!("bad {what} -> {status}"));
}
