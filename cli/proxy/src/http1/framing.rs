//! What the headers of a message say about where its body ends and whether the
//! connection is kept.

use std::borrow::Cow;

use super::lines::Field;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the framing headers of a message say.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) length: Option<u64>,
    pub(super) bad_length: bool,
    pub(super) coding: Option<Coding>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// `connection` names what only an attacker would have removed.
    pub(super) bad_nominee: bool,
    pub(super) expects_continue: bool,
    pub(super) hosts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Chunked,
    Other,
}

impl Seen {
    pub(super) fn note(&mut self, field: &Field<'_>) {
        let (name, value) = (field.name, &*field.value);
        // What frames a message must mean one thing to everybody.
        let plain = matches!(field.value, Cow::Borrowed(_));
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => self.hosts += 1,
            14 if is(b"content-length") => match (parse_length(value), self.length) {
                (Some(length), None) if plain => self.length = Some(length),
                _ => self.bad_length = true,
            },
            17 if is(b"transfer-encoding") => {
                // A second one makes a list, and no list is understood.
                let alone = self.coding.is_none();
                let chunked = alone && plain && value.eq_ignore_ascii_case(b"chunked");
                self.coding = Some(if chunked { Coding::Chunked } else { Coding::Other });
            }
            10 if is(b"connection") => {
                for token in tokens(value) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                    self.bad_nominee |= token.first() == Some(&b':') || is_origin(token);
                }
            }
            6 if is(b"expect") => self.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
    }

    /// Neither both ways of saying where the body ends, nor an unreadable one.
    pub(super) fn is_contradictory(&self) -> bool {
        self.bad_length || (self.coding.is_some() && self.length.is_some())
    }
}

fn is_origin(name: &[u8]) -> bool {
    let origins: [&[u8]; 3] = [b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"];
    origins.iter().any(|origin| name.eq_ignore_ascii_case(origin))
}

/// Digits alone, within 64 bits.
fn parse_length(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The members of a comma-separated list.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
