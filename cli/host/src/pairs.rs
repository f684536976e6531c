//! The wire form of header maps between host and guest.
//!
//! A count, that many pairs of lengths, then the names and values, each behind
//! a NUL that its length leaves out; all numbers are little-endian `u32`.

/// Larger inputs count as empty (Proxy-Wasm C++ host, `limits.h`).
pub const MAX_BYTES: usize = 1 << 20;
/// More pairs than this count as none (Proxy-Wasm C++ host, `limits.h`).
pub const MAX_PAIRS: usize = 1024;

/// How many bytes [`write`] needs.
pub fn size<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    pairs.fold(4, |sum, (name, value)| sum + 8 + name.len() + 1 + value.len() + 1)
}

/// Writes pairs into exactly the bytes that [`size`] asked for.
///
/// False, with `out` half written, when it is too short.
pub fn write<'a>(pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone, out: &mut [u8]) -> bool {
    let count = pairs.len();
    let Some((head, text)) = out.split_at_mut_checked(4 + 8 * count) else { return false };
    head[..4].copy_from_slice(&number(count));
    let mut at = 0;
    for ((name, value), lengths) in pairs.zip(head[4..].chunks_exact_mut(8)) {
        lengths[..4].copy_from_slice(&number(name.len()));
        lengths[4..].copy_from_slice(&number(value.len()));
        for part in [name, value] {
            let Some(slot) = text.get_mut(at..at + part.len() + 1) else { return false };
            let (bytes, nul) = slot.split_at_mut(part.len());
            bytes.copy_from_slice(part);
            nul.fill(0);
            at += part.len() + 1;
        }
    }
    true
}

/// Pairs as bytes of their own.
pub fn to_vec<'a>(pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let mut out = vec![0; size(pairs.clone())];
    write(pairs, &mut out);
    out
}

/// Reads pairs. What Envoy cannot parse, it takes for an empty list.
pub fn parse(bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    try_parse(bytes).unwrap_or_default()
}

fn try_parse(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() || bytes.len() > MAX_BYTES {
        return None;
    }
    let count = read(bytes, 0)?;
    if count > MAX_PAIRS {
        return None;
    }
    let mut at = 4 + 8 * count;
    let mut pairs = Vec::with_capacity(count);
    for index in 0..count {
        let name_len = read(bytes, 4 + 8 * index)?;
        let value_len = read(bytes, 8 + 8 * index)?;
        let name = terminated(bytes, &mut at, name_len)?;
        let value = terminated(bytes, &mut at, value_len)?;
        pairs.push((name, value));
    }
    (at == bytes.len()).then_some(pairs)
}

fn terminated<'a>(bytes: &'a [u8], at: &mut usize, len: usize) -> Option<&'a [u8]> {
    let end = at.checked_add(len)?;
    let part = bytes.get(*at..end)?;
    if *bytes.get(end)? != 0 {
        return None;
    }
    *at = end + 1;
    Some(part)
}

fn read(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at + 4)?;
    usize::try_from(u32::from_le_bytes(field.try_into().ok()?)).ok()
}

fn number(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}
