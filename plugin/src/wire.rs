//! The forms in which exchanges leave: one seam, a module for each wire.
//!
//! Protobuf is written by hand because exchanges wait in the queue as encoded
//! spans: an upload is then one copy, and the cost of an exchange is paid once.

mod apiclarity;
mod otlp;
pub(crate) mod protobuf;
mod softprobe;

use crate::attributes::{self as own, SideNames};
use crate::config::{Auth, Config, WireKind};
use crate::exchange::{Direction, Exchange};
use crate::record::{Field, Part, Record};
use crate::redact::Content;
pub(crate) use apiclarity::full_host;
use protobuf::{Attributes, put_bytes, put_fixed32, put_fixed64, put_length};
use std::rc::Rc;

/// Instrumentation scope of every span.
pub const SCOPE_NAME: &str = "spctl";

// opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
const TRACES_RESOURCE_SPANS: u32 = 1;
const RESOURCE_SPANS_RESOURCE: u32 = 1;
const RESOURCE_SPANS_SCOPE_SPANS: u32 = 2;
const SCOPE_SPANS_SCOPE: u32 = 1;
const SCOPE_SPANS_SPANS: u32 = 2;
const SCOPE_NAME_FIELD: u32 = 1;
const SCOPE_VERSION_FIELD: u32 = 2;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SPAN_TRACE_ID: u32 = 1;
const SPAN_SPAN_ID: u32 = 2;
const SPAN_TRACE_STATE: u32 = 3;
const SPAN_PARENT_SPAN_ID: u32 = 4;
const SPAN_NAME: u32 = 5;
const SPAN_KIND: u32 = 6;
const SPAN_START: u32 = 7;
const SPAN_END: u32 = 8;
const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_STATUS: u32 = 15;
const SPAN_FLAGS: u32 = 16;
const STATUS_CODE: u32 = 3;
const STATUS_ERROR: u64 = 2;
const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
/// Span flags: whether the parent is remote is known, and it is.
const FLAG_REMOTE: u32 = 0x300;

/// Where uploads go, below the backend's base path.
pub fn path(wire: WireKind) -> &'static str {
    match wire {
        WireKind::Otlp | WireKind::Softprobe => "/v1/traces",
        WireKind::ApiClarity => "/api/telemetry",
        WireKind::ApiClarityV1 => "/publish",
    }
}

/// Media type of uploads.
pub fn content_type(wire: WireKind) -> &'static str {
    if wire.is_apiclarity() { "application/json" } else { "application/x-protobuf" }
}

/// What all exchanges of one upload have in common, where the wire asks for it:
/// Softprobe's runtimes file an upload under the first session they find in it;
/// APIClarity's upload is one exchange, with its request id.
pub fn key(wire: WireKind, exchange: &Exchange) -> Option<Rc<str>> {
    match wire {
        WireKind::Otlp => None,
        WireKind::Softprobe => exchange.session.as_deref().map(Rc::from),
        WireKind::ApiClarity | WireKind::ApiClarityV1 => Some(apiclarity::request_id(exchange).into()),
    }
}

/// The header of an upload that carries its key.
pub fn key_header(wire: WireKind) -> Option<&'static str> {
    wire.is_apiclarity().then_some("x-request-id")
}

/// Encodes one exchange.
pub fn encode(wire: WireKind, record: &Record<'_>, out: &mut Vec<u8>) {
    if wire.is_apiclarity() {
        return apiclarity::encode(wire, record, out);
    }
    let kind = if record.direction() == Direction::Outbound { KIND_CLIENT } else { KIND_SERVER };
    let mut attributes = put_span(record, kind, out);
    match wire {
        WireKind::Softprobe => softprobe::attributes(record, "extract", &mut attributes),
        _ => otlp::attributes(record, &mut attributes),
    }
    put_own(record, &mut attributes);
    if is_error(record) {
        put_length(out, SPAN_STATUS, 2);
        protobuf::put_varint_field(out, STATUS_CODE, STATUS_ERROR);
    }
    put_flags(record, out);
}

/// Asks for the answer to a request: one span in Softprobe's form, on every
/// wire.
pub fn lookup(record: &Record<'_>, without_body: bool) -> Vec<u8> {
    let mut span = Vec::new();
    let mut attributes = put_span(record, KIND_CLIENT, &mut span);
    softprobe::attributes(record, "inject", &mut attributes);
    put_own_side(&own::REQUEST, &record.request, &mut attributes);
    if without_body {
        attributes.bool(own::INJECT_WITHOUT_BODY, true);
    }
    put_flags(record, &mut span);
    frame(WireKind::Softprobe, &[(record.service, vec![&span])])
}

