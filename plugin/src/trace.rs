//! W3C Trace Context and Softprobe's session member: strict parsing on bytes,
//! and the edits a participant may make. Knows nothing of streams or hosts.

use std::fmt::Write as _;

/// tracestate keys under which a session id travels; the first is ours.
pub const SESSION_KEYS: [&str; 2] = ["x-sp-session-id", "x-softprobe-session-id"];
/// Member of the old Softprobe filter's side channel; never re-emitted.
const LEGACY_PARENT_KEY: &[u8] = b"x-sp-traceparent";
/// W3C trace-context level 2 §3.3.1.1: at most 32 list members.
const MAX_MEMBERS: usize = 32;
/// Known trace flags: sampled (1) and random trace id (2), level 2 §3.2.2.5.
const KNOWN_FLAGS: u8 = 0x03;

/// A valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace_id: [u8; 16],
    pub parent_id: [u8; 8],
    pub flags: u8,
}

impl TraceParent {
    /// Parses one header value (W3C trace-context §3.2). Later versions are
    /// read by their first four fields, as the recommendation asks.
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let value = trim(value);
        let (head, tail) = value.split_at_checked(55)?;
        let version = hex::<1>(head.get(0..2)?)?;
        let dashes = [2, 35, 52].iter().all(|at| head.get(*at) == Some(&b'-'));
        let tail_ok = match version {
            [0] => tail.is_empty(),
            [0xff] => false,
            _ => tail.is_empty() || tail.first() == Some(&b'-'),
        };
        let parent = TraceParent {
            trace_id: hex(head.get(3..35)?)?,
            parent_id: hex(head.get(36..52)?)?,
            flags: hex::<1>(head.get(53..55)?)?.first()? & KNOWN_FLAGS,
        };
        let ids_ok = parent.trace_id != [0; 16] && parent.parent_id != [0; 8];
        (dashes && tail_ok && ids_ok).then_some(parent)
    }

    /// The version 00 header value.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.parent_id);
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }
}

/// Session id carried by tracestate, also by one that came without a valid
/// traceparent: the browser library sends it that way.
pub fn session_member<'a>(lines: &[&'a [u8]]) -> Option<&'a str> {
    lines.iter().flat_map(|line| line.split(|b| *b == b',')).find_map(|member| {
        let (key, value) = split_member(member)?;
        let ours = SESSION_KEYS.iter().any(|k| k.as_bytes().eq_ignore_ascii_case(key));
        let value = std::str::from_utf8(value).ok()?;
        (ours && !value.is_empty()).then_some(value)
    })
}

/// Whether text may be a tracestate value (§3.3.1.3.2): 1–256 characters
/// 0x20–0x7E without `,` and `=`, not ending in a space.
pub fn is_member_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.iter().all(|b| (0x20..=0x7e).contains(b) && *b != b',' && *b != b'=')
        && value.last() != Some(&b' ')
}

/// Rebuilds tracestate with `session` at the front, in place of any other; one
/// that is no legal value only takes the others away. `lines` are the members of
/// a list that belongs to a valid traceparent; a malformed list is dropped
/// whole (§3.3.1.1). `None`: no header.
pub fn tracestate(lines: &[&[u8]], session: Option<&str>) -> Option<String> {
    let replaces = session.is_some();
    let session = session.filter(|id| is_member_value(id.as_bytes()));
    let mut members: Vec<(&[u8], &[u8])> = Vec::new();
    for member in lines.iter().flat_map(|line| line.split(|b| *b == b',')) {
        if trim(member).is_empty() {
            continue;
        }
        match split_member(member) {
            Some((key, value)) if is_key(key) && is_member_value(value) => {
                let replaced = replaces && SESSION_KEYS.iter().any(|k| k.as_bytes() == key);
                if replaced || key == LEGACY_PARENT_KEY {
                    continue;
                }
                if members.iter().any(|(k, _)| *k == key) {
                    members.clear();
                    break;
                }
                members.push((key, value));
            }
            _ => {
                members.clear();
                break;
            }
        }
    }
    members.truncate(MAX_MEMBERS - usize::from(session.is_some()));
    let mut text = String::new();
    if let (Some(id), [key, ..]) = (session, SESSION_KEYS) {
        let _ = write!(text, "{key}={id}");
    }
    for (key, value) in members {
        let separator = if text.is_empty() { "" } else { "," };
        let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        let _ = write!(text, "{separator}{key}={value}");
    }
    (!text.is_empty()).then_some(text)
}

fn split_member(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let member = trim(member);
    let equals = member.iter().position(|b| *b == b'=')?;
    Some((member.get(..equals)?, member.get(equals + 1..)?))
}

/// Level 2 §3.3.1.3.1: starts with a letter or digit, up to 256 characters.
fn is_key(key: &[u8]) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    key.len() <= 256
        && key.first().is_some_and(alphanumeric)
        && key.iter().all(|b| alphanumeric(b) || b"_-*/@".contains(b))
}

/// Optional white space of the list grammar, and nothing else.
fn trim(value: &[u8]) -> &[u8] {
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Lower-case hexadecimal of exactly `N` bytes; upper case is invalid (§3.2.2).
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
    }
    Some(bytes)
}

/// Appends bytes as lower-case hexadecimal.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

#[cfg(test)]
mod tests;
