//! A worker thread: its runtime, its connections, its part of the host.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::task::Waker;
use std::time::{Duration, Instant};

use spctl_host::{Plugin, Process, Worker, WorkerFilter};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::callout;
use crate::config::Threads;
use crate::grpc;
use crate::proxy::{Served, ServedState};
use crate::server::{self, LocalListener, SharedListener};
use crate::upstream::{Pool, Target};

/// What a worker is told.
pub(crate) enum Command {
    Connection { listener: usize, stream: StdStream, peer: SocketAddr },
    Replace { filter: usize, plugin: Arc<Plugin>, done: std_mpsc::Sender<()> },
    Served { answer: std_mpsc::Sender<Vec<Served>> },
    Drain { deadline: Instant, done: std_mpsc::Sender<Drained> },
    Stop,
}

/// How one worker's drain ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drained {
    pub(crate) cut_streams: usize,
    pub(crate) unfinished_roots: usize,
}

/// What all workers are made from.
pub(crate) struct Blueprint {
    pub(crate) process: Arc<Process>,
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) listeners: Vec<Arc<SharedListener>>,
    /// Each plugin's name and where it runs.
    pub(crate) filters: Vec<(String, Threads)>,
    pub(crate) connection_ids: AtomicU64,
}

/// A running worker, seen from outside.
pub(crate) struct WorkerHandle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) thread: Option<std::thread::JoinHandle<()>>,
    /// Open connections, for whoever hands new ones out.
    pub(crate) load: Arc<AtomicU64>,
}

/// What everything on a worker's thread shares.
pub(crate) struct WorkerContext {
    pub(crate) pool: Pool,
    blueprint: Arc<Blueprint>,
    index: usize,
    host: Worker,
    listeners: Vec<Rc<LocalListener>>,
    /// None: it runs on the main thread alone, and this is another.
    filters: RefCell<Vec<Option<Rc<WorkerFilter>>>>,
    /// The host has something to do.
    host_work: Arc<Notify>,
    /// A stream has ended, or a root has said goodbye.
    quieter: Notify,
    connections: RefCell<HashMap<u64, Waker>>,
    load: Arc<AtomicU64>,
    streams: Cell<usize>,
    draining: Cell<bool>,
    stopped: Cell<bool>,
}

impl WorkerContext {
    pub(crate) fn next_connection_id(&self) -> u64 {
        self.blueprint.connection_ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    pub(crate) fn register(&self, connection: u64, waker: &Waker) {
        let mut connections = self.connections.borrow_mut();
        match connections.get_mut(&connection) {
            Some(known) if known.will_wake(waker) => {}
            Some(known) => *known = waker.clone(),
            None => {
                connections.insert(connection, waker.clone());
            }
        }
    }

    pub(crate) fn unregister(&self, connection: u64) {
        self.connections.borrow_mut().remove(&connection);
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.quieter.notify_one();
    }

    pub(crate) fn stream_started(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    pub(crate) fn stream_ended(&self) {
        self.streams.set(self.streams.get() - 1);
        if self.draining.get() {
            self.quieter.notify_one();
        }
    }

    fn wake_connections(&self) {
        self.connections.borrow().values().for_each(Waker::wake_by_ref);
    }

    fn refresh_chains(&self) {
        let filters = self.filters.borrow();
        self.listeners.iter().for_each(|listener| listener.set_filters(&filters));
    }

    fn replace(&self, at: usize, plugin: &Arc<Plugin>) {
        let new = Some(self.host.filter(plugin));
        let old = self.filters.borrow_mut().get_mut(at).map(|slot| std::mem::replace(slot, new));
        self.refresh_chains();
        drop(old);
    }

    /// A worker tells of all that it has, the main thread of what only it has.
    fn served(&self) -> Vec<Served> {
        let filters = self.filters.borrow();
        let known = self.blueprint.filters.iter().zip(filters.iter());
        let told = known.filter(|((_, threads), _)| *threads == Threads::Main || self.index != MAIN);
        let served = told.filter_map(|((name, _), filter)| {
            let filter = filter.as_ref()?;
            Some(Served {
                filter: name.clone(),
                worker: (self.index != MAIN).then_some(self.index),
                digest: filter.plugin().digest().to_owned(),
                state: if filter.is_failed() { ServedState::Failed } else { ServedState::Serving },
            })
        });
        served.collect()
    }
}

/// Starts a worker's thread; returns once it serves.
///
/// The first of them all has no listeners: it is Envoy's main thread, where
/// plugins tick too.
pub(crate) fn spawn(
    blueprint: &Arc<Blueprint>,
    index: usize,
    plugins: Vec<Arc<Plugin>>,
    ready: std_mpsc::Sender<()>,
) -> std::io::Result<WorkerHandle> {
    /// Guests may use 1 MiB of it.
    const STACK: usize = 8 << 20;
    let (commands, inbox) = mpsc::unbounded_channel();
    let load = Arc::new(AtomicU64::new(0));
    let blueprint = Arc::clone(blueprint);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = {
        let load = Arc::clone(&load);
        let name = if index == MAIN { "main".to_owned() } else { format!("worker-{index}") };
        std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, run(blueprint, index, plugins, inbox, load, ready));
        })?
    };
    Ok(WorkerHandle { commands, thread: Some(thread), load })
}

