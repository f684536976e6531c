//! By which rules the mesh reads an image, and where to look when it would not.
//!
//! Istio's agent (istio/istio `pkg/wasm/imagefetcher.go`) tries three layouts
//! in a fixed order; Envoy Gateway carries the same code.

use serde::Serialize;

use super::archive::Packing;
use super::layout::{DOCKER_LAYER, DOCKER_LIST, DOCKER_MANIFEST, Layout, OCI_INDEX, OCI_LAYER, WASM_LAYER};
use super::{Descriptor, Manifest};

const BY: &str = "Istio and Envoy Gateway";
const FETCHER: &str = "istio/istio pkg/wasm/imagefetcher.go";
const PLATFORMS: &str = "google/go-containerregistry pkg/v1/remote";

/// A rule by which the mesh refuses an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Who refuses.
    pub by: &'static str,
    /// In the words of their error, where they have some.
    pub rule: String,
    /// Where the rule is.
    pub source: &'static str,
}

/// What an image looks like: a layout of the mesh, or one it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Known(Layout),
    /// The module in an archive that the mesh does not look into.
    OtherLayer,
    /// The module itself as a layer, in the wrong company or of another type.
    Raw,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::Known(layout) => layout.name(),
            Self::OtherLayer => "other-layer",
            Self::Raw => "raw",
        }
    }
}

/// How a layer holds the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Archive(Packing),
    Module,
    /// An archive that nothing here unpacks.
    Zstd,
}

pub(super) fn refused(rule: impl Into<String>) -> Refusal {
    Refusal { by: BY, rule: rule.into(), source: FETCHER }
}

/// The layer that Istio would take, and as what.
pub(super) fn by_istio(manifest: &Manifest) -> Result<(Layout, &Descriptor), Refusal> {
    let last = manifest.layers.last();
    if manifest.media_type == DOCKER_MANIFEST {
        return match last {
            Some(layer) if layer.media_type == DOCKER_LAYER => Ok((Layout::Docker, layer)),
            Some(layer) => Err(refused(format!(
                "could not extract Wasm file from the image as Docker container: invalid media type {} (expect {DOCKER_LAYER})",
                layer.media_type
            ))),
            None => Err(refused("could not extract Wasm file from the image as Docker container: no layers")),
        };
    }
    let compat = match last {
        Some(layer) if layer.media_type == OCI_LAYER => return Ok((Layout::Image, layer)),
        Some(layer) => format!("invalid media type {} (expect {OCI_LAYER})", layer.media_type),
        None => "no layers".to_owned(),
    };
    let artifact = match manifest.layers.as_slice() {
        [first, second] => match [first, second].into_iter().find(|layer| layer.media_type == WASM_LAYER) {
            Some(layer) => return Ok((Layout::Artifact, layer)),
            None => format!("could not find the layer of type {WASM_LAYER}"),
        },
        layers => format!("number of layers must be 2 but got {}", layers.len()),
    };
    Err(refused(format!("could not parse as compat variant: {compat}; could not parse as oci variant: {artifact}")))
}

/// Where the module may be in an image that the mesh refuses, likeliest first.
pub(super) fn candidates(manifest: &Manifest) -> Vec<(Holds, &Descriptor)> {
    let all = manifest.layers.iter().rev().map(|layer| (holds(layer), layer));
    let mut found: Vec<_> = all.filter_map(|(holds, layer)| Some((holds?, layer))).collect();
    found.sort_by_key(|(holds, _)| *holds != Holds::Module);
    found
}

fn holds(layer: &Descriptor) -> Option<Holds> {
    let kind = layer.media_type.as_str();
    let title = layer.annotations.get("org.opencontainers.image.title");
    if kind.ends_with("tar+gzip") || kind.ends_with("tar.gzip") {
        Some(Holds::Archive(Packing::Gzip))
    } else if kind.ends_with("tar+zstd") {
        Some(Holds::Zstd)
    } else if kind.ends_with(".tar") {
        Some(Holds::Archive(Packing::Plain))
    } else if !kind.ends_with("+json") && (kind.contains("wasm") || title.is_some_and(|t| t.ends_with(".wasm"))) {
        Some(Holds::Module)
    } else {
        None
    }
}

