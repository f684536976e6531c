//! Heads of responses, as Envoy's header map has them.

use bytes::{Buf, BytesMut};
use spctl_host::{HeaderKind, HeaderList};

use super::framing::{Coding, Framing, Seen};
use super::lines::{end_of_head, fields, line_len};
use super::request::MAX_HEADERS;

/// Envoy's default `max_response_headers_kb`, of a whole head.
const MAX_HEAD: usize = 80 << 10;

/// A response's head, read.
pub(crate) struct Response {
    pub(crate) headers: HeaderList,
    pub(crate) code: u16,
    pub(crate) framing: Framing,
    pub(crate) close: bool,
}

/// The response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadResponse;

/// What was asked, as far as an answer's framing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Asked {
    #[default]
    Anything,
    Head,
    /// To change the protocol: what follows a yes is no HTTP/1.
    Upgrade,
    Connect,
}

/// Reads a response's head from the front of the buffer, if all of it is there.
/// `seen` belongs to the buffer: 0 for each new response.
pub(crate) fn parse_response(
    buffer: &mut BytesMut,
    seen: &mut usize,
    mut headers: HeaderList,
    asked: Asked,
) -> Result<Option<Response>, BadResponse> {
    let Some(len) = end_of_head(buffer, seen) else {
        let hopeless = buffer.len() > MAX_HEAD || buffer.first().is_some_and(|byte| *byte != b'H');
        return if hopeless { Err(BadResponse) } else { Ok(None) };
    };
    *seen = 0;
    if len > MAX_HEAD {
        return Err(BadResponse);
    }
    headers.reset(HeaderKind::Response);
    let response = read(&buffer[..len], headers, asked)?;
    buffer.advance(len);
    Ok(Some(response))
}

fn read(head: &[u8], mut headers: HeaderList, asked: Asked) -> Result<Response, BadResponse> {
    let (line, lines) = head.split_at(line_len(head));
    let (code, is_http_11) = status_line(line)?;
    let mut seen = Seen::default();
    headers.add(b":status", code.to_string().as_bytes());
    for (count, field) in fields(lines).enumerate() {
        let field = field.map_err(|_| BadResponse)?;
        if count == MAX_HEADERS {
            return Err(BadResponse);
        }
        seen.note(&field);
        headers.add(field.name, &field.value);
    }
    if seen.is_contradictory() || seen.coding == Some(Coding::Other) {
        return Err(BadResponse);
    }
    let interim = matches!(code, 100..=199);
    if (interim || code == 204) && (seen.coding.is_some() || seen.length.is_some_and(|length| length > 0)) {
        return Err(BadResponse);
    }
    if (interim || code == 204) && seen.length.is_some() {
        headers.remove(b"content-length");
    }
    let accepted = (asked == Asked::Upgrade && code == 101) || (asked == Asked::Connect && matches!(code, 200..=299));
    let framing = match seen.length {
        _ if accepted => Framing::UntilClose,
        _ if asked == Asked::Head || interim || matches!(code, 204 | 304) => Framing::None,
        _ if seen.coding.is_some() => Framing::Chunked,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    let close = seen.close || (!is_http_11 && !seen.keep_alive) || framing == Framing::UntilClose || code == 101;
    Ok(Response { headers, code, framing, close })
}

fn status_line(line: &[u8]) -> Result<(u16, bool), BadResponse> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (Some(version), Some(code)) = (words.next(), words.next()) else { return Err(BadResponse) };
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    let code = std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    match code.and_then(|code| code.parse().ok()) {
        Some(code) if is_version && code >= 100 => Ok((code, version == b"HTTP/1.1")),
        _ => Err(BadResponse),
    }
}
