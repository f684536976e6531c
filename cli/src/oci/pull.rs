//! An image to a module: by the mesh's rules where it keeps them, else from
//! wherever the module lies, with the rule that it breaks.

use super::archive::{self, Packing, Unfit};
use super::layout::{Layout, MANIFESTS};
use super::rules::{self, Holds, Refusal, Shape};
use super::{Descriptor, MANIFEST_MAX, Manifest, SIZE_MAX};
use crate::adapters::registry::{self, Registry};
use crate::error::{Error, RegistryProblem, Result, printable};
use crate::harness::Module;
use crate::reference::{Reference, is_digest};

/// A module and the image it came from.
pub struct Pulled {
    /// With the digest of the image.
    pub reference: Reference,
    /// Hexadecimal, without algorithm, as a WasmPlugin's `sha256` wants it.
    pub image_digest: String,
    pub module: Module,
    pub shape: Shape,
    /// Why the mesh would not load it; empty: it does.
    pub refused: Vec<Refusal>,
    /// What is worth knowing though the mesh loads it.
    pub remarks: Vec<String>,
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Pulls and verifies; nothing is written.
pub async fn pull(registry: &Registry, reference: &Reference, detail: &dyn Fn(&str)) -> Result<Pulled> {
    let fail = |problem, cause: String| registry::failed(reference, problem, cause);
    let read = |bytes: &[u8]| -> Result<Manifest> {
        serde_json::from_slice(bytes)
            .map_err(|e| fail(RegistryProblem::Protocol, format!("its manifest cannot be read: {e}")))
    };
    let mut found = registry.manifest(reference.wanted(), MANIFESTS, MANIFEST_MAX).await?;
    let mut manifest = read(&found.bytes)?;
    let mut refused = Vec::new();
    let mut remarks = Vec::new();
    if rules::is_index(&manifest, &found.content_type) {
        let child = match rules::child_for_istio(&manifest) {
            Ok(child) => child,
            Err(refusal) => {
                refused.push(refusal);
                rules::any_child(&manifest)
                    .ok_or_else(|| fail(RegistryProblem::Layout, "an index without any image".into()))?
            }
        };
        if reference.digest.is_some() {
            refused.push(rules::pinned_index());
        } else if refused.is_empty() {
            remarks.push(format!(
                "the image is an index: Istio takes its linux/amd64 image, {}, and refuses the index's own digest",
                child.digest
            ));
        }
        if !is_digest(&child.digest) {
            let cause = format!("its index names an image `{}`", printable(&child.digest));
            return Err(fail(RegistryProblem::Protocol, cause));
        }
        found = registry.manifest(&child.digest, MANIFESTS, MANIFEST_MAX).await?;
        manifest = read(&found.bytes)?;
        if rules::is_index(&manifest, &found.content_type) {
            return Err(fail(RegistryProblem::Layout, "an index of indexes".into()));
        }
    }
    let (bytes, shape) = match rules::by_istio(&manifest) {
        Ok((layout, layer)) => {
            let blob = blob(registry, reference, layer, detail).await?;
            match strict(layout, blob) {
                Ok(module) => (module, Shape::Known(layout)),
                Err(Unfit::Missing) => {
                    refused.push(rules::refused("plugin.wasm not found in the archive"));
                    anywhere(registry, reference, &manifest, detail).await?
                }
                Err(unfit) => return Err(unfit_error(reference, unfit)),
            }
        }
        Err(refusal) => {
            refused.push(refusal);
            anywhere(registry, reference, &manifest, detail).await?
        }
    };
    if bytes.len() < 8 || !bytes.starts_with(b"\0asm") {
        let cause = "it does not begin as a WebAssembly module does";
        return Err(fail(RegistryProblem::NotPlugin, cause.into()));
    }
    Ok(Pulled {
        reference: reference.at(&found.digest),
        image_digest: found.digest.trim_start_matches("sha256:").to_owned(),
        module: Module::new(bytes),
        shape,
        refused,
        remarks,
        annotations: manifest.annotations,
    })
}

fn strict(layout: Layout, blob: Vec<u8>) -> Result<Vec<u8>, Unfit> {
    match layout {
        Layout::Artifact => Ok(blob),
        Layout::Image | Layout::Docker => archive::plugin(&blob, Packing::Gzip),
    }
}

/// Looks into each layer that may hold a module, last first.
async fn anywhere(
    registry: &Registry,
    reference: &Reference,
    manifest: &Manifest,
    detail: &dyn Fn(&str),
) -> Result<(Vec<u8>, Shape)> {
    let mut zstd = false;
    for (holds, layer) in rules::candidates(manifest) {
        let packing = match holds {
            Holds::Zstd => {
                zstd = true;
                continue;
            }
            Holds::Module => return Ok((blob(registry, reference, layer, detail).await?, Shape::Raw)),
            Holds::Archive(packing) => packing,
        };
        let bytes = blob(registry, reference, layer, detail).await?;
        let named = archive::plugin(&bytes, packing);
        let module = if named == Err(Unfit::Missing) { archive::any_module(&bytes, packing) } else { named };
        match module {
            Ok(module) => return Ok((module, Shape::OtherLayer)),
            Err(Unfit::Missing) => {}
            Err(unfit) => return Err(unfit_error(reference, unfit)),
        }
    }
    let kinds: Vec<String> = manifest.layers.iter().map(|layer| printable(&layer.media_type)).collect();
    let what = if zstd { "no layer that is not packed with zstd" } else { "no layer" };
    let cause = format!("{what} holds a `plugin.wasm`; its layers: {}", kinds.join(", "));
    Err(registry::failed(reference, RegistryProblem::Layout, cause))
}

async fn blob(
    registry: &Registry,
    reference: &Reference,
    layer: &Descriptor,
    detail: &dyn Fn(&str),
) -> Result<Vec<u8>> {
    if layer.size > SIZE_MAX {
        let cause = format!("its layer has {} bytes; {SIZE_MAX} are read at most", layer.size);
        return Err(registry::failed(reference, RegistryProblem::TooLarge, cause));
    }
    registry.blob(&layer.digest, layer.size, detail).await
}

fn unfit_error(reference: &Reference, unfit: Unfit) -> Error {
    let (problem, cause) = match unfit {
        Unfit::Missing => (RegistryProblem::Layout, "no `plugin.wasm` in it".to_owned()),
        Unfit::Hostile(cause) => (RegistryProblem::Hostile, cause),
        Unfit::TooLarge => {
            (RegistryProblem::TooLarge, format!("unpacked it has more than the {SIZE_MAX} bytes that are read"))
        }
        Unfit::Broken(cause) => (RegistryProblem::Layout, format!("its layer cannot be unpacked: {cause}")),
    };
    registry::failed(reference, problem, cause)
}
