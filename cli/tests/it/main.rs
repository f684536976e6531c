//! spctl tested as its users run it: the binary, real harnesses, real traffic.
//! One test binary, so that the host is linked once.
#![allow(unreachable_pub, reason = "a test binary has no interface")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::type_complexity,
    reason = "helpers of tests are tests"
)]

mod architecture;
mod attacks;
mod backend;
mod bad_input;
mod cli;
mod common;
mod config;
mod docker;
mod docker_build;
mod docs;
mod doctor;
mod hostile;
mod inspect;
mod interop;
mod labs;
mod logs;
mod own_bootstrap;
mod quickstart;
mod registry;
mod reload;
mod remote_code;
mod scenarios;
mod serve;
mod services;
mod soak;
mod trace;
