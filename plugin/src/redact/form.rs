//! Redacts fields of urlencoded forms, queries and multipart bodies, whole or
//! cut.

use super::{REPLACEMENT, json};
use crate::names::NameSet;
use std::borrow::Cow;

/// Redacts `a=1&b=2`. A leading `?` or `#` is kept.
pub(super) fn parameters<'a>(input: &'a [u8], names: &NameSet, note: &mut dyn FnMut(&[u8])) -> Cow<'a, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    for part in input.split_inclusive(|b| matches!(b, b'&' | b'?' | b'#')) {
        let end = match part.last() {
            Some(b'&' | b'?' | b'#') => part.len() - 1,
            _ => part.len(),
        };
        let equals = part.iter().position(|b| *b == b'=');
        match equals.and_then(|equals| part.split_at_checked(equals)) {
            Some((name, value)) if value.len() > 1 && names_secret(names, name) => {
                let out = out.get_or_insert_with(|| input.get(..at).unwrap_or_default().to_vec());
                out.extend_from_slice(name);
                out.push(b'=');
                out.extend_from_slice(REPLACEMENT);
                out.extend_from_slice(part.get(end..).unwrap_or_default());
                note(name);
            }
            _ => {
                if let Some(out) = &mut out {
                    out.extend_from_slice(part);
                }
            }
        }
        at += part.len();
    }
    out.map_or(Cow::Borrowed(input), Cow::Owned)
}

/// `user[password]` counts as `password`.
fn names_secret(names: &NameSet, name: &[u8]) -> bool {
    let plain = |name: &[u8]| {
        let inner = name.strip_suffix(b"]").and_then(|n| n.rsplit(|b| *b == b'[').next());
        names.contains(name) || inner.is_some_and(|inner| names.contains(inner))
    };
    if name.iter().any(|b| matches!(b, b'%' | b'+')) { plain(&percent_decode(name)) } else { plain(name) }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let digits = rest.as_slice().get(..2).and_then(|d| std::str::from_utf8(d).ok());
        match (byte, digits.and_then(|d| u8::from_str_radix(d, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest.nth(1);
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*byte),
        }
    }
    out
}

/// The boundary parameter of a multipart content type.
pub(super) fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    parameter(content_type, b"boundary").filter(|value| !value.is_empty())
}

/// A parameter of a header value, quotes removed.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = value;
    loop {
        let semicolon = rest.iter().position(|b| *b == b';')?;
        rest = rest.get(semicolon + 1..)?.trim_ascii_start();
        let equals = rest.iter().position(|b| matches!(b, b'=' | b';'))?;
        let (key, tail) = rest.split_at_checked(equals)?;
        let Some(tail) = tail.strip_prefix(b"=") else { continue };
        let found = key.trim_ascii().eq_ignore_ascii_case(name);
        let (text, after) = match tail.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|b| *b == b'"').unwrap_or(quoted.len());
                (quoted.get(..end)?, quoted.get(end..)?)
            }
            None => {
                let end = tail.iter().position(|b| *b == b';').unwrap_or(tail.len());
                (tail.get(..end)?.trim_ascii(), tail.get(end..)?)
            }
        };
        if found {
            return Some(text);
        }
        rest = after;
    }
}

