//! Replaces secrets in a recorded exchange before it is queued. Works on bytes
//! and on bodies that the cap cut; never fails, and when a body cannot be
//! looked into it is left out rather than trusted.

pub mod defaults;
mod form;
pub(crate) mod json;

use crate::body::BoundedBody;
use crate::inflate::{Coding, inflate};
use crate::names::NameSet;
use std::borrow::Cow;

/// What stands where a secret was.
pub const REPLACEMENT: &[u8] = b"REDACTED";
/// Marks kept for one exchange; a hostile body must not grow the record.
const MAX_MARKS: usize = 64;
/// Longest name a mark repeats.
const MAX_NAME: usize = 64;

/// Which side of an exchange a field belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Request => "request",
            Side::Response => "response",
        }
    }
}

/// Which fields were redacted, as `request.header.authorization`,
/// `response.body.token`: places and names, never values.
#[derive(Debug, Default)]
pub struct Marks(Vec<String>);

impl Marks {
    fn note(&mut self, side: Side, place: &str, name: &[u8]) {
        let name = String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name)).to_ascii_lowercase();
        let mark = format!("{}.{place}.{name}", side.name());
        if self.0.len() < MAX_MARKS && !self.0.contains(&mark) {
            self.0.push(mark);
        }
    }

    pub fn list(&self) -> &[String] {
        &self.0
    }
}

/// A body after redaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// No bytes were kept.
    Empty,
    Kept {
        bytes: Cow<'a, [u8]>,
        /// Content coding that was removed.
        decoded: Option<&'static str>,
        /// The kept bytes are not the whole content.
        cut: bool,
    },
    /// Bytes were there, and why they are not any more.
    LeftOut(&'static str),
}

/// The fields of a message that say what its body is.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyType<'a> {
    pub content_type: &'a [u8],
    pub content_encoding: &'a [u8],
}

/// The compiled redaction.
#[derive(Clone, Debug)]
pub struct Redactor {
    pub enabled: bool,
    pub headers: NameSet,
    pub cookies: NameSet,
    pub query: NameSet,
    pub form: NameSet,
    pub json: NameSet,
    pub request_body: bool,
    pub response_body: bool,
}

