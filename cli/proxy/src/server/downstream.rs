//! Where a stream's response goes, whatever HTTP the client speaks.

use bytes::BytesMut;
use spctl_host::{Body, HeaderList};

use crate::http1::{self, Chunking};

/// What a stream says to its client.
pub(super) trait Downstream {
    /// The client may send what it asked leave for (`100 Continue`).
    fn proceed(&mut self);
    fn headers(&mut self, headers: &HeaderList, end_stream: bool);
    fn data(&mut self, data: Body, end_stream: bool);
    fn trailers(&mut self, trailers: Option<&HeaderList>);
    /// Bytes that have not gone out yet.
    fn unsent(&self) -> usize;
}

/// How the response under way is written.
pub(super) struct Encoder {
    chunking: Chunking,
    to_head: bool,
    /// Trailers are passed on (`http_protocol_options.enable_trailers`).
    trailers: bool,
}

impl Encoder {
    pub(super) fn new(trailers: bool) -> Self {
        Self { chunking: Chunking::Plain, to_head: false, trailers }
    }

    /// Makes ready for the answer to a request.
    pub(super) fn answer(&mut self, to_head: bool) {
        self.chunking = Chunking::Plain;
        self.to_head = to_head;
    }
}

/// A response as HTTP/1.1.
pub(super) struct Http1Response<'a> {
    pub(super) out: &'a mut BytesMut,
    pub(super) encoder: &'a mut Encoder,
}

impl Downstream for Http1Response<'_> {
    fn proceed(&mut self) {
        self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    fn headers(&mut self, headers: &HeaderList, end_stream: bool) {
        self.encoder.chunking = http1::response_head(self.out, headers, end_stream, self.encoder.to_head);
    }

    fn data(&mut self, data: Body, end_stream: bool) {
        match self.encoder.chunking {
            Chunking::Chunked => {
                http1::chunk(self.out, &data);
                if end_stream {
                    http1::end_of_chunks(self.out);
                }
            }
            Chunking::Plain => data.chunks().for_each(|part| self.out.extend_from_slice(part)),
            Chunking::Bodiless => {}
        }
    }

    fn trailers(&mut self, trailers: Option<&HeaderList>) {
        if self.encoder.chunking == Chunking::Chunked {
            match trailers.filter(|_| self.encoder.trailers) {
                Some(trailers) => http1::trailers(self.out, trailers),
                None => http1::end_of_chunks(self.out),
            }
        }
    }

    fn unsent(&self) -> usize {
        self.out.len()
    }
}
