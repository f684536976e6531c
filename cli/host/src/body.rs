//! Body bytes as a queue of chunks, with the edits Envoy's buffers allow.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes of a body, in the chunks they came in.
#[derive(Debug, Clone, Default)]
pub struct Body {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Body {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    pub fn push_front(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_front(chunk);
        }
    }

    /// The next chunk, if any is left.
    pub fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.len -= chunk.len();
        Some(chunk)
    }

    /// Moves everything of `other` to the end of this one.
    pub fn append(&mut self, other: &mut Self) {
        self.len += other.len;
        other.len = 0;
        if self.chunks.is_empty() {
            std::mem::swap(&mut self.chunks, &mut other.chunks);
        } else {
            self.chunks.append(&mut other.chunks);
        }
    }

    pub fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    /// Drops the first `n` bytes, or all there are.
    pub fn drain(&mut self, mut n: usize) {
        n = n.min(self.len);
        self.len -= n;
        while n > 0 {
            let Some(front) = self.chunks.front_mut() else { return };
            if front.len() > n {
                let _ = front.split_to(n);
                return;
            }
            n -= front.len();
            self.chunks.pop_front();
        }
    }

    /// Copies from `start` until `out` is full or the body ends.
    pub fn copy_to(&self, mut start: usize, mut out: &mut [u8]) {
        for chunk in &self.chunks {
            if out.is_empty() {
                return;
            }
            if start >= chunk.len() {
                start -= chunk.len();
                continue;
            }
            let n = (chunk.len() - start).min(out.len());
            out[..n].copy_from_slice(&chunk[start..start + n]);
            out = &mut out[n..];
            start = 0;
        }
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter()
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len);
        for chunk in &self.chunks {
            out.extend_from_slice(chunk);
        }
        out
    }

    /// `proxy_set_buffer_bytes`: false where Envoy refuses.
    pub fn edit(&mut self, start: usize, len: usize, data: &[u8]) -> bool {
        if start == 0 {
            self.drain(len);
            self.push_front(Bytes::copy_from_slice(data));
            true
        } else if start >= self.len {
            self.push(Bytes::copy_from_slice(data));
            true
        } else {
            false
        }
    }
}

impl From<Bytes> for Body {
    fn from(chunk: Bytes) -> Self {
        let mut body = Self::new();
        body.push(chunk);
        body
    }
}
