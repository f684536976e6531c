//! The admin interface: what Envoy's tells and takes, in Envoy's formats, so
//! that scripts written for Envoy work.
//!
//! - `http`: one request and one answer on a connection
//! - `stats`: statistics as text, JSON and for Prometheus
//! - `dump`: configuration, clusters, listeners
//! - `logging`: the `wasm` logger's level

mod dump;
mod http;
mod logging;
mod stats;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use regex_lite::Regex;
use spctl_host::Plugin;

use self::http::{Ask, Reply};
use crate::accept::{self, Acceptors};
use crate::worker::Blueprint;

/// What the admin interface looks at and turns.
pub(crate) struct AdminState {
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) addresses: Vec<(String, SocketAddr)>,
    pub(crate) plugins: Arc<Mutex<Vec<Arc<Plugin>>>>,
    pub(crate) acceptors: Arc<Acceptors>,
    pub(crate) workers: usize,
    pub(crate) started: Instant,
}

/// A running admin interface. Dropping it ends it.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Serves on a socket, one connection after the other.
    pub(crate) fn start(socket: TcpListener, state: AdminState) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            for connection in socket.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(connection) = connection {
                    // A client that has gone hears nothing.
                    let _ = http::serve(connection, |ask| answer(&state, ask));
                }
            }
        })?;
        Ok(Self { address, stopping, thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        accept::unblock(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const COMMANDS: &str = "admin commands are:\n  \
    /clusters: upstream cluster status\n  \
    /config_dump: dump current configs\n  \
    /drain_listeners (POST): drain listeners\n  \
    /help: print out list of admin commands\n  \
    /listeners: print listener info\n  \
    /logging (POST): query/change logging levels\n  \
    /ready: print server state, return 200 if LIVE, otherwise return 503\n  \
    /server_info: print server version/status information\n  \
    /stats: print server stats\n  \
    /stats/prometheus: print server stats in prometheus format\n";

fn answer(state: &AdminState, ask: &Ask) -> Reply {
    let changes = matches!(ask.path.as_str(), "/logging" | "/drain_listeners");
    if changes && ask.method != "POST" {
        return Reply::text(405, format!("Method {} not allowed, POST required.", ask.method));
    }
    match ask.path.as_str() {
        "/" | "/help" => Reply::text(200, COMMANDS),
        "/ready" if state.acceptors.is_open() => Reply::text(200, "LIVE\n"),
        "/ready" => Reply::text(503, "DRAINING\n"),
        "/stats" => match filter(ask) {
            Ok(wanted) => stats::reply(state, ask, wanted.as_ref()),
            Err(refusal) => refusal,
        },
        "/stats/prometheus" => match filter(ask) {
            Ok(wanted) => stats::prometheus(state, ask, wanted.as_ref()),
            Err(refusal) => refusal,
        },
        "/config_dump" => dump::config(state, ask),
        "/clusters" => Reply::text(200, dump::clusters(state)),
        "/listeners" => dump::listeners(state, ask),
        "/server_info" => dump::server_info(state),
        "/logging" => logging::reply(state, ask),
        "/drain_listeners" => {
            state.acceptors.close();
            Reply::text(200, "OK\n")
        }
        _ => Reply::text(404, format!("invalid path. {COMMANDS}")),
    }
}

fn filter(ask: &Ask) -> Result<Option<Regex>, Reply> {
    let Some(pattern) = ask.value("filter") else { return Ok(None) };
    match Regex::new(pattern) {
        Ok(regex) => Ok(Some(regex)),
        Err(error) => Err(Reply::text(400, format!("Invalid re2 regex: {error}"))),
    }
}

impl AdminState {
    fn plugins(&self) -> Vec<(String, Arc<Plugin>)> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        self.blueprint.filters.iter().map(|(name, _)| name.clone()).zip(plugins.iter().cloned()).collect()
    }
}
