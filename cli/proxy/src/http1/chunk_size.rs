//! The line before a chunk, byte by byte, so that it may be of any length.

use bytes::{Buf, BytesMut};

/// A size line that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ChunkSize {
    size: u64,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Start,
    Digits,
    Extension,
    CarriageReturn,
}

/// What the bytes so far came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Pending,
    Size(u64),
    Bad,
}

impl ChunkSize {
    /// Takes the line, or what is there of it, from the front of the buffer.
    pub(super) fn read(&mut self, buffer: &mut BytesMut) -> Step {
        for at in 0..buffer.len() {
            let byte = buffer[at];
            self.part = match (self.part, byte) {
                (Part::Start | Part::Digits, digit) if digit.is_ascii_hexdigit() => {
                    let digit = char::from(digit).to_digit(16).map_or(0, u64::from);
                    let Some(size) = self.size.checked_mul(16).map(|size| size | digit) else { return Step::Bad };
                    self.size = size;
                    Part::Digits
                }
                (Part::Digits, b';' | b' ' | b'\t') => Part::Extension,
                (Part::Digits | Part::Extension, b'\r') => Part::CarriageReturn,
                (Part::CarriageReturn, b'\n') => {
                    buffer.advance(at + 1);
                    return Step::Size(self.size);
                }
                (Part::Extension, other) if other != b'\n' => Part::Extension,
                _ => return Step::Bad,
            };
        }
        buffer.clear();
        Step::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Step {
        ChunkSize::default().read(&mut BytesMut::from(text))
    }

    #[test]
    fn sizes_are_read_as_envoy_reads_them() {
        for (text, size) in [
            ("2\r\n", 2),
            ("0000000000000000000002\r\n", 2),
            ("2;a=\"b;c\"\r\n", 2),
            ("A \r\n", 10),
            ("2 a\r\n", 2),
            ("2\t\r\n", 2),
            ("ffffffffffffffff\r\n", u64::MAX),
        ] {
            assert_eq!(read(text), Step::Size(size), "{text:?}");
        }
        let bad =
            ["\r\n", " 2\r\n", "2\n", "0x2\r\n", "+2\r\n", "-2\r\n", "2;a\n", "2;a\rb\r\n", "2\r\r\n", "2\x0b\r\n"];
        for text in bad.into_iter().chain(["10000000000000000\r\n"]) {
            assert_eq!(read(text), Step::Bad, "{text:?}");
        }
    }

    #[test]
    fn a_size_may_arrive_byte_by_byte() {
        let mut size = ChunkSize::default();
        for byte in ["1", "f", ";", "x", "\r"] {
            assert_eq!(size.read(&mut BytesMut::from(byte)), Step::Pending);
        }
        assert_eq!(size.read(&mut BytesMut::from("\nrest")), Step::Size(31));
    }
}
