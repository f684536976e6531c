//! A running proxy and what can be asked of it.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use spctl_host::{Level, Plugin, Process, ProcessConfig, Stat};

use crate::accept::Acceptors;
use crate::admin::{Admin, AdminState};
use crate::config::{FilterSpec, ProxyConfig, Threads};
use crate::error::{FilterError, ReloadError, StartError};
use crate::server::SharedListener;
use crate::upstream::{self, ClusterNames};
use crate::worker::{self, Blueprint, Command, Drained, MAIN, WorkerHandle};

/// A running proxy. Dropping it stops it.
pub struct Proxy {
    blueprint: Arc<Blueprint>,
    addresses: Vec<(String, SocketAddr)>,
    /// The first is the main thread's, without listeners.
    workers: Arc<Vec<WorkerHandle>>,
    acceptors: Arc<Acceptors>,
    plugins: Arc<Mutex<Vec<Arc<Plugin>>>>,
    /// Held while a filter is being replaced, so that reloads queue up.
    reloading: Mutex<()>,
    admin: Option<Admin>,
    stopping: AtomicBool,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// SHA-256 of the Wasm bytes, in hexadecimal.
    pub old_digest: String,
    pub new_digest: String,
    pub took: Duration,
}

/// How a worker serves a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServedState {
    Serving,
    /// The VM trapped; the failure policy applies.
    Failed,
}

/// What one worker really serves for one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub filter: String,
    /// None: the main thread.
    pub worker: Option<usize>,
    /// SHA-256 of the Wasm bytes, in hexadecimal.
    pub digest: String,
    pub state: ServedState,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainReport {
    /// Streams that were cut because the deadline passed.
    pub cut_streams: usize,
    /// Root contexts that had not called `proxy_done` by the deadline.
    pub unfinished_roots: usize,
    pub took: Duration,
}

impl Proxy {
    /// Listens, loads every filter, then serves; or leaves nothing behind.
    ///
    /// Blocks until every worker serves.
    pub fn start(config: ProxyConfig) -> Result<Self, StartError> {
        check_names(&config)?;
        let sockets = config.listeners.iter().map(|listener| listen(&listener.name, listener.address));
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        let admin = config.admin.map(|address| listen("admin", address)).transpose()?;
        let clusters = Arc::new(ClusterNames::new(&config.clusters));
        let process = Process::new(ProcessConfig {
            node: config.node,
            limits: config.limits,
            module_cache: config.module_cache.as_deref(),
            log_level: config.log_level,
            log: config.log,
            clusters,
            trace: config.trace,
        })
        .map_err(StartError::Engine)?;
        let targets = config.clusters.iter().map(|cluster| upstream::target(cluster, process.stats()));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let filters: Vec<_> = config.filters.iter().map(|filter| (filter.name.clone(), filter.threads)).collect();
        let cluster = |name: &str| {
            let cluster = config.clusters.iter().find(|cluster| cluster.name == name);
            cluster.map(|cluster| (cluster.metadata.clone(), cluster.endpoints.len() as u64)).unwrap_or_default()
        };
        let listeners = config.listeners.into_iter().map(|listener| {
            let places = listener.filters.iter().filter_map(|name| filters.iter().position(|(known, _)| known == name));
            let places = places.collect();
            SharedListener::new(listener, places, cluster, process.stats())
        });
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let plugins = config.filters.into_iter().map(|filter| load(&process, filter)).collect::<Result<Vec<_>, _>>()?;
        let blueprint = Arc::new(Blueprint { process, targets, listeners, filters, connection_ids: AtomicU64::new(0) });
        let mut proxy = Self {
            addresses: Vec::new(),
            workers: Arc::new(start_workers(&blueprint, config.workers.max(1), &plugins)?),
            acceptors: Arc::default(),
            plugins: Arc::new(Mutex::new(plugins)),
            reloading: Mutex::default(),
            admin: None,
            stopping: AtomicBool::new(false),
            blueprint,
        };
        proxy.accept(sockets)?;
        if let Some(socket) = admin {
            proxy.admin = Some(proxy.administer(socket).map_err(StartError::Worker)?);
        }
        Ok(proxy)
    }

    fn accept(&mut self, sockets: Vec<TcpListener>) -> Result<(), StartError> {
        for (at, socket) in sockets.into_iter().enumerate() {
            let name =
                self.blueprint.listeners.get(at).map(|listener| listener.config.name.clone()).unwrap_or_default();
            let address = self.acceptors.add(socket, at, Arc::clone(&self.workers)).map_err(StartError::Worker)?;
            self.addresses.push((name, address));
        }
        Ok(())
    }

    fn administer(&self, socket: TcpListener) -> io::Result<Admin> {
        let state = AdminState {
            blueprint: Arc::clone(&self.blueprint),
            addresses: self.addresses.clone(),
            plugins: Arc::clone(&self.plugins),
            acceptors: Arc::clone(&self.acceptors),
            workers: self.workers.len() - 1,
            started: Instant::now(),
        };
        Admin::start(socket, state)
    }

