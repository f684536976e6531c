//! A header map exactly as the host serialised it: ordered, repeated names
//! kept, values as bytes. One allocation, no copies; reading never fails.

/// Header fields in the Proxy-Wasm "pairs" encoding: `u32` count, then that
/// many `(u32 name length, u32 value length)`, then each name and value with a
/// closing NUL, all little endian (proxy-wasm ABI 0.2.1, "Serialization").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    raw: Vec<u8>,
}

impl Headers {
    /// Takes what the host returned. Bytes that are not a map read as empty.
    pub fn from_raw(raw: Vec<u8>) -> Headers {
        Headers { raw }
    }

    /// Encodes pairs; for callers that do not have the host's bytes.
    pub fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Headers {
        let mut raw = (pairs.clone().count() as u32).to_le_bytes().to_vec();
        for (name, value) in pairs.clone() {
            raw.extend_from_slice(&(name.len() as u32).to_le_bytes());
            raw.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        for (name, value) in pairs {
            raw.extend_from_slice(name.as_bytes());
            raw.push(0);
            raw.extend_from_slice(value);
            raw.push(0);
        }
        Headers { raw }
    }

    /// As the host takes it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Bytes held, which bounds what encoding the map can cost.
    pub fn size(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Fields in order, names as the host spells them (Envoy: lower case).
    pub fn iter(&self) -> Iter<'_> {
        let count = read_u32(&self.raw).unwrap_or(0) as usize;
        let table = self.raw.get(4..).unwrap_or_default();
        let (table, data) = count.checked_mul(8).and_then(|size| table.split_at_checked(size)).unwrap_or_default();
        Iter { table, data }
    }

    /// First value of a field.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }
}

#[derive(Clone, Debug)]
pub struct Iter<'a> {
    table: &'a [u8],
    data: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (entry, table) = self.table.split_at_checked(8)?;
        let name_size = read_u32(entry)? as usize;
        let value_size = read_u32(entry.get(4..)?)? as usize;
        let (name, rest) = self.data.split_at_checked(name_size)?;
        let (value, rest) = rest.get(1..)?.split_at_checked(value_size)?;
        self.data = rest.get(1..)?;
        self.table = table;
        Some((name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.table.len() / 8))
    }
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|chunk| u32::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        let pairs: [(&str, &[u8]); 3] = [("via", b"a"), ("x", b"\xff"), ("via", b"")];
        Headers::from_pairs(pairs.into_iter())
    }

    #[test]
    fn keeps_order_repeats_and_bytes() {
        let headers = sample();
        let read: Vec<_> = headers.iter().collect();
        let expected: Vec<(&[u8], &[u8])> = vec![(b"via", b"a"), (b"x", b"\xff"), (b"via", b"")];
        assert_eq!(read, expected);
        assert_eq!(headers.get("via"), Some(&b"a"[..]));
    }

    #[test]
    fn survives_every_truncation_and_bit_flip() {
        let whole = sample().raw;
        for cut in 0..whole.len() {
            assert!(Headers::from_raw(whole[..cut].to_vec()).iter().count() <= 3);
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = Headers::from_raw(bad).iter().count();
        }
    }

    #[test]
    fn reads_an_absent_map_as_empty() {
        assert!(Headers::default().is_empty());
        assert!(Headers::from_raw(vec![0, 0, 0, 0]).is_empty());
    }
}
