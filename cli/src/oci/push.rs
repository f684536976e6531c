//! A module to an image in a registry, read back by the mesh's rules: pushed
//! means proved loadable.

use super::MANIFEST_MAX;
use super::layout::{Artifact, MANIFESTS};
use super::pull;
use super::rules::Shape;
use crate::adapters::registry::{self, Put, Registry};
use crate::error::{RegistryProblem, Result};
use crate::harness::Module;
use crate::reference::Reference;

/// What was sent and what was there.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Blobs by what became of them: sent, already there, mounted.
    pub sent: usize,
    pub present: usize,
    pub mounted: usize,
}

/// Sends what the registry lacks, then the manifest under each tag, then reads
/// it all back.
pub async fn push(
    registry: &Registry,
    tags: &[Reference],
    artifact: &Artifact,
    module: &Module,
    mount_from: Option<&str>,
    step: &dyn Fn(&str),
    detail: &dyn Fn(&str),
) -> Result<Pushed> {
    let mut done = Pushed::default();
    for blob in &artifact.blobs {
        step(&format!("{} {} ({} kB)", blob.what, short(&blob.digest), blob.bytes.len().div_ceil(1000)));
        match registry.put_blob(&blob.digest, blob.bytes.clone(), mount_from, detail).await? {
            Put::Sent => done.sent += 1,
            Put::Present => done.present += 1,
            Put::Mounted => done.mounted += 1,
        }
    }
    let digest = artifact.digest();
    for reference in tags {
        step(&format!("manifest {} as {}", short(&digest), reference.wanted()));
        registry.put_manifest(reference.wanted(), &artifact.manifest, artifact.media_type).await?;
    }
    step("reading it back as the mesh does");
    let wrong = |reference: &Reference, problem, cause: String| Err(registry::failed(reference, problem, cause));
    for (at, reference) in tags.iter().enumerate() {
        if at > 0 {
            let found = registry.manifest(reference.wanted(), MANIFESTS, MANIFEST_MAX).await?.digest;
            if found != digest {
                return wrong(reference, RegistryProblem::Digest, format!("{digest} was sent, {found} came back"));
            }
            continue;
        }
        let pulled = pull::pull(registry, reference, detail).await?;
        if pulled.reference.wanted() != digest {
            let cause = format!("{digest} was sent, {} came back", pulled.reference.wanted());
            return wrong(reference, RegistryProblem::Digest, cause);
        }
        if let Some(refusal) = pulled.refused.first() {
            return wrong(reference, RegistryProblem::Layout, refusal.rule.clone());
        }
        if pulled.module.digest != module.digest || pulled.shape != Shape::Known(artifact.layout) {
            let cause = format!("plugin digest {} was sent, {} came back", module.digest, pulled.module.digest);
            return wrong(reference, RegistryProblem::Digest, cause);
        }
    }
    Ok(done)
}

fn short(digest: &str) -> &str {
    digest.trim_start_matches("sha256:").get(..12).unwrap_or(digest)
}
