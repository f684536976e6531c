//! Plugins as OCI images: the layouts that the mesh loads, the rules by which
//! it reads them, and the ways there and back. All but `push` and `pull` is
//! pure; what a registry says comes from the adapter.

mod annotations;
mod archive;
mod layout;
mod pull;
mod push;
mod rules;

pub use annotations::{Origin, annotations, origin};
pub use layout::{Artifact, Descriptor, Layout, Manifest, build};
pub use pull::{Pulled, pull};
pub use push::{Pushed, push};
pub use rules::{Refusal, Shape};

/// What Istio's agent and Envoy Gateway read of an image at most, in bytes.
pub const SIZE_MAX: u64 = crate::bundle::MODULE_MAX;
/// Larger manifests are refused by registries themselves (distribution spec).
pub const MANIFEST_MAX: u64 = 4 << 20;
