//! HTTP Archive 1.2 (har-spec, `versions/1.2.md`).

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use serde_json::{Map, Value, json};

use crate::backend::{exchange, timings};
use crate::error::Result;
use crate::exchange::{Body, Encoding, Exchange, Message};

/// The whole archive; entries by start time.
pub(super) fn har(spans: &[ResourceSpans]) -> Result<Value> {
    let mut entries = Vec::new();
    for span in spans {
        let exchange = exchange(span)?;
        entries.push((exchange.summary.time.clone(), entry(&exchange, timings(span))));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let entries: Vec<Value> = entries.into_iter().map(|(_, entry)| entry).collect();
    Ok(json!({"log": {
        "version": "1.2",
        "creator": {"name": "spctl", "version": env!("CARGO_PKG_VERSION")},
        "entries": entries,
    }}))
}

fn entry(exchange: &Exchange, (request_end, response_start): (Option<f64>, Option<f64>)) -> Value {
    let summary = &exchange.summary;
    let total = summary.duration_ms;
    let send = request_end.unwrap_or(0.0).clamp(0.0, total);
    let wait_until = response_start.unwrap_or(total).clamp(send, total);
    let protocol = exchange.protocol.clone().unwrap_or_else(|| "unknown".into());
    let mut entry = json!({
        "startedDateTime": milliseconds(&summary.time),
        "time": total,
        "request": request(exchange, &protocol),
        "response": response(exchange, &protocol),
        "cache": {},
        "timings": {"send": send, "wait": wait_until - send, "receive": total - wait_until},
        "_traceId": summary.trace_id,
        "_spanId": summary.span_id,
        "_direction": summary.direction,
        "_service": summary.service,
    });
    let mut set = |name: &str, value: Option<String>| {
        if let (Some(map), Some(value)) = (entry.as_object_mut(), value) {
            map.insert(name.to_owned(), Value::String(value));
        }
    };
    set("_session", summary.session_id.clone());
    set(
        "serverIPAddress",
        exchange
            .upstream
            .as_deref()
            .and_then(|a| a.rsplit_once(':'))
            .map(|(ip, _)| ip.trim_matches(['[', ']']).to_owned()),
    );
    entry
}

fn request(exchange: &Exchange, protocol: &str) -> Value {
    let message = &exchange.request;
    let url = exchange.summary.url.split('#').next().unwrap_or_default();
    let mut request = json!({
        "method": exchange.summary.method,
        "url": url,
        "httpVersion": protocol,
        "cookies": cookies(message, "cookie"),
        "headers": pairs(&message.headers),
        "queryString": query(url),
        "headersSize": -1,
        "bodySize": exchange.summary.request_bytes,
    });
    if let (Some(body), Some(map)) =
        (message.body.as_ref().filter(|body| !body.data.is_empty()), request.as_object_mut())
    {
        map.insert("postData".into(), post_data(body, message.header("content-type").unwrap_or_default()));
    }
    request
}

/// HAR 1.2 has no encoding for request bodies: binary ones are base64 with a
/// private mark.
fn post_data(body: &Body, mime: &str) -> Value {
    let mut data = json!({"mimeType": mime, "text": body.data});
    let mut set = |name: &str, value: Value| {
        if let Some(map) = data.as_object_mut() {
            map.insert(name.to_owned(), value);
        }
    };
    if body.encoding == Encoding::Base64 {
        set("_encoding", json!("base64"));
    }
    if body.truncated {
        set("_truncated", json!(true));
    }
    data
}

fn response(exchange: &Exchange, protocol: &str) -> Value {
    let message = &exchange.response;
    let status = exchange.summary.status;
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    json!({
        "status": status,
        "statusText": reason,
        "httpVersion": protocol,
        "cookies": cookies(message, "set-cookie"),
        "headers": pairs(&message.headers),
        "content": content(message, exchange.summary.response_bytes),
        "redirectURL": message.header("location").unwrap_or_default(),
        "headersSize": -1,
        "bodySize": exchange.summary.response_bytes,
    })
}

fn content(message: &Message, wire_size: u64) -> Value {
    let mime = message.header("content-type").unwrap_or("x-unknown");
    let mut content = Map::new();
    let body = message.body.as_ref();
    let size = body.filter(|b| b.decoded_from.is_some()).map_or(wire_size, |b| b.bytes().len() as u64);
    content.insert("size".into(), json!(size));
    content.insert("mimeType".into(), json!(mime));
    if let Some(body) = body.filter(|body| !body.data.is_empty()) {
        content.insert("text".into(), json!(body.data));
        if body.encoding == Encoding::Base64 {
            content.insert("encoding".into(), json!("base64"));
        }
        if body.truncated {
            content.insert("_truncated".into(), json!(true));
        }
    }
    Value::Object(content)
}

fn pairs(headers: &[(String, String)]) -> Vec<Value> {
    headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// `cookie: a=1; b=2`, or one `set-cookie` a line with its attributes left out.
fn cookies(message: &Message, header: &str) -> Vec<Value> {
    let lines = message.headers.iter().filter(|(name, _)| name == header).map(|(_, value)| value);
    let cookies = lines.flat_map(|line| {
        if header == "cookie" { line.split(';').collect::<Vec<_>>() } else { line.split(';').take(1).collect() }
    });
    cookies
        .filter_map(|cookie| cookie.trim().split_once('='))
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect()
}

fn query(url: &str) -> Vec<Value> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    form_urlencoded::parse(query.as_bytes()).map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// HAR wants milliseconds at least; nanoseconds confuse some readers.
fn milliseconds(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| time.to_owned(), |t| format!("{t:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parts_are_decoded() {
        assert_eq!(
            query("http://a/?q=a+b%20%zz&flag"),
            [json!({"name": "q", "value": "a b %zz"}), json!({"name": "flag", "value": ""})]
        );
    }
}
