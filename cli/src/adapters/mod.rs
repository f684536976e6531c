//! Thin clients of the outside: HTTP/1.1 over TCP and Unix sockets, Docker.

pub mod docker;
pub mod http;
pub mod tls;
