//! From a module to an image, in each layout that the mesh loads. Pure: the
//! same bytes and annotations give the same digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{SIZE_MAX, archive};
use crate::harness::Module;
use crate::reference::digest;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(super) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// solo-io/wasm `spec/spec.md`.
pub(super) const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const WASM_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
const WASM_RUNTIME_CONFIG: &str = "application/vnd.module.wasm.runtime-config.layer.v1+json";

/// The manifests to ask a registry for.
pub(super) const MANIFESTS: &[&str] = &[OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST];

/// How a plugin is packed (solo-io/wasm's three specifications, as Istio reads them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One OCI image manifest, one tar+gzip layer with `plugin.wasm`: what every Istio and Envoy Gateway loads.
    #[default]
    Image,
    /// Two layers, the module as it is and its runtime configuration: the Wasm OCI artifact.
    Artifact,
    /// As `image`, in Docker's media types.
    Docker,
}

impl Layout {
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Artifact => "artifact",
            Self::Docker => "docker",
        }
    }
}

/// A blob as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// A manifest or an index, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    pub media_type: String,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// Only an index has these.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An image ready to be sent.
pub struct Artifact {
    pub layout: Layout,
    /// Layers and configuration, with their digests.
    pub blobs: Vec<Blob>,
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
}

pub struct Blob {
    pub what: &'static str,
    pub digest: String,
    pub bytes: bytes::Bytes,
}

impl Artifact {
    /// The image digest, with its algorithm.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }
}

/// Packs a module. `None`: with what the layout adds it is over the mesh's limit.
pub fn build(layout: Layout, module: &Module, annotations: &BTreeMap<String, String>) -> Option<Artifact> {
    let created = annotations.get("org.opencontainers.image.created");
    let (layer_type, config_type, media_type) = match layout {
        Layout::Image => (OCI_LAYER, OCI_CONFIG, OCI_MANIFEST),
        Layout::Docker => (DOCKER_LAYER, DOCKER_CONFIG, DOCKER_MANIFEST),
        Layout::Artifact => (WASM_LAYER, WASM_CONFIG, OCI_MANIFEST),
    };
    let (layers, config) = if layout == Layout::Artifact {
        if module.bytes.len() as u64 > SIZE_MAX {
            return None;
        }
        let runtime = json!({"type": "envoy_proxy", "abiVersions": [], "config": {}});
        let layers = vec![
            (layer_type, blob("module", module.bytes.to_vec())),
            (WASM_RUNTIME_CONFIG, blob("runtime configuration", runtime.to_string().into_bytes())),
        ];
        (layers, json!({}))
    } else {
        let tar = archive::pack(&module.bytes);
        // The reader stops behind the file's own bytes.
        if archive::HEADER + module.bytes.len() as u64 > SIZE_MAX {
            return None;
        }
        let mut config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
        });
        if layout == Layout::Docker {
            // Its manifests have no annotations: labels are Docker's own way.
            config["config"] = json!({"Labels": annotations});
        }
        if let (Some(created), Value::Object(config)) = (created, &mut config) {
            config.insert("created".into(), created.clone().into());
        }
        (vec![(layer_type, blob("layer", archive::compress(&tar)))], config)
    };
    let config = blob("configuration", config.to_string().into_bytes());
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": describe(config_type, &config),
        "layers": layers.iter().map(|(media_type, blob)| describe(media_type, blob)).collect::<Vec<_>>(),
    });
    if let (false, Value::Object(manifest)) = (layout == Layout::Docker, &mut manifest) {
        manifest.insert("annotations".into(), json!(annotations));
    }
    let blobs = layers.into_iter().map(|(_, blob)| blob).chain([config]).collect();
    Some(Artifact { layout, blobs, manifest: manifest.to_string().into_bytes(), media_type })
}

fn blob(what: &'static str, bytes: Vec<u8>) -> Blob {
    Blob { what, digest: digest(&bytes), bytes: bytes.into() }
}

fn describe(media_type: &str, blob: &Blob) -> Value {
    json!({"mediaType": media_type, "digest": blob.digest, "size": blob.bytes.len()})
}
