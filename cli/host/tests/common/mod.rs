//! A sandbox around guests in WebAssembly text.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod guest;

use std::time::Duration;

use spctl_host::sandbox::Sandbox;
use spctl_host::{Limits, LoadFailure, PluginConfig};

pub(crate) use guest::{Guest, guest};

pub(crate) fn limits() -> Limits {
    Limits { memory: 16 << 20, deadline: Duration::from_millis(200) }
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::new(limits()).unwrap()
}

pub(crate) fn named(name: &str) -> PluginConfig {
    PluginConfig {
        name: name.to_owned(),
        root_id: "root".to_owned(),
        vm_id: "vm".to_owned(),
        ..PluginConfig::default()
    }
}

/// A sandbox whose chain is one guest, with its load lines forgotten.
pub(crate) fn running(guest: &Guest) -> Sandbox {
    running_as(guest, named("plugin"))
}

pub(crate) fn running_as(guest: &Guest, config: PluginConfig) -> Sandbox {
    let sandbox = sandbox();
    sandbox.add(&guest.wasm(), config).unwrap();
    sandbox.take_log();
    sandbox
}

/// Why a guest cannot be loaded.
pub(crate) fn refused(guest: &Guest) -> LoadFailure {
    refused_bytes(&guest.wasm())
}

pub(crate) fn refused_bytes(wasm: &[u8]) -> LoadFailure {
    match sandbox().add(wasm, named("plugin")) {
        Ok(_) => panic!("it was loaded"),
        Err(failure) => failure,
    }
}
