//! Serving: a downstream connection and the stream on it.
//!
//! - `connection`: requests one after the other, errors of the protocol
//! - `stream`: one request on its way through the chain to upstream and back
//! - `upstream`: the upstream half of a stream
//! - `rules`: headers that Envoy itself adds, removes and rewrites
//! - `listener`: what a worker has ready for a listener
//!
//! HTTP/2 and upgrades will each be another kind of connection beside this one.

mod connection;
mod listener;
mod rules;
mod stream;
mod upstream;

pub(crate) use connection::serve;
pub(crate) use listener::{LocalListener, SharedListener};
