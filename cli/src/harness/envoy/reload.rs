//! Replacing filters through ECDS files: written, proved by the proxy, and put
//! back when it does not serve them.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::admin::Discovery;
use super::config::{ECDS, filter, module_name};
use super::{Envoy, POLL, log};
use crate::error::{Error, PluginProblem, Result};
use crate::harness::{Filter, Proof, Role};
use crate::state::write_private;

/// A file change is seen at once; compiling a module in V8 takes the time.
const RELOAD: Duration = Duration::from_secs(30);

/// A filter and the number of the writing that Envoy serves.
pub(super) struct Placed {
    pub(super) filter: Filter,
    pub(super) version: u64,
}

impl Envoy {
    /// Puts `filters` in place of those of the same names, and proves it.
    pub(super) async fn replace(&self, filters: Vec<Filter>) -> Result<Vec<Proof>> {
        if let Some(service) = filters.iter().find(|item| item.role != Role::Filter) {
            return Err(Error::ServiceStays { plugin: service.plugin.clone(), harness: self.kind.name() });
        }
        let mut current = self.current.lock().await;
        let version = self.next_version();
        if let Err(error) = self.put(&filters, version).await {
            let old: Vec<Filter> = current
                .iter()
                .filter(|old| filters.iter().any(|new| new.name == old.filter.name))
                .map(|old| old.filter.clone())
                .collect();
            let restored = self.next_version();
            let proof = self.put(&old, restored).await;
            for slot in current.iter_mut().filter(|slot| old.iter().any(|o| o.name == slot.filter.name)) {
                slot.version = restored;
            }
            return Err(healed(error, proof.err()));
        }
        let proofs = filters.first().map(|item| Proof {
            name: self.kind.name().into(),
            plugin_digest: item.module.digest.clone(),
            image_digest: None,
            proof: format!("/config_dump names {} and config_reload counted it", module_name(item, version)),
        });
        for item in filters {
            if let Some(slot) = current.iter_mut().find(|old| old.filter.name == item.name) {
                let old = std::mem::replace(slot, Placed { filter: item, version });
                // Envoy has read it long ago; a left-over file only costs space.
                let _ = std::fs::remove_file(self.directory.join(module_name(&old.filter, old.version)));
            }
        }
        Ok(proofs.into_iter().collect())
    }

    /// Writes the files and waits until the proxy itself says that it serves them.
    async fn put(&self, filters: &[Filter], version: u64) -> Result<()> {
        let mut before = Vec::new();
        for item in filters {
            before.push(self.admin.discovery(&item.name).await?);
        }
        let mark = self.logs.mark();
        for item in filters {
            let file = place(&self.directory, item, version)?;
            self.runner.changed(&file).await?;
        }
        for (item, before) in filters.iter().zip(before) {
            self.applied(item, version, before).await?;
        }
        log::loaded(&self.logs, mark, filters).await
    }

    fn next_version(&self) -> u64 {
        self.version_counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn applied(&self, item: &Filter, version: u64, before: Discovery) -> Result<()> {
        let wanted = module_name(item, version);
        let deadline = Instant::now() + RELOAD;
        loop {
            if let Some(status) = self.exited.borrow().clone() {
                return Err(self.failed(format!("Envoy ended during the reload ({status})")));
            }
            let discovery = self.admin.discovery(&item.name).await?;
            let shown = self.admin.modules().await?.get(&item.name).is_some_and(|path| path.ends_with(&wanted));
            if discovery.reloads > before.reloads && shown {
                return Ok(());
            }
            if discovery.failures > before.failures {
                return Err(Error::Plugin {
                    plugin: item.plugin.clone(),
                    problem: PluginProblem::Rejected,
                    reason: "Envoy refused it".into(),
                    log: self.logs.last_problems(6),
                });
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("Envoy did not take it up within {} s", RELOAD.as_secs())));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The error of a reload, with what became of the old plugin.
fn healed(error: Error, restoring: Option<Error>) -> Error {
    let outcome = match restoring {
        None => "the old one was put back and serves".to_owned(),
        Some(error) => format!("and the old one could not be proved to serve: {error}"),
    };
    match error {
        Error::Plugin { plugin, problem, reason, log } => {
            Error::Plugin { plugin, problem, reason: format!("{reason}; {outcome}"), log }
        }
        Error::Harness { harness, reason, log } => {
            Error::Harness { harness, reason: format!("{reason}; {outcome}"), log }
        }
        other => other,
    }
}

/// Writes module and ECDS file, the module first; each appears whole. Returns the latter.
pub(super) fn place(directory: &Path, item: &Filter, version: u64) -> Result<PathBuf> {
    let module = place_module(directory, item, version)?;
    let file = directory.join(ECDS).join(format!("{}.yaml", item.name));
    write_private(&file, filter(item, &module, version)?.as_bytes())?;
    Ok(file)
}

/// Writes the module alone: all that a service needs.
pub(super) fn place_module(directory: &Path, item: &Filter, version: u64) -> Result<PathBuf> {
    let module = directory.join(module_name(item, version));
    if !module.exists() {
        write_private(&module, &item.module.bytes)?;
    }
    Ok(module)
}
