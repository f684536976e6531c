//! Removes gzip and deflate from a kept body, never beyond a given size.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags as flags};

/// First guess of how far text inflates; the buffer grows from there.
const GUESS: usize = 4;

/// The content codings the filter tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Deflate,
    /// One that cannot be removed here, or several.
    Unknown,
}

impl Coding {
    pub fn of(content_encoding: &[u8]) -> Coding {
        let coding = content_encoding.trim_ascii();
        let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
        if coding.is_empty() || is(b"identity") {
            Coding::Identity
        } else if is(b"gzip") || is(b"x-gzip") {
            Coding::Gzip
        } else if is(b"deflate") {
            Coding::Deflate
        } else {
            Coding::Unknown
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Unknown => "unknown",
        }
    }
}

/// Decoded bytes, and whether there is or was more.
#[derive(Debug, PartialEq, Eq)]
pub struct Inflated {
    pub bytes: Vec<u8>,
    pub cut: bool,
}

/// Decodes at most `cap` bytes of possibly incomplete input. `None`: not what
/// the coding says.
pub fn inflate(coding: Coding, input: &[u8], cap: usize) -> Option<Inflated> {
    match coding {
        Coding::Gzip => run(gzip_content(input)?, 0, cap),
        // `deflate` means zlib (RFC 9110 §8.4.1.2), and some servers send it raw.
        Coding::Deflate => run(input, flags::TINFL_FLAG_PARSE_ZLIB_HEADER, cap).or_else(|| run(input, 0, cap)),
        Coding::Identity | Coding::Unknown => None,
    }
}

fn run(input: &[u8], header: u32, cap: usize) -> Option<Inflated> {
    let mode = header | flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | flags::TINFL_FLAG_HAS_MORE_INPUT;
    let mut state = Box::<DecompressorOxide>::default();
    let mut out = vec![0; input.len().saturating_mul(GUESS).clamp(1, cap.max(1)).min(cap)];
    let (mut read, mut written) = (0, 0);
    loop {
        let (status, used, made) = decompress(&mut state, input.get(read..)?, &mut out, written, mode);
        read += used;
        written += made;
        let cut = match status {
            TINFLStatus::Done => false,
            TINFLStatus::NeedsMoreInput => true,
            TINFLStatus::HasMoreOutput if out.len() < cap => {
                out.resize(out.len().saturating_mul(2).min(cap), 0);
                continue;
            }
            TINFLStatus::HasMoreOutput => true,
            _ => return None,
        };
        out.truncate(written);
        return Some(Inflated { bytes: out, cut });
    }
}

/// Skips the member header (RFC 1952 §2.3).
fn gzip_content(input: &[u8]) -> Option<&[u8]> {
    let (head, mut rest) = input.split_at_checked(10)?;
    let [0x1f, 0x8b, 8, flags, ..] = head else { return None };
    if flags & 4 != 0 {
        let (size, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*size))..)?;
    }
    // File name, then comment, each closed by a NUL.
    for flag in [8, 16] {
        if flags & flag != 0 {
            rest = rest.get(rest.iter().position(|b| *b == 0)? + 1..)?;
        }
    }
    if flags & 2 != 0 { rest.get(2..) } else { Some(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

    fn gzip(content: &[u8]) -> Vec<u8> {
        // Name flag set, to cross the optional fields.
        let mut out = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3, b'n', 0];
        out.extend(compress_to_vec(content, 6));
        out.extend([0; 8]);
        out
    }

    #[test]
    fn decodes_gzip_zlib_and_raw_deflate() {
        let text = b"hello hello hello hello".repeat(50);
        let whole = Some(Inflated { bytes: text.clone(), cut: false });
        assert_eq!(inflate(Coding::Gzip, &gzip(&text), 1 << 20), whole);
        assert_eq!(inflate(Coding::Deflate, &compress_to_vec_zlib(&text, 6), 1 << 20), whole);
        assert_eq!(inflate(Coding::Deflate, &compress_to_vec(&text, 6), 1 << 20), whole);
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = gzip(&vec![0; 50 << 20]);
        let inflated = inflate(Coding::Gzip, &bomb, 1000).unwrap();
        assert_eq!((inflated.bytes.len(), inflated.cut), (1000, true));
    }

    #[test]
    fn input_cut_anywhere_gives_a_prefix_or_nothing() {
        let text: Vec<u8> = (0..3000u32).map(|n| (n * n % 251) as u8).collect();
        let whole = gzip(&text);
        for cut in 0..whole.len() - 8 {
            if let Some(inflated) = inflate(Coding::Gzip, &whole[..cut], 1 << 20) {
                assert!(text.starts_with(&inflated.bytes));
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(inflate(Coding::Gzip, b"not gzip at all", 100), None);
        assert_eq!(Coding::of(b"br"), Coding::Unknown);
        assert_eq!(Coding::of(b"gzip, br"), Coding::Unknown);
    }
}
