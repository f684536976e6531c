//! Span attributes as Softprobe's runtimes and service read them: strings
//! only, pseudo headers among the headers, `sp.*`.

use super::protobuf::Attributes;
use super::{grouped, same_name};
use crate::attributes::{self as own, SideNames};
use crate::exchange::Direction;
use crate::record::{Part, Record, Value, body_text};
use crate::redact::Content;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What Softprobe's service admits to its tables.
pub(super) const RESOURCE_TYPE: &str = "sp-envoy-proxy";

/// `span_type`: `extract` for what was seen, `inject` for what is asked.
pub(super) fn attributes(record: &Record<'_>, span_type: &str, out: &mut Attributes<'_>) {
    let exchange = record.exchange;
    out.string("sp.service.name", record.service);
    let direction = match exchange.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
        Direction::Unspecified => "auto",
    };
    out.string("sp.traffic.direction", direction);
    out.string("sp.span.type", span_type);
    if let Some(session) = &exchange.session {
        out.string("sp.session.id", session);
    }
    out.string("http.request.method", record.method);
    out.string("url.path", &record.path);
    out.string("url.host", record.authority);
    out.joined("url.full", &record.url());
    if let Some(status) = exchange.status {
        out.int("http.response.status_code", i64::from(status));
    }
    put_part(&own::REQUEST, &record.request, out);
    if let Some(response) = &record.response {
        put_part(&own::RESPONSE, response, out);
    }
}

fn put_part(names: &SideNames, part: &Part<'_>, out: &mut Attributes<'_>) {
    for (first, field) in grouped(part) {
        let values = same_name(&part.headers, first);
        if let (None, Value::Text(text)) = (values.clone().nth(1), &field.value) {
            out.named_string(names.header, &field.name, text);
            continue;
        }
        // Cookies are the one list that a comma does not join (RFC 9113 §8.2.3).
        let separator = if field.name == "cookie" { "; " } else { ", " };
        let texts: Vec<_> = values.clone().map(|f| f.value.text()).collect();
        out.named_string(names.header, &field.name, &texts.join(separator));
        out.byte_strings(names.values, &field.name, values.map(|f| f.value.bytes()));
    }
    if let Content::Kept { bytes, cut, .. } = &part.body {
        match body_text(bytes, part.textual, *cut) {
            Some(text) => {
                out.string(names.softprobe_content, text);
                out.string(names.encoding, "utf8");
            }
            None => {
                out.string(names.softprobe_content, &STANDARD.encode(bytes));
                out.string(names.encoding, "base64");
            }
        }
    }
}