/// The fields of a span up to its attributes.
fn put_span<'a>(record: &Record<'_>, kind: u64, out: &'a mut Vec<u8>) -> Attributes<'a> {
    let exchange = record.exchange;
    put_bytes(out, SPAN_TRACE_ID, &exchange.span.trace_id);
    put_bytes(out, SPAN_SPAN_ID, &exchange.span.parent_id);
    if let Some(state) = &exchange.trace_state {
        put_bytes(out, SPAN_TRACE_STATE, state.as_bytes());
    }
    if let Some(parent) = &exchange.parent {
        put_bytes(out, SPAN_PARENT_SPAN_ID, parent);
    }
    put_bytes(out, SPAN_NAME, span_name(record).as_bytes());
    protobuf::put_varint_field(out, SPAN_KIND, kind);
    put_fixed64(out, SPAN_START, exchange.start_wall_ns);
    let duration = exchange.end_ns.saturating_sub(exchange.start_ns);
    put_fixed64(out, SPAN_END, exchange.start_wall_ns.saturating_add(duration));
    Attributes::new(out, SPAN_ATTRIBUTES)
}

fn put_flags(record: &Record<'_>, out: &mut Vec<u8>) {
    put_fixed32(out, SPAN_FLAGS, u32::from(record.exchange.span.flags) | FLAG_REMOTE);
}

/// Frames encoded exchanges as the body of an upload; `groups` are the services
/// and their spans. APIClarity's upload is its one exchange.
pub fn frame(wire: WireKind, groups: &[(&str, Vec<&[u8]>)]) -> Vec<u8> {
    if wire.is_apiclarity() {
        return groups.iter().flat_map(|(_, items)| items.concat()).collect();
    }
    let mut body = Vec::new();
    for (service, spans) in groups {
        let mut resource = Vec::new();
        let mut attributes = Attributes::new(&mut resource, RESOURCE_ATTRIBUTES);
        attributes.string("service.name", service);
        if wire == WireKind::Softprobe {
            attributes.string("sp.resource.type", softprobe::RESOURCE_TYPE);
        }
        let mut scope = Vec::new();
        put_bytes(&mut scope, SCOPE_NAME_FIELD, SCOPE_NAME.as_bytes());
        put_bytes(&mut scope, SCOPE_VERSION_FIELD, env!("CARGO_PKG_VERSION").as_bytes());
        let spans_size: usize = spans.iter().map(|s| protobuf::field_size(SCOPE_SPANS_SPANS, s.len())).sum();
        let scope_spans = protobuf::field_size(SCOPE_SPANS_SCOPE, scope.len()) + spans_size;
        let resource_spans = protobuf::field_size(RESOURCE_SPANS_RESOURCE, resource.len())
            + protobuf::field_size(RESOURCE_SPANS_SCOPE_SPANS, scope_spans);
        body.reserve(protobuf::field_size(TRACES_RESOURCE_SPANS, resource_spans));
        put_length(&mut body, TRACES_RESOURCE_SPANS, resource_spans);
        put_bytes(&mut body, RESOURCE_SPANS_RESOURCE, &resource);
        put_length(&mut body, RESOURCE_SPANS_SCOPE_SPANS, scope_spans);
        put_bytes(&mut body, SCOPE_SPANS_SCOPE, &scope);
        for span in spans {
            put_bytes(&mut body, SCOPE_SPANS_SPANS, span);
        }
    }
    body
}

/// Headers of every upload and lookup that the configuration asks for.
pub fn upload_headers(config: &Config) -> Vec<(String, String)> {
    let mut headers = config.export.headers.clone();
    let Some(key) = &config.public_key else { return headers };
    if matches!(config.auth, Auth::Both | Auth::PublicKey) {
        headers.push(("x-public-key".to_owned(), key.clone()));
    }
    if matches!(config.auth, Auth::Both | Auth::Bearer) {
        headers.push(("authorization".to_owned(), format!("Bearer {key}")));
    }
    headers
}

/// `partial_success.rejected_spans` of an `ExportTraceServiceResponse`;
/// anything else reads as none.
pub fn rejected_spans(response: &[u8]) -> u64 {
    let partial = protobuf::fields(response).find_map(|field| field.bytes(1));
    partial.and_then(|message| protobuf::fields(message).find_map(|field| field.varint(1))).unwrap_or(0)
}

