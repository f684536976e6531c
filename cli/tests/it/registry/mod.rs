//! Plugins in registries: the real reference registry, Istio's own loader and
//! skopeo as judges; and a mock that lies, where no real registry would.

mod auth;
mod failures;
mod hostile;
mod layouts;
mod server;
mod shapes;
mod tokens;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::{Spctl, tool};

/// What Istio's own loader makes of `oci://URL`.
pub fn istio_loads(url: &str, checksum: &str) -> Option<Value> {
    loaded(url, checksum, &[])
}

/// The same with a pull secret, or without a check of certificates.
pub fn istio_loads_with(url: &str, environment: &[(&str, &str)]) -> Option<Value> {
    loaded(url, "", environment)
}

fn loaded(url: &str, checksum: &str, environment: &[(&str, &str)]) -> Option<Value> {
    let loader = tool("SPCTL_TEST_ISTIO_LOADER", "Istio's loader (.ci/istio-loader builds it)")?;
    let mut load = Command::new(loader);
    let load = load.args([&format!("oci://{url}"), checksum]).envs(environment.iter().copied());
    let ended = load.output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    // Its log stands before the verdict.
    let verdict = text.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{ended:?}"));
    Some(serde_json::from_str(verdict).unwrap())
}

/// A plugin of some size, and different bytes for each `salt`.
pub fn plugin(spctl: &Spctl, salt: u32, size: usize) -> PathBuf {
    let mut bytes = wat::parse_str(
        "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
          (func (export \"malloc\") (param i32) (result i32) i32.const 1024))",
    )
    .unwrap();
    // A custom section of what does not compress.
    let mut state = salt.wrapping_mul(2_654_435_761) | 1;
    let noise: Vec<u8> = (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        })
        .collect();
    let mut section = vec![4];
    section.extend_from_slice(b"salt");
    section.extend_from_slice(&salt.to_le_bytes());
    section.extend_from_slice(&noise);
    bytes.push(0);
    let mut length = section.len();
    loop {
        let byte = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&section);
    spctl.file(&format!("plugin-{salt}.wasm"), bytes)
}
