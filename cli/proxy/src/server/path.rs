//! Paths made plain before anything is decided by them.

use crate::config::{EscapedSlashes, PathRules};

/// What becomes of a request's path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Normal {
    Same,
    Changed(Vec<u8>),
    /// The client is to ask for this instead.
    Redirect(Vec<u8>),
    Refused,
}

/// Envoy's order: escaped slashes, dots and escapes, repeated slashes.
pub(super) fn normalize(path: &[u8], rules: PathRules) -> Normal {
    if rules == PathRules::default() || path.first() != Some(&b'/') {
        return Normal::Same;
    }
    let (bare, query) = path.split_at(path.iter().position(|byte| *byte == b'?').unwrap_or(path.len()));
    let mut plain = bare.to_vec();
    let mut redirects = false;
    if rules.escaped_slashes != EscapedSlashes::Keep {
        let unescaped = unescape_slashes(&plain);
        if unescaped != plain {
            match rules.escaped_slashes {
                EscapedSlashes::Reject => return Normal::Refused,
                EscapedSlashes::UnescapeAndRedirect => redirects = true,
                _ => {}
            }
            plain = unescaped;
        }
    }
    if rules.normalize {
        match canonical(&plain) {
            Some(canonical) => plain = canonical,
            None => return Normal::Refused,
        }
    }
    if rules.merge_slashes {
        // Envoy puts the first and the last slash back, even where they are one.
        let only_slashes = plain.len() > 1 && plain.iter().all(|byte| *byte == b'/');
        plain.dedup_by(|a, b| *a == b'/' && *b == b'/');
        if only_slashes {
            plain.push(b'/');
        }
    }
    if plain == bare {
        return Normal::Same;
    }
    plain.extend_from_slice(query);
    if redirects { Normal::Redirect(plain) } else { Normal::Changed(plain) }
}

fn unescape_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        match rest {
            [b'%', b'2', b'f' | b'F', ..] => out.push(b'/'),
            [b'%', b'5', b'c' | b'C', ..] => out.push(b'\\'),
            _ => {
                out.push(*first);
                rest = behind;
                continue;
            }
        }
        rest = &rest[3..];
    }
    out
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

/// RFC 3986: escapes of plain characters undone, dots resolved, `\` for `/`;
/// None where a NUL is hidden.
fn canonical(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'\\' => decoded.push(b'/'),
            b'%' => {
                // What is no escape stays as it is.
                match behind.get(..2).and_then(escaped) {
                    Some(0) => return None,
                    Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                        decoded.push(byte);
                        rest = &behind[2..];
                    }
                    _ => decoded.push(b'%'),
                }
            }
            other => decoded.push(*other),
        }
    }
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                }
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain_as_envoy_makes_them() {
        let rules =
            PathRules { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::UnescapeAndRedirect };
        for (path, plain) in [
            ("/a/../b", "/b"),
            ("/a//b", "/a/b"),
            ("/%2e%2e/x", "/x"),
            ("/a/./b?c/..", "/a/b?c/.."),
            ("/a\\b", "/a/b"),
            ("/%41%7E", "/A~"),
            ("/../x", "/x"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
        ] {
            assert_eq!(normalize(path.as_bytes(), rules), Normal::Changed(plain.into()), "{path}");
        }
        for path in ["/", "/a/b/", "/a%20b", "/a%zz", "/%", "//", "*"] {
            assert_eq!(normalize(path.as_bytes(), rules), Normal::Same, "{path}");
        }
        assert_eq!(normalize(b"/a%2fb?x", rules), Normal::Redirect(b"/a/b?x".to_vec()));
        assert_eq!(normalize(b"/a%00", rules), Normal::Refused);
    }
}
