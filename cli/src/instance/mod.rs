//! One running harness with its backend and, in quickstart, its demo
//! application: what it is made of, the process that holds it, and the socket
//! through which commands ask it.

mod client;
mod control;
mod detach;
mod given;
mod hold;
mod levels;
mod plan;
mod running;
mod serve;
mod spec;
mod status;

pub use client::{Client, Lines};
pub use detach::{answer_parent, start_detached};
pub use given::plugins as given_plugins;
pub use hold::hold;
pub use plan::CAPTURE;
pub use running::Instance;
pub use serve::{Answered, ServeRequest};
pub use spec::{BackendSpec, Given, PluginSource, PluginSpec, Spec, Target, Upstream, default_workers};
pub use status::{Counters, InstanceStatus, LogEntry, PluginStatus, ReloadRequest, Reloaded, Started};