impl Redactor {
    /// Redacts the value of a header or trailer.
    pub fn header<'a>(&self, side: Side, name: &[u8], value: &'a [u8], marks: &mut Marks) -> Cow<'a, [u8]> {
        if !self.enabled {
            return Cow::Borrowed(value);
        }
        if self.headers.contains(name) {
            marks.note(side, "header", name);
            return Cow::Borrowed(REPLACEMENT);
        }
        match name.len() {
            6 if name == b"cookie" => self.cookies(side, value, b"; ", marks),
            10 if name == b"set-cookie" => self.cookies(side, value, b"", marks),
            _ if defaults::URL_HEADERS.iter().any(|h| h.as_bytes() == name) => self.url(side, value, marks),
            _ => Cow::Borrowed(value),
        }
    }

    /// Redacts the user information, query and fragment of a URL or path.
    pub fn url<'a>(&self, side: Side, url: &'a [u8], marks: &mut Marks) -> Cow<'a, [u8]> {
        if !self.enabled || !url.iter().any(|b| matches!(b, b'?' | b'#' | b'@')) {
            return Cow::Borrowed(url);
        }
        let start = url.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(url.len());
        let (place, rest) = url.split_at_checked(start).unwrap_or((url, &[]));
        let mut out = redact_user(place);
        if out.len() != place.len() {
            marks.note(side, "url", b"userinfo");
        }
        // Single-page applications carry tokens in the fragment as well.
        for part in rest.split_inclusive(|b| *b == b'#') {
            let mut note = |name: &[u8]| marks.note(side, "query", name);
            out.extend_from_slice(&form::parameters(part, &self.query, &mut note));
        }
        if out == url { Cow::Borrowed(url) } else { Cow::Owned(out) }
    }

    /// Redacts a body. `cap` bounds what an encoded body may inflate to.
    pub fn body<'a>(
        &self,
        side: Side,
        body: &'a BoundedBody,
        kind: BodyType<'_>,
        cap: usize,
        marks: &mut Marks,
    ) -> Content<'a> {
        if body.bytes().is_empty() {
            return Content::Empty;
        }
        let wanted = match side {
            Side::Request => self.request_body,
            Side::Response => self.response_body,
        };
        let looks = self.enabled && wanted && !(self.json.is_empty() && self.form.is_empty());
        let whole = Content::Kept { bytes: Cow::Borrowed(body.bytes()), decoded: None, cut: body.is_truncated() };
        let (bytes, decoded, cut) = match Coding::of(kind.content_encoding) {
            Coding::Identity => (Cow::Borrowed(body.bytes()), None, body.is_truncated()),
            Coding::Unknown if looks => return Content::LeftOut("content_encoding"),
            Coding::Unknown => return whole,
            coding => match inflate(coding, body.bytes(), cap) {
                Some(inflated) => {
                    (Cow::Owned(inflated.bytes), Some(coding.name()), inflated.cut || body.is_truncated())
                }
                None if looks => return Content::LeftOut("undecodable"),
                None => return whole,
            },
        };
        if !looks {
            return Content::Kept { bytes, decoded, cut };
        }
        let mut note = |name: &[u8]| marks.note(side, "body", name);
        match self.text(&bytes, kind.content_type, &mut note) {
            Ok(None) => Content::Kept { bytes, decoded, cut },
            Ok(Some(redacted)) => Content::Kept { bytes: Cow::Owned(redacted), decoded, cut },
            Err(why) => Content::LeftOut(why),
        }
    }

    /// `None`: nothing to redact. `Err`: cannot be read, so cannot be kept.
    fn text(
        &self,
        bytes: &[u8],
        content_type: &[u8],
        note: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Vec<u8>>, &'static str> {
        let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            let form = form::parameters(bytes, &self.form, note);
            // The default type of many clients, whatever they send.
            return Ok(match json::looks_like(&form) {
                true => owned(json::redact(&form, &self.json, note)).or_else(|| owned(form)),
                false => owned(form),
            });
        }
        if essence.get(..10).is_some_and(|family| family.eq_ignore_ascii_case(b"multipart/")) {
            let boundary = form::boundary(content_type).ok_or("multipart_boundary")?;
            return Ok(owned(form::multipart(bytes, boundary, &self.form, &self.json, note)));
        }
        if is_json(essence) || json::looks_like(bytes) {
            // UTF-16 and UTF-32 have a NUL among the first bytes of any JSON.
            if bytes.iter().take(4).any(|b| *b == 0) {
                return Err("charset");
            }
            return Ok(owned(json::redact(bytes, &self.json, note)));
        }
        Ok(None)
    }

    fn cookies<'a>(&self, side: Side, value: &'a [u8], separator: &[u8], marks: &mut Marks) -> Cow<'a, [u8]> {
        if self.cookies.is_empty() {
            return Cow::Borrowed(value);
        }
        let mut out = Vec::with_capacity(value.len());
        // `set-cookie` has one cookie, then its attributes; `cookie` has many.
        for (at, part) in value.split(|b| *b == b';').enumerate() {
            let is_cookie = at == 0 || !separator.is_empty();
            if at > 0 {
                out.push(b';');
            }
            let equals = part.iter().position(|b| *b == b'=').filter(|_| is_cookie);
            match equals.and_then(|equals| part.split_at_checked(equals)) {
                Some((name, _)) if self.cookies.contains(name.trim_ascii()) => {
                    out.extend_from_slice(name);
                    out.push(b'=');
                    out.extend_from_slice(REPLACEMENT);
                    marks.note(side, "cookie", name.trim_ascii());
                }
                // A cookie without a name is all value.
                None if is_cookie && !part.trim_ascii().is_empty() && self.cookies.contains(b"") => {
                    out.extend_from_slice(REPLACEMENT);
                    marks.note(side, "cookie", b"");
                }
                _ => out.extend_from_slice(part),
            }
        }
        Cow::Owned(out)
    }
}

fn owned(text: Cow<'_, [u8]>) -> Option<Vec<u8>> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

/// `scheme://user:password@host` without what is before the `@`.
fn redact_user(place: &[u8]) -> Vec<u8> {
    let slashes = place.windows(2).position(|w| w == b"//").filter(|at| *at == 0 || place.get(at - 1) == Some(&b':'));
    let Some((scheme, rest)) = slashes.and_then(|at| place.split_at_checked(at + 2)) else { return place.to_vec() };
    let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
    match rest.get(..end).and_then(|authority| authority.iter().rposition(|b| *b == b'@')) {
        Some(at) => [scheme, REPLACEMENT, rest.get(at..).unwrap_or_default()].concat(),
        None => place.to_vec(),
    }
}

fn is_json(essence: &[u8]) -> bool {
    let ends = |end: &[u8]| {
        essence.len() >= end.len() && essence.iter().rev().zip(end.iter().rev()).all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    ends(b"json") || essence.eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests;
