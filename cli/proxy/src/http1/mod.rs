//! HTTP/1.1 as bytes, without sockets: heads, body framing, writing.
//!
//! Made here rather than taken from a library because Envoy's peers can see
//! what a header map by name hides: the order of headers with equal names, and
//! trailers that no `trailer` header announced; and because what Envoy's parser
//! takes and refuses is its own.

mod body;
mod chars;
mod chunk_size;
mod framing;
#[cfg(test)]
mod fuzz;
mod lines;
mod request;
mod response;
mod target;
mod write;

pub(crate) use body::{BodyReader, Event};
pub(crate) use chars::{is_token, is_value};
pub(crate) use framing::{Framing, tokens};
pub(crate) use request::{BadRequest, MAX_HEAD, Request, parse_request};
pub(crate) use response::{Asked, parse_response};
pub(crate) use write::{Chunking, chunk, end_of_chunks, request_head, response_head, trailers};
