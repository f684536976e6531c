//! Thin clients of the outside: an HTTP/1.1 client over TCP and Unix sockets.

pub mod http;
