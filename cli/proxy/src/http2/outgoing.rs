//! The sending half of a stream: what the peer's window does not take yet waits.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use spctl_host::Body;

/// Data on its way, and how it ends.
#[derive(Default)]
pub(crate) struct Outgoing {
    queue: Body,
    end: End,
}

#[derive(Default)]
enum End {
    #[default]
    Open,
    Data,
    Trailers(HeaderMap),
    Sent,
}

impl Outgoing {
    pub(crate) fn push(&mut self, mut data: Body, end: bool) {
        self.queue.append(&mut data);
        if end {
            self.end = End::Data;
        }
    }

    pub(crate) fn push_trailers(&mut self, trailers: HeaderMap) {
        self.end = End::Trailers(trailers);
    }

    /// Headers alone were the whole message.
    pub(crate) fn set_sent(&mut self) {
        self.end = End::Sent;
    }

    pub(crate) fn unsent(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_sent(&self) -> bool {
        matches!(self.end, End::Sent)
    }

    /// Hands over what the windows take.
    pub(crate) fn flush(&mut self, stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Result<(), h2::Error> {
        while !self.queue.is_empty() {
            if stream.capacity() == 0 {
                stream.reserve_capacity(self.queue.len());
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Ready(None) | Poll::Pending => return Ok(()),
                }
            }
            let Some(mut chunk) = self.queue.pop() else { break };
            let left = chunk.split_off(chunk.len().min(stream.capacity()));
            self.queue.push_front(left);
            let last = self.queue.is_empty() && matches!(self.end, End::Data);
            stream.send_data(chunk, last)?;
            if last {
                self.end = End::Sent;
            }
        }
        match std::mem::take(&mut self.end) {
            End::Data => {
                self.end = End::Sent;
                stream.send_data(Bytes::new(), true)
            }
            End::Trailers(trailers) => {
                self.end = End::Sent;
                stream.send_trailers(trailers)
            }
            other => {
                self.end = other;
                Ok(())
            }
        }
    }
}