/// The index of the worker that only ticks.
pub(crate) const MAIN: usize = usize::MAX;

async fn run(
    blueprint: Arc<Blueprint>,
    index: usize,
    plugins: Vec<Arc<Plugin>>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    load: Arc<AtomicU64>,
    ready: std_mpsc::Sender<()>,
) {
    let host_work = Arc::new(Notify::new());
    let (here, anywhere) = (Arc::clone(&host_work), Arc::clone(&host_work));
    let host =
        Worker::new(&blueprint.process, Rc::new(move || here.notify_one()), Arc::new(move || anywhere.notify_one()));
    let here = |threads: Threads| threads == Threads::All || index == MAIN;
    let known = blueprint.filters.iter().zip(&plugins);
    let filters = known.map(|((_, threads), plugin)| here(*threads).then(|| host.filter(plugin))).collect();
    drop(plugins);
    let context = Rc::new(WorkerContext {
        pool: Pool::new(&blueprint.targets),
        listeners: blueprint.listeners.iter().map(LocalListener::new).collect(),
        blueprint,
        index,
        host,
        filters: RefCell::new(filters),
        host_work,
        quieter: Notify::new(),
        connections: RefCell::default(),
        load,
        streams: Cell::new(0),
        draining: Cell::new(false),
        stopped: Cell::new(false),
    });
    context.refresh_chains();
    tokio::task::spawn_local(run_host(Rc::clone(&context)));
    let _ = ready.send(());
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Connection { listener, stream, peer } => accept(&context, listener, stream, peer),
            Command::Replace { filter, plugin, done } => {
                context.replace(filter, &plugin);
                let _ = done.send(());
            }
            Command::Served { answer } => {
                let _ = answer.send(context.served());
            }
            Command::Drain { deadline, done } => {
                let context = Rc::clone(&context);
                tokio::task::spawn_local(async move {
                    let _ = done.send(drain(&context, deadline).await);
                });
            }
            Command::Stop => break,
        }
    }
    context.stopped.set(true);
    context.wake_connections();
    context.host_work.notify_one();
    // Connections drop their streams as they see the stop; then the thread ends
    // and takes the rest with it.
    let _ = tokio::time::timeout(Duration::from_millis(200), async {
        while !context.connections.borrow().is_empty() {
            context.quieter.notified().await;
        }
    })
    .await;
}

fn accept(context: &Rc<WorkerContext>, listener: usize, stream: StdStream, peer: SocketAddr) {
    let accepted = context.listeners.get(listener).cloned().zip(TcpStream::from_std(stream).ok());
    match accepted {
        Some((listener, stream)) => {
            tokio::task::spawn_local(server::serve(Rc::clone(context), listener, stream, peer));
        }
        None => {
            context.load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Carries out what the plugins' root contexts ask for.
async fn run_host(context: Rc<WorkerContext>) {
    while !context.stopped.get() {
        context.host.run_due(Instant::now());
        while let Some(callout) = context.host.next_callout() {
            tokio::task::spawn_local(callout::carry_out(Rc::clone(&context), callout));
        }
        while let Some(callout) = context.host.next_grpc() {
            tokio::task::spawn_local(grpc::carry_out(Rc::clone(&context), callout));
        }
        if context.draining.get() {
            context.quieter.notify_one();
        }
        match context.host.next_deadline() {
            Some(deadline) => {
                let _ = tokio::time::timeout_at(deadline.into(), context.host_work.notified()).await;
            }
            None => context.host_work.notified().await,
        }
    }
}

/// Lets streams end, then root contexts, both until the deadline.
async fn drain(context: &Rc<WorkerContext>, deadline: Instant) -> Drained {
    context.draining.set(true);
    context.wake_connections();
    let streams = tokio::time::timeout_at(deadline.into(), async {
        while context.streams.get() > 0 {
            context.quieter.notified().await;
        }
    });
    let cut_streams = if streams.await.is_err() { context.streams.get() } else { 0 };
    context.filters.borrow_mut().clear();
    context.refresh_chains();
    context.host_work.notify_one();
    let roots = tokio::time::timeout_at(deadline.into(), async {
        while context.host.draining_roots() > 0 {
            context.quieter.notified().await;
        }
    });
    let unfinished_roots = if roots.await.is_err() { context.host.draining_roots() } else { 0 };
    Drained { cut_streams, unfinished_roots }
}
