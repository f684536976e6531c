//! The wait until an Envoy serves every filter, and why it does not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::admin::Admin;
use super::own;
use super::{Exited, LINE_PAUSE, Launched, POLL, Published, log};
use crate::error::{Error, PluginProblem, Result};
use crate::harness::{Addresses, Direction, Kind, Role, Topology};
use crate::logs::{LogHub, Mark};

/// Envoy answers `LIVE` in well under a second; a loaded machine gets more.
const START: Duration = Duration::from_secs(30);

/// An Envoy that was launched and does not serve yet.
pub(super) struct Starting<'a> {
    kind: Kind,
    topology: &'a Topology,
    published: Option<&'a Published>,
    admin_file: PathBuf,
    logs: &'a LogHub,
    exited: &'a Exited,
}

impl<'a> Starting<'a> {
    pub(super) fn new(launched: &'a Launched, topology: &'a Topology, directory: &Path, logs: &'a LogHub) -> Self {
        Self {
            kind: launched.kind,
            topology,
            published: launched.published.as_ref(),
            admin_file: directory.join("admin-address"),
            logs,
            exited: &launched.exited,
        }
    }

    /// Waits until it serves every filter.
    pub(super) async fn wait(&self) -> Result<(Admin, Addresses)> {
        let deadline = Instant::now() + START;
        let mut admin = None;
        loop {
            if let Some(status) = self.exited.borrow().clone() {
                return Err(self.why_ended(&status).await);
            }
            if admin.is_none() {
                let text = std::fs::read_to_string(&self.admin_file).unwrap_or_default();
                let bound = text.trim().parse::<SocketAddr>().ok();
                admin = bound.map(|bound| Admin(self.published.map_or(bound, |published| published.admin)));
            }
            if let Some(admin) = admin
                && admin.ready().await
            {
                self.listeners_listen(admin).await?;
                self.filters_serve(admin).await?;
                return Ok((admin, self.addresses(admin).await?));
            }
            if let Some(admin) = admin {
                self.listeners_listen(admin).await.or_else(|error| match error {
                    // It may not answer yet.
                    Error::Harness { .. } => Ok(()),
                    other => Err(other),
                })?;
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("Envoy was not ready within {} s", START.as_secs())));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Two processes may bind a port at the same moment; the second fails only
    /// when its workers listen.
    async fn listeners_listen(&self, admin: Admin) -> Result<()> {
        let failed = admin.stats("listener_manager.listener_create_failure").await?;
        match self.topology.listeners.first() {
            Some(first) if failed.values().any(|count| *count > 0) => {
                Err(Error::PortInUse { address: first.address.to_string(), flag: "--listen" })
            }
            None if failed.values().any(|count| *count > 0) => {
                Err(self.failed("a listener could not be made; is its port in use?".into()))
            }
            _ => Ok(()),
        }
    }

    /// Ready listeners may still lack a filter whose first config was refused.
    async fn filters_serve(&self, admin: Admin) -> Result<()> {
        log::loaded(self.logs, Mark::default(), &self.topology.filters).await?;
        for filter in self.topology.filters.iter().filter(|filter| filter.role == Role::Filter) {
            if admin.discovery(&filter.name).await?.failures > 0 {
                return Err(Error::Plugin {
                    plugin: filter.plugin.clone(),
                    problem: PluginProblem::Rejected,
                    reason: "Envoy refused it".into(),
                    log: self.logs.last_problems(6),
                });
            }
        }
        Ok(())
    }

    async fn addresses(&self, admin: Admin) -> Result<Addresses> {
        if let Some(published) = self.published {
            let of = |wanted| published.listeners.iter().find(|(direction, _)| *direction == wanted).map(|(_, at)| *at);
            let (inbound, outbound) = (of(Direction::Inbound), of(Direction::Outbound));
            return Ok(Addresses { inbound, outbound, admin: Some(admin.0) });
        }
        let listeners = admin.listeners().await?;
        if let Some(own) = &self.topology.own {
            let first = own::listeners(&own.document).first().and_then(|name| listeners.get(name)).copied();
            return Ok(Addresses { inbound: first, outbound: None, admin: Some(admin.0) });
        }
        let of = |direction: Direction| listeners.get(direction.name()).copied();
        Ok(Addresses { inbound: of(Direction::Inbound), outbound: of(Direction::Outbound), admin: Some(admin.0) })
    }

    async fn why_ended(&self, status: &str) -> Error {
        // Its last lines are still on their way through the pipe.
        tokio::time::sleep(LINE_PAUSE * 4).await;
        let log = self.logs.last_problems(6);
        for listener in &self.topology.listeners {
            let address = listener.address.to_string();
            if log.iter().any(|line| line.contains("cannot bind") && line.contains(&address)) {
                return Error::PortInUse { address, flag: "--listen" };
            }
        }
        Error::Harness { harness: self.kind.name(), reason: format!("Envoy ended while starting ({status})"), log }
    }

    fn failed(&self, reason: String) -> Error {
        Error::Harness { harness: self.kind.name(), reason, log: self.logs.last_problems(6) }
    }
}
