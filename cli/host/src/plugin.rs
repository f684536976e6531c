//! A plugin, loaded: its module, its identity, and the proof that it starts and
//! takes its configuration (Envoy's base VM and canary).

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::PluginConfig;
use crate::error::LoadError;
use crate::log::{LogLine, Origin};
use crate::module::LoadedModule;
use crate::shared::{ActiveVm, Process};
use crate::stats::lock;
use crate::vm::Vm;
use crate::worker::WorkerShared;

/// What VMs of one code and VM configuration have in common.
pub(crate) struct VmIdentity {
    pub(crate) key: [u8; 32],
    pub(crate) vm_id: String,
    pub(crate) vm_configuration: bytes::Bytes,
    pub(crate) environment: Vec<(String, String)>,
}

/// One per process, code and VM configuration, for as long as a plugin uses it.
/// Keeps the shared data of its vm_id alive.
pub(crate) struct BaseVm {
    identity: Arc<VmIdentity>,
    module: Arc<LoadedModule>,
    process: Arc<Process>,
    _active: ActiveVm,
}

impl Drop for BaseVm {
    fn drop(&mut self) {
        if self.process.data.remove_user(&self.identity.vm_id) {
            self.process.queues.forget(&self.identity.vm_id);
        }
    }
}

/// A plugin that could not be loaded, with what it said last.
#[derive(Debug, Clone)]
pub struct LoadFailure {
    pub error: LoadError,
    /// Oldest first.
    pub log: Vec<LogLine>,
}

impl From<LoadError> for LoadFailure {
    fn from(error: LoadError) -> Self {
        Self { error, log: Vec::new() }
    }
}

/// A plugin that starts and configures; workers make their instances of it.
pub struct Plugin {
    config: PluginConfig,
    origin: Arc<Origin>,
    key: [u8; 32],
    base: Arc<BaseVm>,
}

impl Plugin {
    /// Compiles, checks, starts, and configures once on the side. Nothing that
    /// runs already is touched.
    pub fn load(process: &Arc<Process>, wasm: &[u8], config: PluginConfig) -> Result<Arc<Self>, LoadFailure> {
        let origin = Arc::new(Origin {
            plugin: config.name.clone(),
            root_id: config.root_id.clone(),
            vm_id: config.vm_id.clone(),
        });
        let aside = WorkerShared::aside(process);
        let policy = config.failure_policy;
        let result = Self::load_aside(process, &aside, wasm, config, &origin);
        result.map_err(|error| {
            aside.log_load_failure(&origin, &error, policy);
            LoadFailure { error, log: aside.take_tapped() }
        })
    }

    fn load_aside(
        process: &Arc<Process>,
        aside: &std::rc::Rc<WorkerShared>,
        wasm: &[u8],
        config: PluginConfig,
        origin: &Arc<Origin>,
    ) -> Result<Arc<Self>, LoadError> {
        let key = vm_key(wasm, &config);
        let known = lock(&process.bases).get(&key).and_then(std::sync::Weak::upgrade);
        let base = match known {
            Some(base) => base,
            None => {
                let module = LoadedModule::load(process, wasm, &config.allowed_capabilities)?;
                let identity = Arc::new(VmIdentity {
                    key,
                    vm_id: config.vm_id.clone(),
                    vm_configuration: config.vm_configuration.clone(),
                    environment: config.environment.clone(),
                });
                let started = Vm::start(&module, &identity, origin, aside)?;
                drop(started);
                process.data.add_user(&identity.vm_id);
                let base = Arc::new(BaseVm {
                    identity,
                    module,
                    process: Arc::clone(process),
                    // The base VM counts while it lives, though its memory is
                    // not kept: nothing ever runs in it after its start.
                    _active: process.vm_kept(),
                });
                lock(&process.bases).insert(key, Arc::downgrade(&base));
                base
            }
        };
        let plugin = Arc::new(Self { key: plugin_key(&config), config, origin: Arc::clone(origin), base });
        let canary = plugin.new_vm(aside)?;
        plugin.start_root(&canary)?;
        Ok(plugin)
    }

    pub(crate) fn new_vm(&self, worker: &std::rc::Rc<WorkerShared>) -> Result<std::rc::Rc<Vm>, LoadError> {
        Vm::start(&self.base.module, &self.base.identity, &self.origin, worker)
    }

    /// A root context for this plugin in a VM, started and configured.
    pub(crate) fn start_root(
        self: &Arc<Self>,
        vm: &std::rc::Rc<Vm>,
    ) -> Result<std::rc::Rc<crate::context::Context>, LoadError> {
        let root = vm.new_root(self);
        let started = vm.start_root(&root);
        if let Some(failure) = vm.failure() {
            return Err(failure.into_load_error());
        }
        if !started {
            return Err(LoadError::RefusedToStart);
        }
        let configured = vm.configure_root(&root);
        if let Some(failure) = vm.failure() {
            return Err(failure.into_load_error());
        }
        if configured { Ok(root) } else { Err(LoadError::RefusedToConfigure) }
    }

    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// SHA-256 of the Wasm bytes, in hexadecimal.
    pub fn digest(&self) -> &str {
        self.base.module.digest()
    }

    pub(crate) fn vm_key(&self) -> [u8; 32] {
        self.base.identity.key
    }

    pub(crate) fn key(&self) -> [u8; 32] {
        self.key
    }
}

/// Each part is preceded by its length, so that no two inputs look alike.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn vm_key(wasm: &[u8], config: &PluginConfig) -> [u8; 32] {
    let environment = config.environment.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let allowed = config.allowed_capabilities.iter().map(String::as_bytes);
    let own: [&[u8]; 3] = [wasm, config.vm_id.as_bytes(), &config.vm_configuration];
    hash(own.into_iter().chain(environment).chain([&b"|"[..]]).chain(allowed))
}

fn plugin_key(config: &PluginConfig) -> [u8; 32] {
    let policy =
        format!("{:?} {:?} {}", config.failure_policy, config.reload_backoff, config.allow_on_headers_stop_iteration);
    let own: [&[u8]; 4] = [config.name.as_bytes(), config.root_id.as_bytes(), &config.configuration, policy.as_bytes()];
    hash(own)
}