/// Methods of RFC 9110 and RFC 5789; others are `_OTHER` in the semantic
/// conventions, so that span names stay few.
pub fn known_method(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" | "QUERY")
}

fn span_name<'a>(record: &Record<'a>) -> &'a str {
    if known_method(record.method) { record.method } else { "HTTP" }
}

/// Semantic conventions, HTTP spans, "Status": 5xx always, 4xx for clients,
/// and a stream that ended without a response.
fn is_error(record: &Record<'_>) -> bool {
    match record.exchange.status {
        Some(status) => status >= 500 || (status >= 400 && record.direction() == Direction::Outbound),
        None => true,
    }
}

/// Attributes of our own that both wires carry.
fn put_own(record: &Record<'_>, out: &mut Attributes<'_>) {
    let exchange = record.exchange;
    let direction = match exchange.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
        Direction::Unspecified => "unspecified",
    };
    out.string(own::DIRECTION, direction);
    put_own_side(&own::REQUEST, &record.request, out);
    if let Some(response) = &record.response {
        put_own_side(&own::RESPONSE, response, out);
    }
    if !record.marks.list().is_empty() {
        out.strings(own::REDACTED, "", record.marks.list().iter().map(String::as_str));
    }
    if exchange.is_aborted() {
        out.bool(own::ABORTED, true);
    }
    if exchange.upgrade {
        out.bool(own::UPGRADE, true);
    }
    let offset = |at: u64| at.saturating_sub(exchange.start_ns) as i64;
    if let Some(at) = exchange.request_end_ns {
        out.int(own::REQUEST_END_NS, offset(at));
    }
    if let Some(at) = exchange.response_start_ns {
        out.int(own::RESPONSE_START_NS, offset(at));
    }
}

fn put_own_side(names: &SideNames, part: &Part<'_>, out: &mut Attributes<'_>) {
    if part.size > 0 {
        out.int(names.size, part.size.min(i64::MAX as u64) as i64);
    }
    match &part.body {
        Content::Empty if part.size > 0 => out.bool(names.truncated, true),
        Content::Empty => {}
        Content::LeftOut(why) => out.string(names.left_out, why),
        Content::Kept { decoded, cut, .. } => {
            if let Some(coding) = decoded {
                out.string(names.decoded, coding);
            }
            if *cut {
                out.bool(names.truncated, true);
            }
        }
    }
    if part.repeats && order_is_lost(&part.headers) {
        out.strings(names.order, "", part.headers.iter().filter(|f| !f.is_pseudo()).map(|f| &*f.name));
    }
    for (first, field) in first_lines(&part.trailers) {
        out.byte_strings(names.trailer, &field.name, same_name(&part.trailers, first).map(|f| f.value.bytes()));
    }
}

/// First line of each header, with its index.
fn grouped<'a, 'b>(part: &'b Part<'a>) -> impl Iterator<Item = (usize, &'b Field<'a>)> {
    let headers = part.headers.iter().enumerate();
    headers.filter(|(at, field)| !part.repeats || is_first(&part.headers, *at, field))
}

fn first_lines<'a, 'b>(fields: &'b [Field<'a>]) -> impl Iterator<Item = (usize, &'b Field<'a>)> {
    fields.iter().enumerate().filter(|(at, field)| is_first(fields, *at, field))
}

fn is_first(fields: &[Field<'_>], at: usize, field: &Field<'_>) -> bool {
    !fields.get(..at).unwrap_or_default().iter().any(|other| other.name == field.name)
}

/// Fields of the same name as the one at `first`, which is the first of them.
fn same_name<'a, 'b>(fields: &'b [Field<'a>], first: usize) -> impl Iterator<Item = &'b Field<'a>> + Clone {
    let from = fields.get(first..).unwrap_or_default();
    from.iter().filter(move |f| from.first().is_some_and(|one| one.name == f.name))
}

/// Whether a name comes back after another one.
fn order_is_lost(fields: &[Field<'_>]) -> bool {
    fields.iter().enumerate().skip(1).any(|(at, field)| {
        let before = fields.get(..at).unwrap_or_default();
        before.last().is_some_and(|last| last.name != field.name) && before.iter().any(|f| f.name == field.name)
    })
}

#[cfg(test)]
mod tests;
