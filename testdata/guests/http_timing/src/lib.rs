//! Times requests by direction: a histogram of milliseconds, a counter for
//! each class of status, and when wanted a JSON line for each.
//!
//! Configuration, all of it optional: `{"direction": "inbound", "log": true}`.
//! Without a direction the listener's counts.

pub mod timing;

#[cfg(target_arch = "wasm32")]
mod filter;