pub(super) fn is_index(manifest: &Manifest, content_type: &str) -> bool {
    [OCI_INDEX, DOCKER_LIST].iter().any(|kind| manifest.media_type == *kind || content_type == *kind)
        || (manifest.layers.is_empty() && !manifest.manifests.is_empty())
}

/// The image of an index that Istio takes, on nodes of every architecture.
pub(super) fn child_for_istio(index: &Manifest) -> Result<&Descriptor, Refusal> {
    let fits = |child: &&Descriptor| {
        child.platform.as_ref().is_none_or(|platform| platform.os == "linux" && platform.architecture == "amd64")
    };
    index.manifests.iter().find(fits).ok_or_else(|| Refusal {
        by: BY,
        rule: "no child with platform linux/amd64 in index".into(),
        source: PLATFORMS,
    })
}

/// Of an index without such an image the first that is one, and no attestation.
pub(super) fn any_child(index: &Manifest) -> Option<&Descriptor> {
    index.manifests.iter().find(|child| {
        child.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
            && !child.annotations.contains_key("vnd.docker.reference.type")
    })
}

/// Istio compares the digest of the image, not of the index it stands in.
pub(super) fn pinned_index() -> Refusal {
    Refusal {
        by: BY,
        rule: "the digest is that of an index; the agent compares the digest of its linux/amd64 image, which differs"
            .into(),
        source: FETCHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        serde_json::from_str(text).unwrap()
    }

    fn layers(media_type: &str, layers: &[&str]) -> Manifest {
        let layers: Vec<_> =
            layers.iter().map(|kind| serde_json::json!({"mediaType": kind, "digest": "sha256:0", "size": 1})).collect();
        manifest(&serde_json::json!({"mediaType": media_type, "layers": layers}).to_string())
    }

    #[test]
    fn three_layouts_are_taken_in_istios_order() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        for (manifest, layout) in [
            (layers(DOCKER_MANIFEST, &["x", DOCKER_LAYER]), Layout::Docker),
            (layers(oci, &["x", "y", OCI_LAYER]), Layout::Image),
            (layers("", &[OCI_LAYER]), Layout::Image),
            (layers(oci, &[WASM_LAYER, "application/json"]), Layout::Artifact),
            (layers(oci, &["application/json", WASM_LAYER]), Layout::Artifact),
            // The first rule that fits wins: the last layer is an archive.
            (layers(oci, &[WASM_LAYER, OCI_LAYER]), Layout::Image),
        ] {
            assert_eq!(by_istio(&manifest).unwrap().0, layout);
        }
    }

    #[test]
    fn the_rest_is_refused_in_istios_words() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        for (manifest, words) in [
            (layers(DOCKER_MANIFEST, &[OCI_LAYER]), "invalid media type application/vnd.oci.image.layer.v1.tar+gzip"),
            (layers(DOCKER_MANIFEST, &[]), "no layers"),
            (layers(oci, &[WASM_LAYER]), "number of layers must be 2 but got 1"),
            (layers(oci, &["application/wasm"]), "invalid media type application/wasm (expect"),
            (layers(oci, &["a", "b"]), "could not find the layer of type"),
            (layers(oci, &["application/vnd.oci.image.layer.v1.tar+zstd"]), "tar+zstd (expect"),
            (layers(oci, &[OCI_LAYER, "application/vnd.oci.image.layer.v1.tar"]), "v1.tar (expect"),
        ] {
            let refusal = by_istio(&manifest).unwrap_err();
            assert!(refusal.rule.contains(words), "{refusal:?}");
        }
    }

    #[test]
    fn of_an_index_linux_amd64_is_taken_and_no_attestation_otherwise() {
        let entry = |digest: &str, os: &str| serde_json::json!({"digest": digest, "platform": {"os": os, "architecture": if os == "linux" {"amd64"} else {"wasm"}}});
        let index = |entries: &[serde_json::Value]| manifest(&serde_json::json!({"manifests": entries}).to_string());
        let both = index(&[entry("a", "wasip1"), entry("b", "linux")]);
        assert!(is_index(&both, ""));
        assert_eq!(child_for_istio(&both).unwrap().digest, "b");
        let other = index(&[entry("a", "unknown"), entry("b", "wasip1")]);
        assert!(child_for_istio(&other).is_err());
        assert_eq!(any_child(&other).unwrap().digest, "b");
    }
}
