//! Replaces the value behind `SECRET=` in response bodies.
//!
//! The body streams through: nothing is held back, so neither large bodies nor
//! endless ones are a problem, and a secret may be split among chunks anywhere.

pub mod redact;

#[cfg(target_arch = "wasm32")]
mod filter;
