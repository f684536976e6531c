//! Writing messages, with the framing headers that Envoy's encoder adds.

use bytes::{BufMut, BytesMut};
use spctl_host::{Body, HeaderList};

use super::response::Asked;

/// How the body of a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunking {
    /// As it is, or not at all.
    Plain,
    Chunked,
    /// The message may have none: what comes of it is dropped.
    Bodiless,
}

fn header(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes everything but pseudo headers; true when a length was among them.
fn fields(out: &mut BytesMut, headers: &HeaderList) -> bool {
    let mut length = false;
    for (name, value) in headers.iter() {
        if name == b":authority" {
            header(out, b"host", value);
        } else if name.first() != Some(&b':') {
            length |= name == b"content-length";
            header(out, name, value);
        }
    }
    length
}

/// Writes a request's head.
/// `tunnel`: what follows is no HTTP.
pub(crate) fn request_head(out: &mut BytesMut, headers: &HeaderList, end_stream: bool, tunnel: bool) -> Chunking {
    let method = headers.get(b":method").unwrap_or(b"GET");
    let path = headers.get(b":path").unwrap_or(b"/");
    out.reserve(headers.byte_size() + headers.len() * 4 + 64);
    out.put_slice(method);
    out.put_slice(b" ");
    out.put_slice(path);
    out.put_slice(b" HTTP/1.1\r\n");
    let length = fields(out, headers);
    let chunking = if length || tunnel {
        Chunking::Plain
    } else if end_stream {
        if !matches!(method, b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT") {
            header(out, b"content-length", b"0");
        }
        Chunking::Plain
    } else {
        header(out, b"transfer-encoding", b"chunked");
        Chunking::Chunked
    };
    out.put_slice(b"\r\n");
    chunking
}

/// Writes the head of a response to what was asked.
pub(crate) fn response_head(out: &mut BytesMut, headers: &HeaderList, end_stream: bool, asked: Asked) -> Chunking {
    let to_head = asked == Asked::Head;
    let status = headers.get(b":status").unwrap_or(b"500");
    let code: u16 = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    out.reserve(headers.byte_size() + headers.len() * 4 + 64);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status);
    out.put_slice(b" ");
    out.put_slice(reason(code).as_bytes());
    out.put_slice(b"\r\n");
    let length = fields(out, headers);
    let bodiless_code = matches!(code, 100..=199 | 204);
    let chunking = if asked.is_accepted(code) {
        Chunking::Plain
    } else if length {
        if to_head || bodiless_code { Chunking::Bodiless } else { Chunking::Plain }
    } else if end_stream && !to_head {
        if !bodiless_code && code != 304 {
            header(out, b"content-length", b"0");
        }
        Chunking::Plain
    } else if bodiless_code {
        Chunking::Bodiless
    } else {
        header(out, b"transfer-encoding", b"chunked");
        if to_head { Chunking::Bodiless } else { Chunking::Chunked }
    };
    out.put_slice(b"\r\n");
    chunking
}

/// Writes data as one chunk.
pub(crate) fn chunk(out: &mut BytesMut, data: &Body) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 24);
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = data.len();
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
    data.chunks().for_each(|part| out.put_slice(part));
    out.put_slice(b"\r\n");
}

/// Ends a chunked body without trailers.
pub(crate) fn end_of_chunks(out: &mut BytesMut) {
    out.put_slice(b"0\r\n\r\n");
}

/// Ends a chunked body with trailers.
pub(crate) fn trailers(out: &mut BytesMut, trailers: &HeaderList) {
    out.put_slice(b"0\r\n");
    fields(out, trailers);
    out.put_slice(b"\r\n");
}

/// Envoy's reason phrases.
fn reason(code: u16) -> &'static str {
    match code {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}
