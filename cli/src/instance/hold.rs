//! Holds an instance for its whole life: lock, socket, record, and the way
//! down on a signal or when `down` asks.

use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::control;
use super::running::Instance;
use super::spec::Spec;
use super::status::{Counters, Started};
use crate::error::{Error, Result};
use crate::state::{Found, Home};
use crate::trace::Trace;

/// Starts the instance, tells `ready`, and returns when it has stopped, with
/// its final counters. `trace` is told of host calls. Whatever happens, its directory is gone afterwards.
pub async fn hold(
    home: &Home,
    spec: Spec,
    trace: Option<Trace>,
    ready: impl FnOnce(&Instance, Started) -> Result<()>,
) -> Result<Counters> {
    let dir = home.instance(&spec.name);
    if matches!(dir.find()?, Found::Dead) && dir.record().is_some() {
        dir.clean_up_dead()?;
    }
    dir.create()?;
    let Some(lock) = dir.lock()? else {
        let harness = dir.record().map_or_else(|| "same".to_owned(), |record| record.harness);
        return Err(Error::AlreadyRunning { name: spec.name, harness });
    };
    let result = hold_locked(home, spec, trace, ready).await;
    let removed = dir.remove(result.is_err());
    drop(lock);
    let counters = result?;
    removed?;
    Ok(counters)
}

async fn hold_locked(
    home: &Home,
    spec: Spec,
    trace: Option<Trace>,
    ready: impl FnOnce(&Instance, Started) -> Result<()>,
) -> Result<Counters> {
    let failed = Error::io("cannot watch for signals");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("cannot watch for signals"))?;
    let dir = home.instance(&spec.name);
    let mut warnings = Vec::new();
    let instance = tokio::select! {
        started = Instance::start(spec, home, dir.clone(), trace, &mut warnings) => Arc::new(started?),
        _ = terminate.recv() => return Err(Error::Interrupted),
        _ = interrupt.recv() => return Err(Error::Interrupted),
    };
    let socket = dir.socket();
    let listener = UnixListener::bind(&socket).map_err(|source| Error::StateDir { path: socket, source })?;
    let (stop, mut stopped) = mpsc::channel(1);
    let server = control::serve(instance.clone(), listener, stop);
    instance.announce()?;
    let status = instance.status().await?;
    ready(&instance, Started { status, warnings })?;
    let counters = tokio::select! {
        counters = stopped.recv() => {
            // Let the answer to `down` leave before its socket goes.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            counters.unwrap_or_default()
        }
        _ = terminate.recv() => instance.stop().await,
        _ = interrupt.recv() => instance.stop().await,
    };
    server.abort();
    Ok(counters)
}
