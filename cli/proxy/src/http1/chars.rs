//! Which bytes may stand where, as Envoy's parser has it.

/// A method or header name (RFC 9110 `token`).
pub(crate) fn is_token(byte: u8) -> bool {
    TABLE[usize::from(byte)] & TOKEN != 0
}

/// A header value: no control character but the tab.
pub(crate) fn is_value(byte: u8) -> bool {
    TABLE[usize::from(byte)] & VALUE != 0
}

/// A path or query.
pub(super) fn is_path(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x0c | b'!'..=b'~')
}

/// A host with port.
pub(super) fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(&byte)
}

const TOKEN: u8 = 1;
const VALUE: u8 = 2;

/// Looked at for every byte of every head.
static TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let character = byte as u8;
        if character == b'\t' || (character >= b' ' && character != 0x7f) {
            table[byte] |= VALUE;
        }
        let punctuation = matches!(
            character,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if punctuation || character.is_ascii_alphanumeric() {
            table[byte] |= TOKEN;
        }
        byte += 1;
    }
    table
};
