//! The wasmtime engine: how modules are compiled and how endless loops end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::{Cache, CacheConfig, Config, Engine, OptLevel};

use crate::config::Limits;
use crate::error::LoadError;

/// How often the deadline's clock moves: its resolution, and a wake-up of one
/// thread each time.
const EPOCH: Duration = Duration::from_millis(20);

/// V8's default stack is just under 1 MiB.
const GUEST_STACK: usize = 1 << 20;

/// Frames of a guest's backtrace (Proxy-Wasm C++ host, `limits.h`).
const MAX_FRAMES: std::num::NonZeroUsize = match std::num::NonZeroUsize::new(20) {
    Some(n) => n,
    None => std::num::NonZeroUsize::MIN,
};

/// Compiles modules and keeps the deadline's clock. Shared by all threads.
pub struct HostEngine {
    engine: Engine,
    limits: Limits,
    stop: Arc<AtomicBool>,
    clock: Option<thread::JoinHandle<()>>,
}

impl HostEngine {
    /// An engine; compiled modules are kept in `cache` where given.
    pub fn new(limits: Limits, cache: Option<&Path>) -> Result<Arc<Self>, LoadError> {
        let refused = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .epoch_interruption(true)
            .wasm_backtrace_max_frames(Some(MAX_FRAMES))
            .max_wasm_stack(GUEST_STACK);
        if let Some(directory) = cache {
            let mut settings = CacheConfig::new();
            settings.with_directory(directory);
            config.cache(Some(Cache::new(settings).map_err(refused)?));
        }
        let engine = Engine::new(&config).map_err(refused)?;
        let stop = Arc::new(AtomicBool::new(false));
        let clock = {
            let (engine, stop) = (engine.weak(), Arc::clone(&stop));
            thread::Builder::new()
                .name("wasm-epoch".to_owned())
                .spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        thread::sleep(EPOCH);
                        match engine.upgrade() {
                            Some(engine) => engine.increment_epoch(),
                            None => return,
                        }
                    }
                })
                .map_err(|error| LoadError::Engine(error.to_string()))?
        };
        Ok(Arc::new(Self { engine, limits, stop, clock: Some(clock) }))
    }

    pub(crate) fn wasmtime(&self) -> &Engine {
        &self.engine
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The deadline of one call, in ticks of the epoch; at least a whole one.
    pub(crate) fn deadline_ticks(&self) -> u64 {
        let ticks = self.limits.deadline.as_nanos() / EPOCH.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX / 4).saturating_add(2)
    }
}

impl Drop for HostEngine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(clock) = self.clock.take() {
            let _ = clock.join();
        }
    }
}
