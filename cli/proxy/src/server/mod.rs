//! Serving: downstream connections and the streams on them.
//!
//! - `accept`: a connection's beginning: TLS, and which HTTP it speaks
//! - `http1`: requests one after the other, errors of the protocol
//! - `http2`: requests side by side
//! - `stream`: one request on its way through the chain to upstream and back
//! - `downstream`: what a stream says to its client
//! - `rules`: headers that Envoy itself adds, removes and rewrites
//! - `listener`: what a worker has ready for a listener

mod accept;
mod downstream;
mod http1;
mod http2;
mod listener;
mod rules;
mod stream;
mod tls;

pub(crate) use accept::serve;
pub(crate) use listener::{LocalListener, SharedListener};
