//! Redacts members of JSON text without parsing it into values: one pass over
//! the bytes that knows strings and nesting, so it also works on text that ends
//! anywhere, on several documents in a row and on event streams.

use super::REPLACEMENT;
use crate::names::NameSet;
use crate::scan::{find_byte, find_either};
use std::borrow::Cow;

/// Nesting of JSON inside strings of JSON that is followed.
const MAX_EMBEDDED: u32 = 3;

/// Whether untyped bytes are likely to be JSON.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Replaces the values of members in `names` by the string `"REDACTED"`.
pub(super) fn redact<'a>(input: &'a [u8], names: &NameSet, note: &mut dyn FnMut(&[u8])) -> Cow<'a, [u8]> {
    redact_at_depth(input, names, note, 0)
}

fn redact_at_depth<'a>(input: &'a [u8], names: &NameSet, note: &mut dyn FnMut(&[u8]), depth: u32) -> Cow<'a, [u8]> {
    let mut out = Vec::new();
    let mut copied = 0;
    let mut replace = |from: usize, to: usize, by: &[u8]| {
        if out.is_empty() {
            out.reserve(input.len() + by.len());
        }
        out.extend_from_slice(input.get(copied..from).unwrap_or_default());
        out.push(b'"');
        out.extend_from_slice(by);
        out.push(b'"');
        copied = to;
    };
    let mut at = 0;
    while let Some(quote) = find_byte(input, at, b'"') {
        let (end, escaped) = end_of_string(input, quote);
        let text = input.get(quote + 1..end.saturating_sub(1).max(quote + 1)).unwrap_or_default();
        let colon = skip_space(input, end);
        if input.get(colon) != Some(&b':') {
            // A value. It may hold JSON of its own, as message envelopes do.
            if escaped && depth < MAX_EMBEDDED && looks_like(text) {
                let inner = unescape(text);
                if let Cow::Owned(redacted) = redact_at_depth(&inner, names, note, depth + 1) {
                    let mut text = Vec::with_capacity(redacted.len() + redacted.len() / 8);
                    escape(&redacted, &mut text);
                    replace(quote, end, &text);
                }
            }
            at = end;
            continue;
        }
        let is_secret = if escaped { names.contains(&unescape(text)) } else { names.contains(text) };
        at = colon + 1;
        if is_secret {
            let from = skip_space(input, at);
            let to = end_of_value(input, from);
            if from < to {
                replace(from, to, REPLACEMENT);
                note(text);
            }
            at = to;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(input);
    }
    out.extend_from_slice(input.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

fn find(input: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    input.get(from..)?.iter().position(|b| wanted(*b)).map(|at| from + at)
}

fn skip_space(input: &[u8], from: usize) -> usize {
    find(input, from, |b| !b.is_ascii_whitespace()).unwrap_or(input.len())
}

/// Position behind the closing quote, or the end of the text; and whether
/// there are escapes.
fn end_of_string(input: &[u8], quote: usize) -> (usize, bool) {
    let mut at = quote + 1;
    let mut escaped = false;
    while let Some(next) = find_either(input, at, b'"', b'\\') {
        if input.get(next) == Some(&b'"') {
            return (next + 1, escaped);
        }
        escaped = true;
        at = next + 2;
    }
    (input.len(), escaped)
}

fn end_of_value(input: &[u8], from: usize) -> usize {
    match input.get(from) {
        Some(b'"') => end_of_string(input, from).0,
        Some(b'{' | b'[') => {
            let mut depth = 0usize;
            let mut at = from;
            while let Some(next) = find(input, at, |b| matches!(b, b'"' | b'{' | b'[' | b'}' | b']')) {
                at = next + 1;
                match input.get(next) {
                    Some(b'"') => at = end_of_string(input, next).0,
                    Some(b'{' | b'[') => depth += 1,
                    _ => depth -= 1,
                }
                if depth == 0 {
                    return at;
                }
            }
            input.len()
        }
        _ => find(input, from, |b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace()).unwrap_or(input.len()),
    }
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'u') => {
                let digits = rest.as_slice().get(..4).and_then(|d| std::str::from_utf8(d).ok());
                let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
                if code.is_some() {
                    rest.nth(3);
                }
                let c = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(other) => out.push(*other),
            None => {}
        }
    }
    out
}

/// Writes what stands between the quotes of a JSON string (RFC 8259 §7).
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=31 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(text: &str) -> String {
        let names = NameSet::new(["password", "token"]);
        String::from_utf8(redact(text.as_bytes(), &names, &mut |_| ()).into_owned()).unwrap()
    }

    #[test]
    fn replaces_every_kind_of_value_at_any_depth() {
        let text = r#"{"a":[{"Password" : "s\"x"},{"token":12.5},{"token":null}],"token":{"b":["}"]},"c":1}"#;
        let expected = json!({
            "a": [{"Password": "REDACTED"}, {"token": "REDACTED"}, {"token": "REDACTED"}],
            "token": "REDACTED",
            "c": 1,
        });
        assert_eq!(serde_json::from_str::<Value>(&run(text)).unwrap(), expected);
    }

    #[test]
    fn leaves_everything_else_byte_for_byte() {
        for text in [r#"{"a": "password", "b":["token"], "passwords":1}"#, "", "[]", "nonsense \" quote", r#""token""#]
        {
            assert_eq!(run(text), text);
        }
    }

    #[test]
    fn no_cut_lets_a_secret_through() {
        let text = r#"{"x":1,"password":"hunter2","token":["hunter2",{"y":"hunter2"}],"z":"token"}"#;
        for cut in 0..=text.len() {
            let shown = run(&text[..cut]);
            assert!(!shown.contains("hun"), "{cut}: {shown}");
        }
    }

    #[test]
    fn knows_escaped_names() {
        assert!(!run(r#"{"pass\u0077ord":"s3cret"}"#).contains("s3cret"));
    }

    #[test]
    fn looks_into_json_inside_strings() {
        let text = r#"{"Message":"{\"user\":\"ann\",\"password\":\"s3cret\"}"}"#;
        let shown: Value = serde_json::from_str(&run(text)).unwrap();
        assert_eq!(shown["Message"], r#"{"user":"ann","password":"REDACTED"}"#);
    }

    #[test]
    fn works_on_lines_and_event_streams() {
        let text = "{\"token\":1}\n{\"token\":2}\ndata: {\"token\":\"x\"}\n";
        let expected = "{\"token\":\"REDACTED\"}\n{\"token\":\"REDACTED\"}\ndata: {\"token\":\"REDACTED\"}\n";
        assert_eq!(run(text), expected);
    }

    #[test]
    fn never_fails_on_arbitrary_bytes() {
        let alphabet = br#"{}[]":,\u "tokenpassword1"#;
        let names = NameSet::new(["token"]);
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    alphabet[(seed >> 33) as usize % alphabet.len()]
                })
                .collect();
            let _ = redact(&bytes, &names, &mut |_| ());
        }
    }
}
