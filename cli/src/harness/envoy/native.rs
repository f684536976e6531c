//! Envoy as a child process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::process::{Child as Process, Command};
use tokio::sync::watch;

use super::{Binary, Exited, Launched, Runner, arguments, lines, log};
use crate::error::{Error, Result};
use crate::harness::{Kind, Topology};
use crate::logs::{Level, LogHub};
use crate::state::Child;

struct Native {
    pid: u32,
    /// What identifies its command line.
    marker: String,
    exited: Exited,
}

/// Starts the process; it ends with this one.
pub(super) fn launch(binary: &Binary, topology: &Topology, directory: &Path, logs: &LogHub) -> Result<Launched> {
    let mut child = Command::new(&binary.path)
        .args(arguments(topology, directory))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()
        .map_err(|e| Error::EnvoyUnfit { path: binary.path.clone(), reason: format!("it does not start: {e}") })?;
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(log::read(stderr, lines(Kind::Envoy, topology), logs.clone()));
    }
    let pid = child.id().unwrap_or_default();
    let exited = watch_exit(child, logs.clone());
    let runner = Native { pid, marker: directory.display().to_string(), exited: exited.clone() };
    Ok(Launched { kind: Kind::Envoy, runner: Box::new(runner), exited, published: None })
}

impl Runner for Native {
    fn child(&self) -> Child {
        Child::Process { pid: self.pid, marker: self.marker.clone() }
    }

    fn end(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(end(self.pid, &self.exited, grace))
    }
}

fn watch_exit(mut child: Process, logs: LogHub) -> Exited {
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        let status = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        };
        logs.own(Level::Info, format!("envoy has ended: {status}"));
        let _ = tx.send(Some(status));
    });
    rx
}

async fn end(pid: u32, exited: &Exited, grace: Duration) {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let mut exited = exited.clone();
    for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(5))] {
        if exited.borrow().is_some() {
            return;
        }
        // It may end at this very moment.
        let _ = kill_process(pid, signal);
        if tokio::time::timeout(wait, exited.wait_for(Option::is_some)).await.is_ok() {
            return;
        }
    }
}
