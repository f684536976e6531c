//! APIClarity's telemetry, one exchange an upload: `POST /api/telemetry`
//! (camelCase), and the form of 2021 before it, `POST /publish` (snake_case).
//! Schema: openclarity/apiclarity `plugins/api/swagger.yaml`.

use crate::config::WireKind;
use crate::exchange::Exchange;
use crate::policy::host_without_port;
use crate::record::{Part, Record};
use crate::redact::Content;
use crate::redact::json::escape;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `x-request-id` of the exchange, which Envoy gives every request.
pub(super) fn request_id(exchange: &Exchange) -> String {
    let id = exchange.request.headers.get("x-request-id").unwrap_or_default();
    String::from_utf8_lossy(id).chars().filter(|c| !c.is_control()).collect()
}

pub(super) fn encode(wire: WireKind, record: &Record<'_>, out: &mut Vec<u8>) {
    let exchange = record.exchange;
    let peers = &exchange.peers;
    let namespace = peers.namespace.as_deref().unwrap_or_default();
    let host = full_host(record.authority, namespace);
    let status = exchange.status.map(|status| status.to_string()).unwrap_or_default();
    let id = request_id(exchange);
    let destination = peers.destination.as_deref().unwrap_or_default();
    let source = peers.source.as_deref().unwrap_or_default();
    let form = if wire == WireKind::ApiClarityV1 { &V1 } else { &V2 };
    let mut object = Object::open(out);
    object.string(form.request_id, &id);
    object.string("scheme", record.scheme);
    object.string(form.destination_address, destination);
    object.string(form.destination_namespace, namespace);
    object.string(form.source_address, source);
    let start_ms = exchange.start_wall_ns / 1_000_000;
    let end_ms = (exchange.start_wall_ns + exchange.end_ns.saturating_sub(exchange.start_ns)) / 1_000_000;
    let mut request = object.object(form.request);
    request.string("method", record.method);
    request.string("path", &record.path);
    request.string("host", &host);
    put_common(form, record, Some(&record.request), Some(&host), start_ms, &mut request);
    request.close();
    let mut response = object.object(form.response);
    response.string(form.status_code, &status);
    put_common(form, record, record.response.as_ref(), None, end_ms, &mut response);
    response.close();
    object.close();
}

/// The names that differ between the forms.
struct Form {
    request_id: &'static str,
    destination_address: &'static str,
    destination_namespace: &'static str,
    source_address: &'static str,
    request: &'static str,
    response: &'static str,
    status_code: &'static str,
    truncated: &'static str,
    /// Headers as objects, a time, and all of it in an object of its own.
    nested: bool,
}

const V1: Form = Form {
    request_id: "request_id",
    destination_address: "destination_address",
    destination_namespace: "destination_namespace",
    source_address: "source_address",
    request: "scnt_request",
    response: "scnt_response",
    status_code: "status_code",
    truncated: "truncated_body",
    nested: false,
};

const V2: Form = Form {
    request_id: "requestID",
    destination_address: "destinationAddress",
    destination_namespace: "destinationNamespace",
    source_address: "sourceAddress",
    request: "request",
    response: "response",
    status_code: "statusCode",
    truncated: "TruncatedBody",
    nested: true,
};

/// What both sides have.
fn put_common(
    form: &Form,
    record: &Record<'_>,
    part: Option<&Part<'_>>,
    host: Option<&str>,
    time_ms: u64,
    side: &mut Object<'_>,
) {
    if form.nested {
        let mut common = side.object("common");
        put_members(form, record, part, host, &mut common);
        common.raw("time", &time_ms.to_string());
        common.close();
    } else {
        put_members(form, record, part, host, side);
    }
}

/// Headers in order and with repeats, without pseudo headers and Envoy's own.
fn put_members(form: &Form, record: &Record<'_>, part: Option<&Part<'_>>, host: Option<&str>, out: &mut Object<'_>) {
    out.string("version", record.exchange.peers.protocol.as_deref().unwrap_or_default());
    let fields = part.map(|part| part.headers.as_slice()).unwrap_or_default();
    let shown = fields.iter().filter(|field| !field.is_pseudo() && !field.name.starts_with("x-envoy-"));
    let texts = shown.map(|field| (&*field.name, field.value.text()));
    let headers = host.map(|host| ("host", host.into())).into_iter().chain(texts);
    let items = out.key("headers");
    items.push(b'[');
    for (at, (name, value)) in headers.enumerate() {
        if at > 0 {
            items.push(b',');
        }
        items.extend_from_slice(if form.nested { b"{\"key\":" } else { b"[" });
        put_string(items, name);
        items.extend_from_slice(if form.nested { b",\"value\":" } else { b"," });
        put_string(items, &value);
        items.push(if form.nested { b'}' } else { b']' });
    }
    items.push(b']');
    let (body, truncated) = body(part);
    out.string("body", &body);
    out.raw(form.truncated, if truncated { "true" } else { "false" });
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, empty: true }
    }

    /// Begins a member.
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        put_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn string(&mut self, name: &str, value: &str) {
        put_string(self.key(name), value);
    }

    /// A value that needs no quotes.
    fn raw(&mut self, name: &str, value: &str) {
        self.key(name).extend_from_slice(value.as_bytes());
    }

    fn object(&mut self, name: &str) -> Object<'_> {
        Object::open(self.key(name))
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(text.as_bytes(), out);
    out.push(b'"');
}

/// Host without port, scheme and the suffixes that Kubernetes' DNS adds; a lone
/// name gets its namespace.
pub(crate) fn full_host(authority: &str, namespace: &str) -> String {
    let authority = authority.split_once("://").map_or(authority, |(_, rest)| rest);
    let host = String::from_utf8_lossy(host_without_port(authority.as_bytes())).into_owned();
    let suffixes = [".svc.cluster.local", ".svc.cluster", ".svc"];
    let host = suffixes.iter().find_map(|suffix| host.strip_suffix(suffix)).unwrap_or(&host);
    if host.is_empty() || namespace.is_empty() || host.contains(['.', ':']) {
        host.to_owned()
    } else {
        format!("{host}.{namespace}")
    }
}

/// Base64, and whether bytes are missing.
fn body(part: Option<&Part<'_>>) -> (String, bool) {
    match part.map(|part| (&part.body, part.size)) {
        Some((Content::Kept { bytes, cut, .. }, _)) => (STANDARD.encode(bytes), *cut),
        Some((Content::LeftOut(_), _)) => (String::new(), true),
        Some((Content::Empty, size)) => (String::new(), size > 0),
        None => (String::new(), false),
    }
}
