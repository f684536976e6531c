//! The proxy beside a real Envoy: the same bytes to both, and what client and
//! upstream then see must be the same.
//!
//! Without `SPCTL_TEST_ENVOY` only the status lines that each case names are
//! checked.

mod common;
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
mod parity {
    pub(crate) mod codec;
    pub(crate) mod envoy;
    pub(crate) mod wire;
}

use parity::wire::{Case, Pair};

/// Envoy's defaults, with trailers passed on.
fn compare(cases: impl IntoIterator<Item = Case>) {
    Pair::start("", |_| {}).compare(cases);
}

#[test]
fn requests_are_framed_as_envoy_frames_them() {
    compare(parity::codec::framing());
}

#[test]
fn heads_are_read_as_envoy_reads_them() {
    compare(parity::codec::heads());
}

#[test]
fn targets_are_read_as_envoy_reads_them() {
    compare(parity::codec::targets());
}

#[test]
fn chunks_are_read_as_envoy_reads_them() {
    compare(parity::codec::chunks());
}

#[test]
fn responses_are_read_as_envoy_reads_them() {
    compare(parity::codec::responses());
}

#[test]
fn connections_end_as_envoy_ends_them() {
    compare(parity::codec::endings());
}
