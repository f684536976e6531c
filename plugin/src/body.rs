//! A bounded copy of a body that streams through: first bytes kept, all bytes
//! counted, nothing delayed.

/// Holds at most `cap` bytes; `total` is what went over the wire.
#[derive(Debug, Default)]
pub struct BoundedBody {
    kept: Vec<u8>,
    cap: usize,
    total: u64,
}

impl BoundedBody {
    pub fn new(cap: usize) -> BoundedBody {
        BoundedBody { kept: Vec::new(), cap, total: 0 }
    }

    /// Counts a chunk and says how many of its first bytes are wanted. At the
    /// cap that is none, so the chunk need not be fetched from the host.
    #[must_use]
    pub fn count(&mut self, chunk_size: usize) -> usize {
        self.total = self.total.saturating_add(chunk_size as u64);
        chunk_size.min(self.cap.saturating_sub(self.kept.len()))
    }

    /// Keeps bytes that `count` asked for.
    pub fn append(&mut self, mut chunk: Vec<u8>) {
        chunk.truncate(self.cap.saturating_sub(self.kept.len()));
        if self.kept.is_empty() {
            self.kept = chunk;
        } else {
            self.kept.extend_from_slice(&chunk);
        }
    }

    /// Keeps nothing more.
    pub fn stop(&mut self) {
        self.cap = self.kept.len();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.kept
    }

    /// Size on the wire.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn is_truncated(&self) -> bool {
        self.total > self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(body: &mut BoundedBody, chunk: &[u8]) {
        let wanted = body.count(chunk.len());
        if wanted > 0 {
            body.append(chunk[..wanted].to_vec());
        }
    }

    #[test]
    fn keeps_the_same_bytes_however_the_body_is_cut() {
        let whole: Vec<u8> = (0..200u8).collect();
        for cap in [0, 1, 7, 199, 200, 201] {
            for step in 1..=whole.len() {
                let mut body = BoundedBody::new(cap);
                whole.chunks(step).for_each(|chunk| feed(&mut body, chunk));
                assert_eq!(body.bytes(), &whole[..cap.min(whole.len())]);
                assert_eq!(body.total(), 200);
                assert_eq!(body.is_truncated(), cap < 200);
            }
        }
    }

    #[test]
    fn asks_for_no_bytes_at_the_cap_and_still_counts() {
        let mut body = BoundedBody::new(4);
        feed(&mut body, b"abcd");
        assert!(!body.is_truncated());
        assert_eq!(body.count(1000), 0);
        assert_eq!((body.total(), body.is_truncated()), (1004, true));
    }
}
