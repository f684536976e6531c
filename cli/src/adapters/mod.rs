//! Thin clients of the outside: HTTP/1.1 over TCP and Unix sockets, Docker, OCI registries.

pub mod docker;
pub mod http;
pub mod registry;
pub mod tls;
