//! HTTP/1.1 as bytes, without sockets: heads, body framing, writing.
//!
//! Made here rather than taken from a library because Envoy's peers can see
//! what a header map by name hides: the order of headers with equal names, and
//! trailers that no `trailer` header announced.

mod body;
mod head;
mod write;

pub(crate) use body::{BodyReader, Event, Framing};
pub(crate) use head::{BadRequest, Request, Response, parse_request, parse_response};
pub(crate) use write::{Chunking, chunk, end_of_chunks, request_head, response_head, trailers};
