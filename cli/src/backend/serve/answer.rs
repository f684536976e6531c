//! The answer to a lookup: one span with a response, in the attributes that
//! Softprobe's proxies read.

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use spctl_plugin::attributes::{INJECT_SOURCE, RESPONSE_BODY_ENCODING};

use super::rules::Made;
use crate::backend::attributes::{attribute, headers as header_attributes};
use crate::exchange::{Encoding, Exchange};

/// What stands in place of a secret; see the filter's `redact`.
const REDACTED: &str = "REDACTED";

/// The response of a recorded exchange. Headers that lost a secret are left
/// out: half a cookie is worse than none.
pub(super) fn recorded(exchange: &Exchange) -> TracesData {
    let response = &exchange.response;
    let body = response.body.as_ref();
    let decoded = body.is_some_and(|body| body.decoded_from.is_some());
    let cleaned = exchange.summary.redacted.iter().any(|mark| mark.starts_with("response."));
    let kept = response.headers.iter().filter(|(name, value)| {
        !(cleaned && value.contains(REDACTED) || decoded && name.eq_ignore_ascii_case("content-encoding"))
    });
    let headers: Vec<(String, String)> = kept.cloned().collect();
    let mut attributes = head(&exchange.summary.id, exchange.summary.status, &headers);
    if let Some(body) = body.filter(|body| !body.data.is_empty()) {
        let form = if body.encoding == Encoding::Base64 { "base64" } else { "utf8" };
        attributes.push(attribute("http.response.body", Value::StringValue(body.data.clone())));
        attributes.push(attribute(RESPONSE_BODY_ENCODING, Value::StringValue(form.into())));
        if body.encoding == Encoding::Base64 {
            // As bytes too: older filters read the one, ours the other.
            attributes.push(attribute("http.response.body.content", Value::BytesValue(body.bytes())));
        }
    }
    span(attributes)
}

/// The response that a rule made up.
pub(super) fn made(source: &str, made: &Made) -> TracesData {
    let mut attributes = head(source, made.status, &made.headers);
    attributes.push(attribute("http.response.body", Value::StringValue(made.body.clone())));
    attributes.push(attribute(RESPONSE_BODY_ENCODING, Value::StringValue("utf8".into())));
    span(attributes)
}

fn head(source: &str, status: u16, headers: &[(String, String)]) -> Vec<KeyValue> {
    let mut attributes = vec![
        attribute("sp.span.type", Value::StringValue("inject".into())),
        attribute(INJECT_SOURCE, Value::StringValue(source.to_owned())),
        attribute("http.response.status_code", Value::IntValue(i64::from(status))),
    ];
    attributes.extend(header_attributes("http.response.header.", headers));
    attributes
}

fn span(attributes: Vec<KeyValue>) -> TracesData {
    let span = Span { name: "sp.inject.response".into(), attributes, ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}
