//! Lines of a head as Envoy's parser reads them: ended by LF, a CR before it or
//! not; a line that begins with white space goes on with the field before.

use std::borrow::Cow;

use memchr::memchr;

use super::chars::{is_token, is_value};

/// Where the head at the front of `bytes` ends, with its empty line. `seen` is
/// how far earlier calls have looked: nothing is looked at twice.
pub(super) fn end_of_head(bytes: &[u8], seen: &mut usize) -> Option<usize> {
    let mut at = *seen;
    while let Some(n) = bytes.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let next = at + n + 1;
        match &bytes[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            [] | [b'\r'] => {
                *seen = at + n;
                return None;
            }
            _ => at = next,
        }
    }
    *seen = bytes.len();
    None
}

/// Length of the first line, with its LF; of everything, if there is none.
pub(super) fn line_len(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |n| n + 1)
}

/// One header field.
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    /// Owned where line ends within had to go.
    pub(super) value: Cow<'a, [u8]>,
}

/// A line that is no header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadField;

/// The fields up to the empty line.
pub(super) fn fields(lines: &[u8]) -> impl Iterator<Item = Result<Field<'_>, BadField>> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        if matches!(rest, [] | [b'\n', ..] | [b'\r', b'\n', ..]) {
            return None;
        }
        let mut len = line_len(rest);
        while matches!(rest.get(len), Some(b' ' | b'\t')) {
            len += line_len(&rest[len..]);
        }
        let (line, behind) = rest.split_at(len);
        rest = behind;
        Some(field(line))
    })
}

fn field(line: &[u8]) -> Result<Field<'_>, BadField> {
    let colon = memchr(b':', line).ok_or(BadField)?;
    let name = &line[..colon];
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(BadField);
    }
    let value = trim(&line[colon + 1..]);
    if value.iter().copied().all(is_value) {
        return Ok(Field { name, value: Cow::Borrowed(value) });
    }
    let joined: Vec<u8> = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if !joined.iter().copied().all(is_value) {
        return Err(BadField);
    }
    Ok(Field { name, value: Cow::Owned(joined) })
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Result<Vec<(String, String)>, BadField> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields(lines.as_bytes()).map(|field| field.map(|field| (text(field.name), text(&field.value)))).collect()
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: h\n\r\nrest";
        for cut in 0..head.len() {
            let mut seen = 0;
            let first = end_of_head(&head[..cut], &mut seen);
            let found = first.or_else(|| end_of_head(head, &mut seen));
            assert_eq!(found, Some(head.len() - 4), "cut at {cut}");
        }
    }

    #[test]
    fn folded_lines_and_stray_carriage_returns_are_joined() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("A: 1\r\n 2\r\nB:\r\n\t3 \r\n\r\n"), Ok(vec![pair("A", "1 2"), pair("B", "3")]));
        assert_eq!(read("A: x\ry\r\r\n\r\n"), Ok(vec![pair("A", "xy")]));
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for bad in [" A: 1\n", "A : 1\n", ": 1\n", "A\n", "A B: 1\n", "A\rB: 1\n", "A: \0\n", "A: \x7f\n", "é: 1\n"] {
            assert_eq!(read(bad), Err(BadField), "{bad:?}");
        }
    }
}
