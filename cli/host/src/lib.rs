//! An embedded Proxy-Wasm host that behaves as Envoy does, bug for bug.
//!
//! The host is sans-IO: its inputs are bytes, configuration and events, its
//! outputs are values. It knows no sockets, no HTTP library and no runtime;
//! whoever drives it owns those.
//!
//! A [`Process`] holds what all threads share. [`Plugin::load`] compiles, checks
//! and tries a plugin. Each thread has a [`Worker`], which turns plugins into
//! [`WorkerFilter`]s; a [`Chain`] carries one HTTP stream through some of them.

mod abi;
mod body;
mod callout;
mod chain;
mod check;
mod config;
mod context;
mod engine;
mod error;
mod exchange;
mod filter_state;
mod grpc;
mod headers;
mod log;
mod memory;
mod metrics;
mod module;
pub mod pairs;
mod plugin;
mod property;
mod proto;
pub mod sandbox;
mod shared;
mod state;
mod stats;
mod status;
pub mod trace;
mod trap;
mod vm;
mod worker;

pub use abi::Abi;
pub use body::Body;
pub use callout::{Callout, CalloutAnswer, CalloutResult};
pub use chain::{Chain, ChainParams, LocalReply, Output};
pub use check::{HostFunction, callbacks, check, provided};
pub use config::{Direction, FailurePolicy, Limits, Locality, Metadata, Node, PluginConfig, ReloadBackoff, Value};
pub use context::CallResponse;
pub use engine::HostEngine;
pub use error::LoadError;
pub use exchange::{Exchange, ListenerInfo, Protocol, RouteInfo, RouteTable, Side, StreamInfo, UpstreamInfo};
pub use grpc::{GrpcCallout, GrpcOutgoing, GrpcStream};
pub use headers::{HeaderKind, HeaderList};
pub use log::{ContextKind, Level, LogLine, LogSink, Origin, UnknownLevel};
pub use module::{LoadedModule, digest_of};
pub use plugin::{LoadFailure, Plugin};
pub use shared::{ClusterState, ClusterTable, Process, ProcessConfig};
pub use stats::{Histogram, Number, Registry, Samples, Stat, StatValue};
pub use worker::{Worker, WorkerFilter};
