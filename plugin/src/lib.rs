//! The Softprobe capture filter: records complete HTTP exchanges inside Envoy
//! and exports them as OTLP.
//!
//! Everything but `envoy` is pure and sees the proxy through `host::Host`, so
//! that it runs and is tested natively; `spctl` uses `config`, `attributes`,
//! `metrics` and `events` from here, which keeps one definition of each.

// A panic would end the VM, and with it every stream of a worker.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::unreachable))]

pub mod attributes;
pub mod body;
pub mod config;
pub mod events;
pub mod exchange;
pub mod export;
pub mod handoff;
pub mod headers;
pub mod host;
pub mod inflate;
pub mod inject;
pub mod metrics;
pub mod names;
pub mod policy;
pub mod record;
pub mod redact;
pub mod root;
pub mod sampling;
pub mod scan;
pub mod shared;
pub mod stream;
pub mod trace;
pub mod waiting;
pub mod wire;

#[cfg(target_arch = "wasm32")]
mod envoy;
