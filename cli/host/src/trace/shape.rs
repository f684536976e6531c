//! How the arguments of host functions and callbacks read.
//!
//! Source: the signatures of Proxy-Wasm ABI 0.1.0 to 0.2.1 and of WASI
//! preview 1; names of numbers as in `proxy_wasm_common.h`.

use std::borrow::Cow;

/// One argument, of one or two parameters.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// The host writes it, to where the parameters point.
    pub(super) out: bool,
}

/// All but numbers, words and what is hidden are an address and a length.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Hidden,
    Number,
    Flag,
    /// A `u64` in memory.
    Wide,
    Word(&'static [&'static str]),
    Text,
    Size,
    Headers,
    Path,
    /// Its name is the text before it.
    Header,
    /// Its path is the one before it.
    Property,
    /// A cluster by its name, or a message that may hold keys.
    Service,
    /// An address and a count of WASI's addresses and lengths.
    Vectors,
}

const fn given(name: &'static str, form: Form) -> Part {
    Part { name, form, out: false }
}

const fn out(name: &'static str, form: Form) -> Part {
    Part { name, form, out: true }
}

const HIDDEN: Part = given("", Form::Hidden);

const MAP: Part = given(
    "map",
    Form::Word(&[
        "request_headers",
        "request_trailers",
        "response_headers",
        "response_trailers",
        "grpc_initial_metadata",
        "grpc_trailing_metadata",
        "call_response_headers",
        "call_response_trailers",
    ]),
);
const BUFFER: Part = given(
    "buffer",
    Form::Word(&[
        "request_body",
        "response_body",
        "downstream_data",
        "upstream_data",
        "call_response_body",
        "grpc_message",
        "vm_configuration",
        "plugin_configuration",
        "call_data",
    ]),
);
const STREAM: Part = given("stream", Form::Word(&["request", "response", "downstream", "upstream"]));
const LEVELS: Form = Form::Word(&["trace", "debug", "info", "warn", "error", "critical", "off"]);
const KINDS: Form = Form::Word(&["counter", "gauge", "histogram"]);

/// The arguments of a host function; none: a function whose parameters are
/// not worth more than their numbers.
pub(super) fn of_call(name: &str) -> Option<&'static [Part]> {
    use Form::{Header, Headers, Number, Path, Property, Service, Size, Text, Vectors, Wide};
    Some(match name {
        "proxy_log" => &const { [given("level", LEVELS), given("message", Text)] },
        "proxy_get_log_level" => &const { [out("level", LEVELS)] },
        "proxy_get_header_map_value" => &const { [MAP, given("key", Text), out("value", Header)] },
        "proxy_add_header_map_value" | "proxy_replace_header_map_value" => {
            &const { [MAP, given("key", Text), given("value", Header)] }
        }
        "proxy_remove_header_map_value" => &const { [MAP, given("key", Text)] },
        "proxy_get_header_map_pairs" => &const { [MAP, out("headers", Headers)] },
        "proxy_set_header_map_pairs" => &const { [MAP, given("headers", Headers)] },
        "proxy_get_header_map_size" => &const { [MAP, out("bytes", Number)] },
        "proxy_get_buffer_bytes" => {
            &const { [BUFFER, given("start", Number), given("length", Number), out("bytes", Size)] }
        }
        "proxy_get_buffer_status" => &const { [BUFFER, out("bytes", Number), out("flags", Number)] },
        "proxy_set_buffer_bytes" => {
            &const { [BUFFER, given("start", Number), given("length", Number), given("bytes", Size)] }
        }
        "proxy_get_configuration" => &const { [out("bytes", Size)] },
        "proxy_get_property" => &const { [given("path", Path), out("value", Property)] },
        "proxy_set_property" => &const { [given("path", Path), given("value", Property)] },
        "proxy_send_local_response" => {
            &const {
                [
                    given("code", Number),
                    given("details", Text),
                    given("body", Size),
                    given("headers", Headers),
                    given("grpc_status", Number),
                ]
            }
        }
        "proxy_set_effective_context" => &const { [given("context", Number)] },
        "proxy_get_status" => &const { [out("code", Number), out("message", Text)] },
        "proxy_continue_stream" | "proxy_close_stream" => &const { [STREAM] },
        "proxy_get_current_time_nanoseconds" => &const { [out("time", Wide)] },
        "proxy_set_tick_period_milliseconds" => &const { [given("period", Number)] },
        "proxy_http_call" => {
            &const {
                [
                    given("cluster", Text),
                    given("headers", Headers),
                    given("body", Size),
                    given("trailers", Headers),
                    given("timeout_ms", Number),
                    out("token", Number),
                ]
            }
        }
        "proxy_grpc_call" => {
            &const {
                [
                    given("cluster", Service),
                    given("service", Text),
                    given("method", Text),
                    given("metadata", Headers),
                    given("message", Size),
                    given("timeout_ms", Number),
                    out("token", Number),
                ]
            }
        }
        "proxy_grpc_stream" => {
            &const {
                [
                    given("cluster", Service),
                    given("service", Text),
                    given("method", Text),
                    given("metadata", Headers),
                    out("token", Number),
                ]
            }
        }
        "proxy_grpc_send" => &const { [given("token", Number), given("message", Size), given("end", Form::Flag)] },
        "proxy_grpc_close" | "proxy_grpc_cancel" => &const { [given("token", Number)] },
        "proxy_define_metric" => &const { [given("kind", KINDS), given("name", Text), out("id", Number)] },
        "proxy_increment_metric" => &const { [given("id", Number), given("delta", Number)] },
        "proxy_record_metric" => &const { [given("id", Number), given("value", Number)] },
        "proxy_get_metric" => &const { [given("id", Number), out("value", Wide)] },
        "proxy_get_shared_data" => &const { [given("key", Text), out("value", Size), out("cas", Number)] },
        "proxy_set_shared_data" => &const { [given("key", Text), given("value", Size), given("cas", Number)] },
        "proxy_register_shared_queue" => &const { [given("name", Text), out("token", Number)] },
        "proxy_resolve_shared_queue" => &const { [given("vm_id", Text), given("name", Text), out("token", Number)] },
        "proxy_enqueue_shared_queue" => &const { [given("token", Number), given("value", Size)] },
        "proxy_dequeue_shared_queue" => &const { [given("token", Number), out("value", Size)] },
        "proxy_call_foreign_function" => {
            &const { [given("name", Text), given("arguments", Size), out("result", Size)] }
        }
        "fd_write" => &const { [given("fd", Number), given("text", Vectors), out("written", Number)] },
        "environ_sizes_get" | "args_sizes_get" => &const { [out("count", Number), out("bytes", Number)] },
        "environ_get" | "args_get" => &const { [HIDDEN, HIDDEN] },
        "clock_time_get" => {
            &const { [given("clock", Form::Word(&["realtime", "monotonic"])), HIDDEN, out("time", Wide)] }
        }
        "random_get" => &const { [HIDDEN, given("length", Number)] },
        "proc_exit" => &const { [given("code", Number)] },
        _ => return None,
    })
}

