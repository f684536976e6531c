//! Answers 451 for hosts below a blocked domain.
//!
//! Configuration: domains, separated by white space; `.example.com`, the
//! default, means everything below that domain, `example.com` the domain too.

pub mod hosts;

#[cfg(target_arch = "wasm32")]
mod filter;
