//! OTLP spans to exchanges. Reads what any HTTP instrumentation may send, the
//! spellings of Softprobe's wires, and our filter's own attributes.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spctl_plugin::attributes as own;

use super::store::{Ids, StoredSpan};
use crate::error::{Error, Result};
use crate::exchange::{Body, Exchange, Message, Summary};
use crate::state::hex;

/// OTLP JSON: ids in hexadecimal, the rest as protobuf's JSON mapping.
pub(super) fn message_from_json(body: &[u8]) -> serde_json::Result<ExportTraceServiceRequest> {
    serde_json::from_slice(body)
}

/// One stored span for each span of an upload; an id of a wrong length refuses
/// the upload, as the specification asks.
pub(super) fn stored_spans(request: ExportTraceServiceRequest) -> std::result::Result<Vec<StoredSpan>, String> {
    let mut stored = Vec::new();
    for group in request.resource_spans {
        for scope in group.scope_spans {
            for span in scope.spans {
                if span.trace_id.len() != 16 || span.span_id.len() != 8 {
                    return Err("a span's ids do not have 16 and 8 bytes".to_owned());
                }
                let start_ns = span.start_time_unix_nano;
                let ids = Ids { trace: span.trace_id.clone(), span: span.span_id.clone() };
                let scope_spans = vec![ScopeSpans {
                    scope: scope.scope.clone(),
                    spans: vec![span],
                    schema_url: scope.schema_url.clone(),
                }];
                let one = ResourceSpans {
                    resource: group.resource.clone(),
                    scope_spans,
                    schema_url: group.schema_url.clone(),
                };
                let summary = Reader::new(&one).map(|reader| reader.summary()).ok_or("a span was lost")?;
                stored.push(StoredSpan { summary, ids, start_ns, span: one.encode_to_vec() });
            }
        }
    }
    Ok(stored)
}

/// The exchange in a stored span.
pub fn exchange(stored: &ResourceSpans) -> Result<Exchange> {
    let reader = Reader::new(stored).ok_or_else(|| Error::Store("a stored span is empty".into()))?;
    let peer = |address: &str, port: &str| {
        reader.text(address).map(|address| match reader.int(port) {
            Some(port) => format!("{address}:{port}"),
            None => address,
        })
    };
    Ok(Exchange {
        summary: reader.summary(),
        protocol: reader.text("network.protocol.version").map(|version| format!("HTTP/{version}")),
        source: peer("client.address", "client.port"),
        destination: peer("network.local.address", "network.local.port"),
        upstream: reader.text(own::UPSTREAM_ADDRESS),
        request: reader.message(&REQUEST),
        response: reader.message(&RESPONSE),
    })
}

/// Whether a span has this attribute, and it is true.
pub(super) fn is_true(stored: &ResourceSpans, name: &str) -> bool {
    Reader::new(stored).is_some_and(|reader| reader.flag(name))
}

