//! Heads of requests, as Envoy's header map has them.

use bytes::{Buf, BytesMut};
use spctl_host::{HeaderKind, HeaderList};

use super::framing::{Coding, Framing, Seen};
use super::lines::{end_of_head, fields, line_len};
use super::target::{is_target, split_target};

/// Envoy's default `max_request_headers_kb`, of a whole head.
pub(crate) const MAX_HEAD: usize = 60 << 10;
/// Envoy's default `max_headers_count`.
pub(super) const MAX_HEADERS: usize = 100;

/// A request's head, read.
pub(crate) struct Request {
    pub(crate) headers: HeaderList,
    pub(crate) framing: Framing,
    /// The client wants the connection closed after this.
    pub(crate) close: bool,
    pub(crate) expects_continue: bool,
    /// What follows is no HTTP/1 once this is answered: `CONNECT`, or a
    /// protocol to change to.
    pub(crate) tunnel: bool,
}

/// Why Envoy refuses a request that it cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadRequest {
    Malformed,
    InvalidUrl,
    InvalidScheme,
    ConnectionHeader,
    LengthAndCoding,
    BodyDisallowed,
    InvalidHost,
    TooLarge,
    TooManyHeaders,
    UnknownCoding,
    OldProtocol,
}

impl BadRequest {
    /// Status, body and Envoy's details of the answer.
    pub(crate) fn answer(self) -> (u16, &'static str, &'static str) {
        let (code, details) = match self {
            Self::Malformed => (400, "http1.codec_error"),
            Self::InvalidUrl => (400, "http1.invalid_url"),
            Self::InvalidScheme => (400, "http1.invalid_scheme"),
            Self::ConnectionHeader => (400, "http1.connection_header_rejected"),
            Self::LengthAndCoding => (400, "http1.content_length_and_chunked_not_allowed"),
            Self::BodyDisallowed => (400, "http1.body_disallowed"),
            Self::InvalidHost => (400, "http.invalid_authority"),
            Self::TooLarge => (431, "http1.headers_too_large"),
            Self::TooManyHeaders => (431, "http1.too_many_headers"),
            Self::UnknownCoding => (501, "http1.invalid_transfer_encoding"),
            Self::OldProtocol => (426, "low_version"),
        };
        let text = match code {
            400 => "Bad Request",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            _ => "Not Implemented",
        };
        (code, text, details)
    }
}

/// Reads a request's head from the front of the buffer, if all of it is there.
/// `seen` belongs to the buffer: 0 for each new request.
pub(crate) fn parse_request(
    buffer: &mut BytesMut,
    seen: &mut usize,
    mut headers: HeaderList,
) -> Result<Option<Request>, BadRequest> {
    if *seen == 0 {
        skip_empty_lines(buffer);
    }
    let Some(len) = end_of_head(buffer, seen) else {
        return check_beginning(buffer).map(|()| None);
    };
    *seen = 0;
    if len > MAX_HEAD {
        return Err(BadRequest::TooLarge);
    }
    headers.reset(HeaderKind::Request);
    let request = read(&buffer[..len], headers)?;
    buffer.advance(len);
    Ok(Some(request))
}

/// Lines between requests are noise that older clients send.
fn skip_empty_lines(buffer: &mut BytesMut) {
    let noise = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    buffer.advance(noise);
}

/// What cannot become a request is refused before all of it is there.
fn check_beginning(buffer: &BytesMut) -> Result<(), BadRequest> {
    let Some(first) = buffer.first() else { return Ok(()) };
    if !METHODS.iter().any(|method| method[0] == *first) {
        return Err(BadRequest::Malformed);
    }
    if buffer.len() > MAX_HEAD {
        return Err(BadRequest::TooLarge);
    }
    let len = line_len(buffer);
    if buffer[..len].ends_with(b"\n") { request_line(&buffer[..len]).map(|_| ()) } else { Ok(()) }
}

fn read(head: &[u8], mut headers: HeaderList) -> Result<Request, BadRequest> {
    let (line, lines) = head.split_at(line_len(head));
    let line = request_line(line)?;
    let connect = line.method == b"CONNECT";
    let target = split_target(line.target, line.method)?;
    let mut seen = Seen::default();
    let mut count = 0;
    headers.add(b":authority", target.authority.unwrap_or_default());
    if let Some(path) = target.path {
        headers.add(b":path", path);
    }
    headers.add(b":method", line.method);
    if let Some(scheme) = target.scheme {
        headers.add(b":scheme", scheme);
    }
    for field in fields(lines) {
        let field = field.map_err(|_| BadRequest::Malformed)?;
        count += 1;
        if count > MAX_HEADERS {
            return Err(BadRequest::TooManyHeaders);
        }
        seen.note(&field);
        // The authority of an absolute target stands for any host.
        if target.authority.is_none() || !field.name.eq_ignore_ascii_case(b"host") {
            headers.add(field.name, &field.value);
        }
    }
    if target.authority.is_none() && seen.hosts == 0 {
        headers.remove(b":authority");
    }
    let tunnel = settle_upgrade(&mut headers, &seen) || connect;
    check_framing(&seen, connect)?;
    if !line.is_http_11 {
        return Err(BadRequest::OldProtocol);
    }
    if seen.bad_nominee {
        return Err(BadRequest::ConnectionHeader);
    }
    if headers.get(b":authority").is_some_and(|host| !host.iter().copied().all(super::chars::is_host)) {
        return Err(BadRequest::InvalidHost);
    }
    let framing = match seen.length {
        _ if tunnel => Framing::UntilClose,
        _ if seen.coding.is_some() => Framing::Chunked,
        Some(length) if length > 0 => Framing::Length(length),
        _ => Framing::None,
    };
    Ok(Request { headers, framing, close: seen.close, expects_continue: seen.expects_continue, tunnel })
}

/// Envoy's parser: any white space between the three words of a request line.
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    is_http_11: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, BadRequest> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let mut words = line.split(is_blank).filter(|word| !word.is_empty());
    let (Some(method), Some(target), version, None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(BadRequest::Malformed);
    };
    if line.first().is_some_and(is_blank)
        || !METHODS.contains(&method)
        || !is_target(target, method == b"CONNECT")
        || version.is_some_and(|version| !is_version(version))
    {
        return Err(BadRequest::Malformed);
    }
    Ok(RequestLine { method, target, is_http_11: version == Some(b"HTTP/1.1") })
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Takes away an offer of HTTP/2, which Envoy ignores; true if another protocol
/// is offered.
fn settle_upgrade(headers: &mut HeaderList, seen: &Seen) -> bool {
    let Some(upgrade) = headers.get(b"upgrade").filter(|_| seen.upgrade) else { return false };
    if !upgrade.eq_ignore_ascii_case(b"h2c") {
        return !upgrade.is_empty();
    }
    headers.remove(b"upgrade");
    headers.remove(b"http2-settings");
    false
}

fn check_framing(seen: &Seen, connect: bool) -> Result<(), BadRequest> {
    if seen.bad_length {
        return Err(BadRequest::Malformed);
    }
    if connect && seen.length.is_some_and(|length| length > 0) {
        return Err(BadRequest::BodyDisallowed);
    }
    if seen.is_contradictory() {
        return Err(BadRequest::LengthAndCoding);
    }
    match seen.coding {
        Some(Coding::Other) => Err(BadRequest::UnknownCoding),
        Some(Coding::Chunked) if connect => Err(BadRequest::UnknownCoding),
        _ => Ok(()),
    }
}

/// Those that Envoy's parser knows.
const METHODS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"PATCH",
    b"OPTIONS",
    b"CONNECT",
    b"TRACE",
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"MSEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];