/// Redacts the parts whose field name is a secret (RFC 7578), and JSON in the
/// other parts.
pub(super) fn multipart<'a>(
    input: &'a [u8],
    boundary: &[u8],
    names: &NameSet,
    members: &NameSet,
    note: &mut dyn FnMut(&[u8]),
) -> Cow<'a, [u8]> {
    let delimiter = [b"--", boundary].concat();
    let mut out = Vec::new();
    let mut copied = 0;
    let mut next = line_with(input, 0, &delimiter);
    while let Some(at) = next {
        let start = at + delimiter.len();
        next = line_with(input, start, &delimiter);
        let part = input.get(start..next.unwrap_or(input.len())).unwrap_or_default();
        let Some((head, content)) = split_head(part) else { continue };
        let (from, content) = (start + content, part.get(content..).unwrap_or_default());
        let closing = match (next, content) {
            (Some(_), [.., b'\r', b'\n']) => 2,
            (Some(_), [.., b'\n']) => 1,
            _ => 0,
        };
        let content = content.get(..content.len() - closing).unwrap_or_default();
        let redacted = match field_name(head) {
            Some(name) if names.contains(name) && !content.is_empty() => {
                note(name);
                Cow::Borrowed(REPLACEMENT)
            }
            _ if json::looks_like(content) => match json::redact(content, members, note) {
                Cow::Borrowed(_) => continue,
                changed => changed,
            },
            _ => continue,
        };
        out.extend_from_slice(input.get(copied..from).unwrap_or_default());
        out.extend_from_slice(&redacted);
        copied = from + content.len();
    }
    if copied == 0 {
        return Cow::Borrowed(input);
    }
    out.extend_from_slice(input.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Where a line starts with `text`, at `from` or behind it.
fn line_with(input: &[u8], from: usize, text: &[u8]) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = input.get(at..)?;
        if (at == 0 || input.get(at - 1) == Some(&b'\n')) && rest.starts_with(text) {
            return Some(at);
        }
        at += rest.iter().position(|b| *b == b'\n')? + 1;
    }
}

/// The header lines of a part, and where its content begins.
fn split_head(part: &[u8]) -> Option<(&[u8], usize)> {
    let mut at = part.iter().position(|b| *b == b'\n')? + 1;
    loop {
        let rest = part.get(at..)?;
        let line = rest.iter().position(|b| *b == b'\n')?;
        if matches!(rest.get(..line)?, b"" | b"\r") {
            return Some((part.get(..at)?, at + line + 1));
        }
        at += line + 1;
    }
}

fn field_name(head: &[u8]) -> Option<&[u8]> {
    let disposition = head.split(|b| *b == b'\n').find(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"content-disposition")
    })?;
    parameter(disposition.trim_ascii(), b"name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        let names = NameSet::new(["password", "sig"]);
        String::from_utf8(parameters(text.as_bytes(), &names, &mut |_| ()).into_owned()).unwrap()
    }

    #[test]
    fn replaces_the_values_of_named_fields() {
        assert_eq!(form("a=1&Password=x%20y&b=2"), "a=1&Password=REDACTED&b=2");
        assert_eq!(form("?sig=abc"), "?sig=REDACTED");
        assert_eq!(form("user%5Bpassword%5D=x"), "user%5Bpassword%5D=REDACTED");
        assert_eq!(form("%70assword=x"), "%70assword=REDACTED");
        assert_eq!(form("password=a=b"), "password=REDACTED");
    }

    #[test]
    fn leaves_other_fields_byte_for_byte() {
        for text in ["", "a", "a=1&&b", "password=", "password&x=%zz+"] {
            assert_eq!(form(text), text);
        }
    }

    const PARTS: &str = "--B\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nann\r\n\
        --B\r\ncontent-disposition: form-data; name=\"password\"\r\n\r\nhunter2\r\n\
        --B\r\nContent-Disposition: form-data; filename=\"a;b.json\"; name=doc\r\n\
        Content-Type: application/json\r\n\r\n{\"password\":\"hunter2\"}\r\n--B--\r\n";

    fn parts(text: &str) -> String {
        let names = NameSet::new(["password"]);
        let out = multipart(text.as_bytes(), b"B", &names, &names, &mut |_| ());
        String::from_utf8(out.into_owned()).unwrap()
    }

    #[test]
    fn replaces_the_content_of_named_parts_only() {
        let expected = PARTS.replace("\r\n\r\nhunter2", "\r\n\r\nREDACTED").replace(":\"hunter2\"", ":\"REDACTED\"");
        assert_eq!(parts(PARTS), expected);
    }

    #[test]
    fn no_cut_lets_a_secret_part_through() {
        for cut in 0..PARTS.len() {
            assert!(!parts(&PARTS[..cut]).contains("hun"), "{cut}");
        }
    }

    #[test]
    fn reads_boundaries_quoted_or_not() {
        assert_eq!(boundary(b"multipart/form-data; charset=x; boundary=\"a b\""), Some(&b"a b"[..]));
        assert_eq!(boundary(b"multipart/form-data;BOUNDARY=abc ; x=y"), Some(&b"abc"[..]));
        assert_eq!(boundary(b"multipart/form-data"), None);
    }
}
