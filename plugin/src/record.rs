//! A finished exchange as it may leave the filter: redacted, borrowed where
//! nothing changed. The wires encode this and see nothing else.

use crate::config::Config;
use crate::exchange::{Direction, Exchange, Message};
use crate::headers::Headers;
use crate::redact::{BodyType, Content, Marks, Redactor, Side};
use std::borrow::Cow;

/// A header or trailer.
#[derive(Debug)]
pub struct Field<'a> {
    pub name: Cow<'a, str>,
    pub value: Value<'a>,
}

impl Field<'_> {
    pub fn is_pseudo(&self) -> bool {
        self.name.starts_with(':')
    }
}

/// A value, told apart once.
#[derive(Debug)]
pub enum Value<'a> {
    Text(Cow<'a, str>),
    /// Not UTF-8.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn new(value: Cow<'a, [u8]>) -> Value<'a> {
        match value {
            Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(Cow::Borrowed(text)),
                Err(_) => Value::Bytes(bytes),
            },
            // Only redaction makes new values; what is not text in them is lost.
            Cow::Owned(bytes) => Value::Text(Cow::Owned(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
            })),
        }
    }

    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Text(text) => text.as_bytes(),
            Value::Bytes(bytes) => bytes,
        }
    }
}

/// Text of bytes that almost always are text.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// One side, redacted.
#[derive(Debug)]
pub struct Part<'a> {
    pub headers: Vec<Field<'a>>,
    /// Some header has several lines.
    pub repeats: bool,
    pub trailers: Vec<Field<'a>>,
    pub body: Content<'a>,
    /// Bytes on the wire.
    pub size: u64,
    /// The content type says text, or says nothing.
    pub textual: bool,
}

/// A redacted exchange.
#[derive(Debug)]
pub struct Record<'a> {
    pub exchange: &'a Exchange,
    pub service: &'a str,
    pub method: &'a str,
    pub scheme: &'a str,
    pub authority: &'a str,
    /// With its query.
    pub path: Cow<'a, str>,
    pub user_agent: Option<&'a str>,
    pub request: Part<'a>,
    /// `None`: the stream ended without one.
    pub response: Option<Part<'a>>,
    pub marks: Marks,
}

impl<'a> Record<'a> {
    pub fn new(exchange: &'a Exchange, config: &Config, service: &'a str) -> Record<'a> {
        let mut marks = Marks::default();
        let redact = &config.redact;
        let limits = &config.limits;
        let request = part(redact, Side::Request, &exchange.request, limits.request_body_bytes, &mut marks);
        let response = (!exchange.response.headers.is_empty())
            .then(|| part(redact, Side::Response, &exchange.response, limits.response_body_bytes, &mut marks));
        let mut record = Record {
            exchange,
            service,
            method: "",
            scheme: "",
            authority: "",
            path: Cow::Borrowed(""),
            user_agent: None,
            request,
            response,
            marks,
        };
        for field in &record.request.headers {
            // What is not text belongs to no attribute that has to be text.
            let text = match &field.value {
                Value::Text(Cow::Borrowed(text)) => *text,
                Value::Text(Cow::Owned(text)) if field.name == ":path" => {
                    record.path = Cow::Owned(text.clone());
                    continue;
                }
                _ => continue,
            };
            match &*field.name {
                ":method" => record.method = text,
                ":scheme" => record.scheme = text,
                ":authority" => record.authority = text,
                ":path" => record.path = Cow::Borrowed(text),
                "user-agent" => record.user_agent = record.user_agent.or(Some(text)),
                _ => {}
            }
        }
        record
    }

    pub fn direction(&self) -> Direction {
        self.exchange.direction
    }

    /// Parts of `scheme://authority/path?query`; a path alone when there is no
    /// authority.
    pub fn url(&self) -> [&str; 4] {
        // `*` and CONNECT have no path that belongs into a URL.
        let path = if self.path.starts_with('/') { &*self.path } else { "" };
        match (self.authority, self.scheme) {
            ("", _) => ["", "", "", path],
            (authority, "") => ["http", "://", authority, path],
            (authority, scheme) => [scheme, "://", authority, path],
        }
    }
}

fn part<'a>(redact: &Redactor, side: Side, message: &'a Message, cap: usize, marks: &mut Marks) -> Part<'a> {
    let mut kind = BodyType::default();
    let mut encodings = 0;
    let headers = fields(redact, side, &message.headers, marks, |name, value| match name {
        b"content-type" => kind.content_type = value,
        b"content-encoding" => {
            encodings += 1;
            kind.content_encoding = value;
        }
        _ => {}
    });
    if encodings > 1 {
        // Codings in several lines are applied one on the other.
        kind.content_encoding = b"several";
    }
    Part {
        repeats: repeats(&headers),
        headers,
        trailers: fields(redact, side, &message.trailers, marks, |_, _| ()),
        body: redact.body(side, &message.body, kind, cap, marks),
        size: message.body.total(),
        textual: is_textual(kind.content_type),
    }
}

fn fields<'a>(
    redact: &Redactor,
    side: Side,
    headers: &'a Headers,
    marks: &mut Marks,
    mut see: impl FnMut(&[u8], &'a [u8]),
) -> Vec<Field<'a>> {
    let mut fields = Vec::with_capacity(headers.iter().size_hint().1.unwrap_or(0));
    for (name, value) in headers.iter() {
        see(name, value);
        let value =
            if name == b":path" { redact.url(side, value, marks) } else { redact.header(side, name, value, marks) };
        fields.push(Field { name: lossy(name), value: Value::new(value) });
    }
    fields
}

fn repeats(fields: &[Field<'_>]) -> bool {
    let mut rest = fields;
    while let [first, others @ ..] = rest {
        if others.iter().any(|other| other.name.len() == first.name.len() && other.name == first.name) {
            return true;
        }
        rest = others;
    }
    false
}

/// Semantic conventions, `http.*.body.content`: what counts as text. No type
/// at all leaves it to the bytes.
fn is_textual(content_type: &[u8]) -> bool {
    if content_type == b"application/json" {
        return true;
    }
    let lower = content_type.to_ascii_lowercase();
    let essence = lower.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let ends: [&[u8]; 7] = [b"json", b"/xml", b"+xml", b"/yaml", b"+yaml", b"javascript", b"graphql"];
    essence.is_empty()
        || essence.starts_with(b"text/")
        || essence == b"application/x-www-form-urlencoded"
        || ends.iter().any(|end| essence.ends_with(end))
        || crate::scan::contains(&lower, b"charset=")
}

/// A body as text, unless it is not. A character that the cap cut is dropped.
pub fn body_text(bytes: &[u8], textual: bool, cut: bool) -> Option<&str> {
    if !textual {
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(e) if cut && e.error_len().is_none() => std::str::from_utf8(bytes.get(..e.valid_up_to())?).ok(),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decided_by_type_and_validity() {
        let textual =
            ["text/html", "Application/Problem+JSON", "application/x-ndjson", "image/svg+xml", "", "a/b; charset=x"];
        assert!(textual.iter().all(|t| is_textual(t.as_bytes())));
        assert!(!is_textual(b"application/octet-stream") && !is_textual(b"application/grpc"));
        assert_eq!(body_text("aé".as_bytes(), true, false), Some("aé"));
        assert_eq!(body_text(b"a\xc3", true, true), Some("a"));
        assert_eq!(body_text(b"a\xc3", true, false), None);
        assert_eq!(body_text(b"a", false, false), None);
    }
}
