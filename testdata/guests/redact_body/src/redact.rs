//! Finds secrets in a body that arrives in pieces.

/// What a secret begins with. Its first byte does not occur in it again, which
/// is what makes matching byte by byte right.
const MARKER: &[u8] = b"SECRET=";
const REPLACEMENT: &[u8] = b"[REDACTED]";
/// A value ends before one of these, or with the body.
const ENDS: &[u8] = b" \t\r\n\"'&,;<>{}[]()";

/// Where in the body the next byte stands.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Bytes of the marker that stand right before it.
    matched: usize,
    /// It belongs to a value.
    in_value: bool,
}

impl Redactor {
    /// What is sent instead of the next piece; none: the piece itself.
    pub fn pass(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(piece.len() + REPLACEMENT.len());
        let mut changed = false;
        for &byte in piece {
            if self.in_value && !ENDS.contains(&byte) {
                changed = true;
                continue;
            }
            self.in_value = false;
            out.push(byte);
            self.matched = if byte == MARKER[self.matched] { self.matched + 1 } else { usize::from(byte == MARKER[0]) };
            if self.matched == MARKER.len() {
                self.matched = 0;
                self.in_value = true;
                changed = true;
                out.extend(REPLACEMENT);
            }
        }
        changed.then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body that a client gets of these pieces.
    fn redacted(pieces: &[&str]) -> String {
        let mut redactor = Redactor::default();
        let sent = pieces
            .iter()
            .flat_map(|piece| redactor.pass(piece.as_bytes()).unwrap_or_else(|| piece.as_bytes().to_vec()));
        String::from_utf8(sent.collect()).unwrap()
    }

    #[test]
    fn the_value_goes_and_what_is_around_it_stays() {
        assert_eq!(redacted(&["a SECRET=topsecret b"]), "a SECRET=[REDACTED] b");
        assert_eq!(redacted(&["x=1&SECRET=a&y=2&SECRET=b"]), "x=1&SECRET=[REDACTED]&y=2&SECRET=[REDACTED]");
        assert_eq!(redacted(&["SECRET="]), "SECRET=[REDACTED]");
        assert_eq!(redacted(&["SSECRET=SECRET=x"]), "SSECRET=[REDACTED]");
    }

    #[test]
    fn where_the_body_is_cut_does_not_matter() {
        let body = "one SESECRET=top-secret, \"SECRET=\u{fc}\" SECRE SECRET";
        let whole = redacted(&[body]);
        assert!(!whole.contains("top") && !whole.contains('\u{fc}') && whole.ends_with("SECRE SECRET"), "{whole}");
        let mut redactor = Redactor::default();
        let pieces = body.as_bytes().chunks(1).flat_map(|piece| redactor.pass(piece).unwrap_or_else(|| piece.to_vec()));
        assert_eq!(pieces.collect::<Vec<_>>(), whole.as_bytes());
        for at in (0..body.len()).filter(|at| body.is_char_boundary(*at)) {
            let (before, after) = body.split_at(at);
            assert_eq!(redacted(&[before, after]), whole, "cut at {at}");
        }
    }

    #[test]
    fn what_holds_no_secret_is_not_copied() {
        let mut redactor = Redactor::default();
        assert_eq!(redactor.pass(b"SECRET"), None);
        assert_eq!(redactor.pass(b" = nothing"), None);
    }
}
