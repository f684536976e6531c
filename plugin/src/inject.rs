//! Answers from the backend instead of the upstream (`POST /v1/inject`): what a
//! lookup's answer means, and how a stream waits for it.
//!
//! Softprobe's proxy protocol: one span asks; 200 with a span is the recorded
//! response, 404 a miss, everything else a failure.

use crate::attributes::{INJECT_SOURCE, RESPONSE_BODY_ENCODING};
use crate::config::Inject;
use crate::exchange::{Direction, Head};
use crate::policy::{host_without_port, text};
use crate::waiting::BodyWait;
use crate::wire::protobuf::{self, AnyValue};
use std::rc::Rc;

/// Response header that marks an injected answer; names the exchange or rule
/// that it comes from.
pub const MARK: &str = "x-softprobe-injected";
/// Longest answer that is read.
pub const MAX_ANSWER: usize = 16 << 20;

/// What the backend's answer means.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Hit(Reply),
    Miss,
    /// Why there is no answer.
    Failure(&'static str),
}

/// A recorded response, as it may be sent again.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The end of the request's body.
    Body,
    /// The answer to this call.
    Answer(u32),
    /// Nothing any more: the request goes on with its next part. Envoy before
    /// 1.40 loses that part when it is told so from elsewhere.
    Over,
}

/// A request that is held.
#[derive(Debug)]
pub struct Wait {
    pub stage: Stage,
    /// Bytes of the body in the host's buffer, all of them seen.
    pub held: usize,
    /// The request was seen to its end.
    pub ended: bool,
    /// Shared with the root, which ends the wait for a body.
    pub body: Option<Rc<BodyWait>>,
}

/// Whether the backend is asked about a request.
pub fn asks(inject: &Inject, head: &Head<'_>, direction: Direction) -> bool {
    if !inject.enabled || head.connect || head.grpc {
        // Trailers, which carry the status of gRPC, cannot be replied.
        return false;
    }
    if inject.direction.is_some_and(|wanted| direction != Direction::Unspecified && wanted != direction) {
        return false;
    }
    let (host, path) = (text(host_without_port(head.authority)), text(head.path_without_query()));
    inject.rules.is_empty() || inject.rules.iter().any(|rule| rule.matches(&host, &path))
}

/// Reads an answer; `status` 0 stands for none at all.
pub fn read(status: u16, body: &[u8]) -> Answer {
    match status {
        200 => recorded(body).map_or(Answer::Miss, Answer::Hit),
        404 => Answer::Miss,
        0 => Answer::Failure("no_answer"),
        401 | 403 => Answer::Failure("unauthorized"),
        504 => Answer::Failure("timeout"),
        _ => Answer::Failure("bad_status"),
    }
}

/// The first span that holds a response: `TracesData` → `ResourceSpans` →
/// `ScopeSpans` → `Span` (opentelemetry/proto/trace/v1/trace.proto).
fn recorded(body: &[u8]) -> Option<Reply> {
    let nested = |message, field| protobuf::fields(message).filter_map(move |f| f.bytes(field));
    nested(body, 1).flat_map(|r| nested(r, 2)).flat_map(|s| nested(s, 2)).find_map(reply)
}

fn reply(span: &[u8]) -> Option<Reply> {
    const ATTRIBUTES: u32 = 9;
    let mut reply = Reply { status: 200, headers: Vec::new(), body: Vec::new() };
    let (mut found, mut base64, mut raw, mut source) = (false, false, false, "");
    for attribute in protobuf::fields(span).filter_map(|field| field.bytes(ATTRIBUTES)) {
        let Some((key, value)) = protobuf::key_value(attribute) else { continue };
        match (key, value) {
            ("http.response.status_code", value) => {
                reply.status = value.int().and_then(|n| u16::try_from(n).ok()).filter(|s| (200..600).contains(s))?;
                found = true;
            }
            ("http.response.body" | "http.response.body.content", AnyValue::String(text)) => {
                (reply.body, raw, found) = (text.as_bytes().to_vec(), false, true);
            }
            ("http.response.body.content", AnyValue::Bytes(bytes)) => {
                (reply.body, raw, found) = (bytes.to_vec(), true, true);
            }
            (RESPONSE_BODY_ENCODING, AnyValue::String(form)) => base64 = form == "base64",
            (INJECT_SOURCE, AnyValue::String(id)) => source = id,
            (key, value) => {
                let Some(name) = key.strip_prefix("http.response.header.") else { continue };
                found = true;
                value.each_text(|text| reply.headers.push((name.to_ascii_lowercase(), text.to_vec())));
            }
        }
    }
    if base64 && !raw {
        // The bytes themselves come in `http.response.body.content`, from our backend.
        return None;
    }
    reply.headers.retain(|(name, value)| is_safe(name, raw) && value.iter().all(|b| !matches!(b, b'\r' | b'\n' | 0)));
    let source = if source.is_empty() || !source.bytes().all(|b| b.is_ascii_graphic()) { "hit" } else { source };
    reply.headers.push((MARK.to_owned(), source.as_bytes().to_vec()));
    found.then_some(reply)
}

/// Whether a recorded header may be sent again: not those of the message's
/// framing or of one hop, and the coding only of bytes that still are coded.
fn is_safe(name: &str, raw: bool) -> bool {
    let framing = name.is_empty()
        || name.starts_with([':', ' '])
        || name.starts_with("proxy-")
        || name == MARK
        || matches!(
            name,
            "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "content-length"
                | "date"
                | "grpc-status"
                | "grpc-message"
        );
    !framing && (raw || name != "content-encoding") && name.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
