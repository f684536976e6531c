//! Heads: request and status lines with their headers, as Envoy's map has them.

use bytes::{Buf, BytesMut};
use httparse::Status;
use spctl_host::{HeaderKind, HeaderList};

use super::body::Framing;

/// Envoy's default `max_request_headers_kb`, and its limit for responses.
pub(crate) const MAX_HEAD: usize = 60 << 10;
/// Envoy's default `max_headers_count`.
const MAX_HEADERS: usize = 100;

/// A request's head, read.
pub(crate) struct Request {
    pub(crate) headers: HeaderList,
    pub(crate) framing: Framing,
    /// The client wants the connection closed after this.
    pub(crate) close: bool,
    pub(crate) expects_continue: bool,
}

/// A response's head, read.
pub(crate) struct Response {
    pub(crate) headers: HeaderList,
    pub(crate) code: u16,
    pub(crate) framing: Framing,
    pub(crate) close: bool,
}

/// How Envoy refuses a request that it cannot read.
#[derive(Debug, PartialEq)]
pub(crate) enum BadRequest {
    Malformed,
    TooLarge,
    UnknownCoding,
    OldProtocol,
    /// Refused once the head has been read.
    Invalid(HeaderList),
}

/// Why a response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadResponse;

/// What the framing headers of a message say.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    bad_length: bool,
    chunked: bool,
    other_coding: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Seen {
    fn note(&mut self, name: &[u8], value: &[u8]) {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            14 if is(b"content-length") => {
                let length = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                match (length.and_then(|text| text.parse().ok()), self.length) {
                    (Some(length), None) => self.length = Some(length),
                    _ => self.bad_length = true,
                }
            }
            17 if is(b"transfer-encoding") => {
                if value.eq_ignore_ascii_case(b"chunked") {
                    self.chunked = true;
                } else {
                    self.other_coding = true;
                }
            }
            10 if is(b"connection") => {
                for token in tokens(value) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            6 if is(b"expect") => self.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Reads a request's head from the front of the buffer, if all of it is there.
pub(crate) fn parse_request(buffer: &mut BytesMut, mut headers: HeaderList) -> Result<Option<Request>, BadRequest> {
    skip_empty_lines(buffer);
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut slots);
    let len = match head.parse(buffer) {
        Ok(Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(Status::Partial) if buffer.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooLarge),
        Err(_) => return Err(BadRequest::Malformed),
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(BadRequest::Malformed);
    };
    if !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_') {
        return Err(BadRequest::Malformed);
    }
    headers.reset(HeaderKind::Request);
    let (authority, path) = split_target(method, target);
    let mut seen = Seen::default();
    if let Some(authority) = authority {
        headers.add(b":authority", authority.as_bytes());
    } else if let Some(host) = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host")) {
        headers.add(b":authority", host.value);
    }
    if method != "CONNECT" {
        headers.add(b":path", path.as_bytes());
    }
    headers.add(b":method", method.as_bytes());
    for header in head.headers.iter() {
        let name = header.name.as_bytes();
        seen.note(name, header.value);
        if !name.eq_ignore_ascii_case(b"host") {
            headers.add(name, header.value);
        }
    }
    if head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count() > 1 {
        return Err(BadRequest::Malformed);
    }
    if seen.bad_length || (seen.chunked && seen.length.is_some()) {
        return Err(BadRequest::Malformed);
    }
    if seen.other_coding {
        return Err(BadRequest::UnknownCoding);
    }
    if version == 0 {
        return Err(BadRequest::OldProtocol);
    }
    let method_is_connect = method == "CONNECT";
    let invalid = !headers.contains(b":authority") || path.contains('#');
    let framing = match seen.length {
        _ if seen.chunked => Framing::Chunked,
        Some(length) if length > 0 => Framing::Length(length),
        _ => Framing::None,
    };
    buffer.advance(len);
    if invalid {
        return Err(BadRequest::Invalid(headers));
    }
    Ok(Some(Request {
        headers,
        framing,
        // What follows a CONNECT is no request of ours.
        close: seen.close || method_is_connect,
        expects_continue: seen.expects_continue,
    }))
}

/// Lines between requests are noise that older clients send.
fn skip_empty_lines(buffer: &mut BytesMut) {
    let noise = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    buffer.advance(noise);
}

/// The authority of an absolute target, and the path Envoy routes by.
fn split_target<'a>(method: &str, target: &'a str) -> (Option<&'a str>, &'a str) {
    if method == "CONNECT" {
        return (Some(target), "");
    }
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return (None, target);
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => (Some(&rest[..at]), &rest[at..]),
        Some(at) => (Some(&rest[..at]), &rest[at..]),
        None => (Some(rest), "/"),
    }
}

/// Reads a response's head from the front of the buffer, if all of it is there.
pub(crate) fn parse_response(
    buffer: &mut BytesMut,
    mut headers: HeaderList,
    to_head: bool,
) -> Result<Option<Response>, BadResponse> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut slots);
    let len = match head.parse(buffer) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) if buffer.len() <= MAX_HEAD => return Ok(None),
        _ => return Err(BadResponse),
    };
    let (Some(code), Some(version)) = (head.code, head.version) else { return Err(BadResponse) };
    headers.reset(HeaderKind::Response);
    let mut seen = Seen::default();
    headers.add(b":status", code.to_string().as_bytes());
    for header in head.headers.iter() {
        seen.note(header.name.as_bytes(), header.value);
        headers.add(header.name.as_bytes(), header.value);
    }
    if seen.bad_length || seen.other_coding || (seen.chunked && seen.length.is_some()) {
        return Err(BadResponse);
    }
    let framing = match seen.length {
        _ if to_head || matches!(code, 100..=199 | 204 | 304) => Framing::None,
        _ if seen.chunked => Framing::Chunked,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    let close = seen.close || (version == 0 && !seen.keep_alive) || framing == Framing::UntilClose;
    buffer.advance(len);
    Ok(Some(Response { headers, code, framing, close }))
}
