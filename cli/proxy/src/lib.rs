//! An HTTP proxy around the embedded Proxy-Wasm host, with Envoy's
//! behaviour.
//!
//! Worker threads own everything a request touches: their listeners' accepted
//! connections, their VMs and their upstream connections. The calls of
//! [`Proxy`] block; call them from a thread that may.

mod accept;
mod admin;
mod callout;
mod config;
mod error;
mod grpc;
mod http1;
mod http2;
mod io;
mod proxy;
mod routing;
mod server;
mod upstream;
mod worker;

pub use config::{
    Answer, Cluster, Codec, DownstreamTls, EscapedSlashes, FilterSpec, HeaderAction, HeaderChanges, HeaderMatch,
    HeaderToAdd, HostRewrite, Listener, PathRewrite, PathRules, ProxyConfig, QueryMatch, Redirect, RetryOn,
    RetryPolicy, Route, RouteMatch, RouteUpgrade, ServerHeader, TextMatch, Threads, UpstreamProtocol, UpstreamTls,
    VirtualHost,
};
pub use error::{FilterError, ReloadError, StartError};
pub use proxy::{DrainReport, Proxy, Reloaded, Served, ServedState};
pub use spctl_host::{
    ContextKind, Direction, FailurePolicy, Histogram, Level, Limits, LoadError, Locality, LogLine, LogSink, Metadata,
    Node, Origin, PluginConfig, ReloadBackoff, Stat, StatValue, Value,
};