/// The arguments of a callback behind the context's id.
pub(super) fn of_callback(name: &str) -> &'static [Part] {
    use Form::Number;
    const END: Part = given("end_of_stream", Form::Flag);
    const TOKEN: Part = given("token", Number);
    match name {
        "proxy_on_context_create" => &const { [given("parent", Number)] },
        "proxy_on_vm_start" | "proxy_on_configure" => &const { [given("configuration_bytes", Number)] },
        "proxy_on_queue_ready" => &const { [TOKEN] },
        "proxy_on_request_headers" | "proxy_on_response_headers" => &const { [given("headers", Number), END] },
        "proxy_on_request_body" | "proxy_on_response_body" => &const { [given("bytes", Number), END] },
        "proxy_on_request_trailers" | "proxy_on_response_trailers" => &const { [given("trailers", Number)] },
        "proxy_on_http_call_response" => {
            &const { [TOKEN, given("headers", Number), given("body_bytes", Number), given("trailers", Number)] }
        }
        "proxy_on_grpc_receive_initial_metadata" | "proxy_on_grpc_receive_trailing_metadata" => {
            &const { [TOKEN, given("metadata", Number)] }
        }
        "proxy_on_grpc_receive" => &const { [TOKEN, given("bytes", Number)] },
        "proxy_on_grpc_close" => &const { [TOKEN, given("status", Number)] },
        _ => &[],
    }
}

/// The result of a host function.
pub(super) fn status(function: &str, number: u32) -> Cow<'static, str> {
    const WASM: &[&str] = &[
        "Ok",
        "NotFound",
        "BadArgument",
        "SerializationFailure",
        "ParseFailure",
        "BadExpression",
        "InvalidMemoryAccess",
        "Empty",
        "CasMismatch",
        "ResultMismatch",
        "InternalFailure",
        "BrokenConnection",
        "Unimplemented",
    ];
    const WASI: &[(u32, &str)] = &[
        (0, "SUCCESS"),
        (8, "EBADF"),
        (20, "ENOTDIR"),
        (21, "EFAULT"),
        (28, "EINVAL"),
        (44, "ENOENT"),
        (52, "ENOSYS"),
        (58, "ENOTSUP"),
        (76, "ENOTCAPABLE"),
    ];
    let name = match function {
        "emscripten_notify_memory_growth" | "proc_exit" => return "".into(),
        "pthread_equal" => None,
        _ if function.starts_with("proxy_") || function.starts_with("envoy_") => WASM.get(number as usize).copied(),
        _ => WASI.iter().find(|(known, _)| *known == number).map(|(_, name)| *name),
    };
    name.map_or_else(|| number.to_string().into(), Cow::Borrowed)
}

/// What a callback's number asks for.
pub(super) fn returned(callback: &str, number: u32) -> Cow<'static, str> {
    const HEADERS: &[&str] =
        &["Continue", "Pause", "ContinueAndEndStream", "StopAllIterationAndBuffer", "StopAllIterationAndWatermark"];
    const BODY: &[&str] = &["Continue", "Pause", "StopIterationAndWatermark", "StopIterationNoBuffer"];
    let names = match callback {
        "proxy_on_request_headers" | "proxy_on_response_headers" => HEADERS,
        "proxy_on_request_body" | "proxy_on_response_body" => BODY,
        "proxy_on_request_trailers" | "proxy_on_response_trailers" => BODY,
        "proxy_on_vm_start" | "proxy_on_configure" | "proxy_on_done" => {
            return if number == 0 { "false" } else { "true" }.into();
        }
        _ => &[],
    };
    names.get(number as usize).map_or_else(|| number.to_string().into(), |name| Cow::Borrowed(*name))
}
