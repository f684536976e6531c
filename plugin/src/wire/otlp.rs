//! Span attributes by the OpenTelemetry semantic conventions for HTTP
//! (docs/http/http-spans.md and the `http`, `url`, `network` registries).

use super::protobuf::Attributes;
use super::{grouped, known_method, same_name};
use crate::attributes::{self as own, SideNames};
use crate::exchange::Direction;
use crate::policy::split_authority;
use crate::record::{Part, Record, Value, body_text};
use crate::redact::Content;

pub(super) fn attributes(record: &Record<'_>, out: &mut Attributes<'_>) {
    let exchange = record.exchange;
    if known_method(record.method) {
        out.string("http.request.method", record.method);
    } else {
        out.string("http.request.method", "_OTHER");
        out.string("http.request.method_original", record.method);
    }
    let (path, query) = record.path.split_once('?').unwrap_or((&record.path, ""));
    out.string("url.path", path);
    if !query.is_empty() {
        out.string("url.query", query);
    }
    if !record.scheme.is_empty() {
        out.string("url.scheme", record.scheme);
    }
    out.joined("url.full", &record.url());
    put_server(record, out);
    match exchange.status {
        Some(status) => {
            out.int("http.response.status_code", i64::from(status));
            if super::is_error(record) {
                out.string("error.type", &status.to_string());
            }
        }
        None => out.string("error.type", "aborted"),
    }
    if let Some(agent) = &record.user_agent {
        out.string("user_agent.original", agent);
    }
    if let Some(session) = &exchange.session {
        out.string("session.id", session);
    }
    put_peers(record, out);
    let pseudo = record.request.headers.iter().filter(|f| f.is_pseudo());
    let texts: Vec<_> = pseudo.flat_map(|f| [f.name.as_ref().into(), f.value.text()]).collect();
    out.strings(own::PSEUDO_HEADERS, "", texts.iter().map(|t| t.as_ref()));
    put_part(&own::REQUEST, &record.request, out);
    if let Some(response) = &record.response {
        put_part(&own::RESPONSE, response, out);
    }
}

fn put_server(record: &Record<'_>, out: &mut Attributes<'_>) {
    let (host, port) = split_authority(record.authority.as_bytes());
    if host.is_empty() {
        return;
    }
    out.string("server.address", &String::from_utf8_lossy(host));
    let standard = if record.scheme == "https" { 443 } else { 80 };
    out.int("server.port", i64::from(port.unwrap_or(standard)));
}

fn put_peers(record: &Record<'_>, out: &mut Attributes<'_>) {
    let peers = &record.exchange.peers;
    let outbound = record.direction() == Direction::Outbound;
    if let Some(version) = peers.protocol.as_deref().and_then(|p| p.strip_prefix("HTTP/")) {
        out.string("network.protocol.version", version);
    }
    if let Some(source) = &peers.source {
        put_address(source, "client.address", "client.port", out);
        if !outbound {
            put_address(source, "network.peer.address", "network.peer.port", out);
        }
    }
    if let Some(destination) = &peers.destination {
        put_address(destination, "network.local.address", "network.local.port", out);
    }
    match &peers.upstream {
        Some(upstream) if outbound => put_address(upstream, "network.peer.address", "network.peer.port", out),
        Some(upstream) => out.string(own::UPSTREAM_ADDRESS, upstream),
        None => {}
    }
}

fn put_address(text: &str, address: &str, port: &str, out: &mut Attributes<'_>) {
    let (host, number) = split_authority(text.as_bytes());
    out.string(address, String::from_utf8_lossy(host).trim_matches(['[', ']']));
    if let Some(number) = number {
        out.int(port, i64::from(number));
    }
}

fn put_part(names: &SideNames, part: &Part<'_>, out: &mut Attributes<'_>) {
    for (first, field) in grouped(part) {
        if field.is_pseudo() {
            continue;
        }
        if let (false, Value::Text(text)) = (part.repeats, &field.value) {
            out.lone_string(names.header, &field.name, text);
            continue;
        }
        let values = same_name(&part.headers, first);
        let texts: Vec<_> = values.clone().map(|f| f.value.text()).collect();
        out.strings(names.header, &field.name, texts.iter().map(|t| t.as_ref()));
        if values.clone().any(|f| matches!(f.value, Value::Bytes(_))) {
            out.byte_strings(names.values, &field.name, values.map(|f| f.value.bytes()));
        }
    }
    if let Content::Kept { bytes, cut, .. } = &part.body {
        match body_text(bytes, part.textual, *cut) {
            Some(text) => out.string(names.content, text),
            None => out.bytes(names.content, bytes),
        }
    }
}