/// What Softprobe calls a span.
pub(super) fn span_type(span: &Span) -> Option<&str> {
    let value = span.attributes.iter().find(|kv| kv.key == "sp.span.type")?.value.as_ref()?.value.as_ref()?;
    match value {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// When the parts of an exchange ended: `(request end, response start)`, ms from its start.
pub fn timings(stored: &ResourceSpans) -> (Option<f64>, Option<f64>) {
    let Some(reader) = Reader::new(stored) else { return (None, None) };
    let ms = |name: &str| reader.int(name).map(|ns| ns as f64 / 1e6);
    (ms(own::REQUEST_END_NS), ms(own::RESPONSE_START_NS))
}

/// The attribute names of one side.
struct Side {
    header: &'static str,
    order: &'static str,
    trailer: &'static str,
    size: &'static str,
    contents: [&'static str; 2],
    truncated: &'static str,
    decoded: &'static str,
    left_out: &'static str,
    encoding: &'static str,
}

const REQUEST: Side = Side {
    header: "http.request.header.",
    order: own::REQUEST_HEADER_ORDER,
    trailer: own::REQUEST_TRAILER,
    size: "http.request.body.size",
    contents: ["http.request.body.content", "http.request.body"],
    truncated: own::REQUEST_BODY_TRUNCATED,
    decoded: own::REQUEST_BODY_DECODED,
    left_out: own::REQUEST_BODY_LEFT_OUT,
    encoding: own::REQUEST_BODY_ENCODING,
};

const RESPONSE: Side = Side {
    header: "http.response.header.",
    order: own::RESPONSE_HEADER_ORDER,
    trailer: own::RESPONSE_TRAILER,
    size: "http.response.body.size",
    contents: ["http.response.body.content", "http.response.body"],
    truncated: own::RESPONSE_BODY_TRUNCATED,
    decoded: own::RESPONSE_BODY_DECODED,
    left_out: own::RESPONSE_BODY_LEFT_OUT,
    encoding: own::RESPONSE_BODY_ENCODING,
};

struct Reader<'a> {
    span: &'a Span,
    resource: &'a [KeyValue],
}

impl<'a> Reader<'a> {
    fn new(stored: &'a ResourceSpans) -> Option<Self> {
        let span = stored.scope_spans.first()?.spans.first()?;
        let resource = stored.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        Some(Self { span, resource })
    }

    fn summary(&self) -> Summary {
        let span = self.span;
        let id = hex(&span.span_id);
        let nanos = i128::from(span.start_time_unix_nano);
        let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let service = self.resource.iter().find(|kv| kv.key == "service.name").and_then(|kv| text(kv.value.as_ref()?));
        Summary {
            time: jiff::Timestamp::from_nanosecond(nanos).unwrap_or_default().to_string(),
            direction: self.direction(),
            method: self
                .first_text(&["http.request.method", "http.request.header.:method", "http.method"])
                .unwrap_or_default(),
            url: self.url(),
            status: self
                .first_int(&["http.response.status_code", "http.status_code"])
                .and_then(|n| u16::try_from(n).ok())
                .unwrap_or(0),
            duration_ms: duration as f64 / 1e6,
            service: service.or_else(|| self.text("sp.service.name")).unwrap_or_default(),
            trace_id: hex(&span.trace_id),
            parent_span_id: Some(hex(&span.parent_span_id)).filter(|id| !id.is_empty()),
            session_id: self.first_text(&["session.id", "sp.session.id"]),
            request_bytes: self.size(&REQUEST),
            response_bytes: self.size(&RESPONSE),
            truncated: self.flag(own::REQUEST_BODY_TRUNCATED) || self.flag(own::RESPONSE_BODY_TRUNCATED),
            aborted: self.flag(own::ABORTED),
            redacted: self.texts(own::REDACTED),
            span_id: id.clone(),
            id,
        }
    }

    fn direction(&self) -> String {
        let known = self.first_text(&[own::DIRECTION, "sp.traffic.direction"]);
        known.unwrap_or_else(|| {
            // opentelemetry.proto.trace.v1.Span.SpanKind: SERVER 2, CLIENT 3.
            match self.span.kind {
                2 => "inbound",
                3 => "outbound",
                _ => "auto",
            }
            .to_owned()
        })
    }

    fn url(&self) -> String {
        if let Some(full) = self.first_text(&["url.full", "http.url"]) {
            return full;
        }
        let path = self.first_text(&["url.path", "http.request.header.:path", "http.target"]).unwrap_or_default();
        match self.first_text(&["url.host", "http.request.header.:authority", "server.address"]) {
            Some(host) => format!(
                "{}://{host}{path}",
                self.first_text(&["url.scheme", "http.request.header.:scheme"]).unwrap_or_else(|| "http".into())
            ),
            None => path,
        }
    }

    fn message(&self, side: &Side) -> Message {
        Message { headers: self.headers(side), body: self.body(side), trailers: self.trailers(side) }
    }

    /// Names and values as they stood on the wire, pseudo headers left out.
    fn headers(&self, side: &Side) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for kv in &self.span.attributes {
            let Some(name) = kv.key.strip_prefix(side.header).filter(|name| !name.starts_with(':')) else { continue };
            headers.extend(values(kv.value.as_ref()).into_iter().map(|value| (name.to_owned(), value)));
        }
        let order = self.texts(side.order);
        if order.is_empty() {
            return headers;
        }
        // A repeated name had another one between its lines.
        let mut ordered = Vec::with_capacity(headers.len());
        for name in order {
            if let Some(at) = headers.iter().position(|(n, _)| *n == name) {
                ordered.push(headers.remove(at));
            }
        }
        ordered.append(&mut headers);
        ordered
    }

    fn trailers(&self, side: &Side) -> Vec<(String, String)> {
        let mut trailers = Vec::new();
        for kv in &self.span.attributes {
            if let Some(name) = kv.key.strip_prefix(side.trailer) {
                trailers.extend(values(kv.value.as_ref()).into_iter().map(|value| (name.to_owned(), value)));
            }
        }
        trailers
    }

    fn body(&self, side: &Side) -> Option<Body> {
        let size = self.size(side);
        let omitted = self.text(side.left_out);
        let content = side.contents.iter().find_map(|name| self.value(name));
        if content.is_none() && omitted.is_none() && size == 0 {
            return None;
        }
        let bytes = content.map(|value| self.content(side, value)).unwrap_or_default();
        let mut body = Body::new(bytes, size, self.flag(side.truncated));
        body.decoded_from = self.text(side.decoded);
        body.omitted = omitted;
        Some(body)
    }

    fn content(&self, side: &Side, value: &Value) -> Vec<u8> {
        use base64::Engine;
        match value {
            Value::BytesValue(bytes) => bytes.clone(),
            Value::StringValue(text) if self.text(side.encoding).as_deref() == Some("base64") => {
                base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_else(|_| text.clone().into_bytes())
            }
            Value::StringValue(text) => text.clone().into_bytes(),
            _ => Vec::new(),
        }
    }

    /// Bytes on the wire; where nobody counted them, those that were kept.
    fn size(&self, side: &Side) -> u64 {
        self.int(side.size).and_then(|n| u64::try_from(n).ok()).unwrap_or_else(|| {
            side.contents.iter().find_map(|name| self.value(name)).map_or(0, |value| match value {
                Value::StringValue(text) => text.len() as u64,
                Value::BytesValue(bytes) => bytes.len() as u64,
                _ => 0,
            })
        })
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.span.attributes.iter().find(|kv| kv.key == name)?.value.as_ref()?.value.as_ref()
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::StringValue(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.span.attributes.iter().find(|kv| kv.key == name).map(|kv| values(kv.value.as_ref())).unwrap_or_default()
    }

    fn int(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::IntValue(n) => Some(*n),
            Value::StringValue(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::BoolValue(true)))
    }

    fn first_text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.text(name))
    }

    fn first_int(&self, names: &[&str]) -> Option<i64> {
        names.iter().find_map(|name| self.int(name))
    }
}

/// A string, bytes, or an array of them, as texts.
fn values(value: Option<&AnyValue>) -> Vec<String> {
    match value.and_then(|v| v.value.as_ref()) {
        Some(Value::ArrayValue(array)) => array.values.iter().filter_map(text).collect(),
        Some(_) => value.and_then(text).into_iter().collect(),
        None => Vec::new(),
    }
}

fn text(value: &AnyValue) -> Option<String> {
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::BytesValue(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::IntValue(n) => Some(n.to_string()),
        Value::BoolValue(b) => Some(b.to_string()),
        Value::DoubleValue(n) => Some(n.to_string()),
        _ => None,
    }
}