    /// Where the admin interface is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// Each listener's name and the address it got.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.addresses.clone()
    }

    /// Puts a new plugin or configuration in place of the filter of that name.
    ///
    /// A canary is configured first: when it fails nothing live changes.
    /// Streams in flight finish on the old VM, whose root context drains.
    /// Returns once every worker serves the new one.
    pub fn reload(&self, filter: FilterSpec) -> Result<Reloaded, ReloadError> {
        let started = Instant::now();
        let known = self.blueprint.filters.iter().enumerate().find(|(_, (name, _))| *name == filter.name);
        let Some((at, (_, threads))) = known else { return Err(ReloadError::UnknownFilter(filter.name)) };
        // The first is the main thread's.
        let concerned = if *threads == Threads::Main { &self.workers[..1] } else { &self.workers[..] };
        let _alone = lock(&self.reloading);
        if self.stopping.load(Ordering::Relaxed) {
            return Err(ReloadError::Stopping);
        }
        let plugin = load(&self.blueprint.process, filter)?;
        let (done, finished) = mpsc::channel();
        for worker in concerned {
            let command = Command::Replace { filter: at, plugin: Arc::clone(&plugin), done: done.clone() };
            worker.commands.send(command).map_err(|_| ReloadError::Stopping)?;
        }
        drop(done);
        for _ in concerned {
            finished.recv().map_err(|_| ReloadError::Stopping)?;
        }
        let new_digest = plugin.digest().to_owned();
        let old = lock(&self.plugins).get_mut(at).map(|slot| std::mem::replace(slot, plugin));
        let old_digest = old.map(|plugin| plugin.digest().to_owned()).unwrap_or_default();
        Ok(Reloaded { old_digest, new_digest, took: started.elapsed() })
    }

    /// All statistics, by Envoy's names, sorted.
    pub fn stats(&self) -> Vec<Stat> {
        self.blueprint.process.stats().snapshot()
    }

    /// What each worker really serves, as the worker itself says.
    pub fn served_digests(&self) -> Vec<Served> {
        let (answer, answers) = mpsc::channel();
        for worker in self.workers.iter() {
            let _ = worker.commands.send(Command::Served { answer: answer.clone() });
        }
        drop(answer);
        let mut served: Vec<Served> = answers.iter().flatten().collect();
        served.sort_by(|a, b| (a.worker, &a.filter).cmp(&(b.worker, &b.filter)));
        served
    }

    /// Changes the level of the `wasm` logger.
    pub fn set_log_level(&self, level: Level) {
        self.blueprint.process.set_log_level(level);
    }

    pub fn log_level(&self) -> Level {
        self.blueprint.process.log_level()
    }

    /// Refuses new connections; those open go on.
    pub fn stop_listening(&self) {
        self.acceptors.close();
    }

    /// Stops listening, waits for streams, then shuts root contexts down so
    /// that plugins can flush (`proxy_on_done`, `proxy_done`).
    pub fn drain(&self, deadline: Duration) -> DrainReport {
        let started = Instant::now();
        self.stopping.store(true, Ordering::Relaxed);
        self.stop_listening();
        let (done, reports) = mpsc::channel();
        for worker in self.workers.iter() {
            let _ = worker.commands.send(Command::Drain { deadline: started + deadline, done: done.clone() });
        }
        drop(done);
        let sum = reports.iter().fold(Drained::default(), |sum, one| Drained {
            cut_streams: sum.cut_streams + one.cut_streams,
            unfinished_roots: sum.unfinished_roots + one.unfinished_roots,
        });
        DrainReport { cut_streams: sum.cut_streams, unfinished_roots: sum.unfinished_roots, took: started.elapsed() }
    }

    /// Stops at once.
    pub fn stop(self) {}
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.admin = None;
        self.stopping.store(true, Ordering::Relaxed);
        self.stop_listening();
        for worker in self.workers.iter() {
            let _ = worker.commands.send(Command::Stop);
        }
        if let Some(workers) = Arc::get_mut(&mut self.workers) {
            for worker in workers {
                if let Some(thread) = worker.thread.take() {
                    let _ = thread.join();
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(process: &Arc<Process>, filter: FilterSpec) -> Result<Arc<Plugin>, FilterError> {
    Plugin::load(process, &filter.wasm, filter.plugin).map_err(|failure| FilterError {
        filter: filter.name,
        error: failure.error,
        log: failure.log,
    })
}

fn start_workers(
    blueprint: &Arc<Blueprint>,
    workers: usize,
    plugins: &[Arc<Plugin>],
) -> Result<Vec<WorkerHandle>, StartError> {
    let (ready, started) = mpsc::channel();
    let mut handles = Vec::with_capacity(workers + 1);
    for index in std::iter::once(MAIN).chain(0..workers) {
        let handle = worker::spawn(blueprint, index, plugins.to_vec(), ready.clone());
        handles.push(handle.map_err(StartError::Worker)?);
    }
    drop(ready);
    for _ in &handles {
        started.recv().map_err(|_| StartError::Worker(io::Error::other("a worker ended while it started")))?;
    }
    Ok(handles)
}

fn listen(listener: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| {
        let listener = listener.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse { listener, address },
            _ => StartError::Listen { listener, address, source },
        }
    })
}

/// Names must be unique, and those that refer to something must find it.
fn check_names(config: &ProxyConfig) -> Result<(), StartError> {
    unique("listeners", config.listeners.iter().map(|listener| &listener.name))?;
    unique("clusters", config.clusters.iter().map(|cluster| &cluster.name))?;
    unique("filters", config.filters.iter().map(|filter| &filter.name))?;
    for listener in &config.listeners {
        let unknown = listener.filters.iter().find(|name| !config.filters.iter().any(|filter| filter.name == **name));
        if let Some(filter) = unknown {
            return Err(StartError::UnknownFilter { listener: listener.name.clone(), filter: filter.clone() });
        }
        let routes = listener.virtual_hosts.iter().flat_map(|host| &host.routes);
        let mut named = routes.flat_map(|route| route.clusters());
        if let Some(name) = named.find(|name| !config.clusters.iter().any(|cluster| cluster.name == *name)) {
            return Err(StartError::UnknownCluster { listener: listener.name.clone(), cluster: name.to_owned() });
        }
    }
    Ok(())
}

fn unique<'a>(kind: &'static str, names: impl Iterator<Item = &'a String>) -> Result<(), StartError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(StartError::Duplicate { kind, name: name.clone() });
        }
    }
    Ok(())
}
