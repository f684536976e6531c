//! A process of one thread without sockets: drives chains in process.
//!
//! For tests of plugins and of this host. The clock is the real one; nothing
//! happens unless it is asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use crate::body::Body;
use crate::chain::{Chain, ChainParams, Output};
use crate::config::{Limits, Node, PluginConfig};
use crate::error::LoadError;
use crate::exchange::{ListenerInfo, RouteInfo, RouteTable, Side, StreamInfo};
use crate::headers::{HeaderKind, HeaderList};
use crate::log::{Level, LogLine};
use crate::plugin::{LoadFailure, Plugin};
use crate::shared::{ClusterState, ClusterTable, Process, ProcessConfig};
use crate::trace::Sink;
use crate::worker::{Worker, WorkerFilter};

/// What has left a stream so far.
#[derive(Debug, Default, PartialEq)]
pub struct Sent {
    /// What went upstream and what went to the client.
    pub request: Message,
    pub response: Message,
    pub was_reset: bool,
}

/// One side of [`Sent`].
#[derive(Debug, Default, PartialEq)]
pub struct Message {
    pub headers: Option<Vec<(String, String)>>,
    pub body: Vec<u8>,
    pub trailers: Option<Vec<(String, String)>>,
    pub ended: bool,
}

struct Clusters(HashMap<String, ClusterState>);

impl ClusterTable for Clusters {
    fn state(&self, name: &str) -> ClusterState {
        self.0.get(name).copied().unwrap_or(ClusterState::Unknown)
    }
}

struct OneRoute(Arc<RouteInfo>);

impl RouteTable for OneRoute {
    fn route(&self, _headers: &HeaderList) -> Option<Arc<RouteInfo>> {
        Some(Arc::clone(&self.0))
    }
}

/// A process, a worker and the filters of its only chain.
pub struct Sandbox {
    process: Arc<Process>,
    worker: Worker,
    filters: RefCell<Vec<Rc<WorkerFilter>>>,
    lines: Arc<Mutex<Vec<LogLine>>>,
    buffer_limit: usize,
}

impl Sandbox {
    /// A sandbox with the clusters `app`, which can be called, and `empty`,
    /// which has no host.
    pub fn new(limits: Limits) -> Result<Self, LoadError> {
        Self::traced(limits, None)
    }

    /// The same, whose calls between plugins and host are told to `trace`.
    pub fn traced(limits: Limits, trace: Option<Sink>) -> Result<Self, LoadError> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let clusters = [("app".to_owned(), ClusterState::Usable), ("empty".to_owned(), ClusterState::NoHost)].into();
        let process = Process::new(ProcessConfig {
            node: Node { id: "node".to_owned(), cluster: "cluster".to_owned(), ..Node::default() },
            limits,
            module_cache: None,
            log_level: Level::Trace,
            log: Arc::new(move |line: &LogLine| {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
            }),
            clusters: Arc::new(Clusters(clusters)),
            trace,
        })?;
        let worker = Worker::new(&process, Rc::new(|| ()), Arc::new(|| ()));
        Ok(Self { process, worker, filters: RefCell::default(), lines, buffer_limit: 1 << 20 })
    }

    /// Bytes that filters of new streams may hold back.
    pub fn set_buffer_limit(&mut self, limit: usize) {
        self.buffer_limit = limit;
    }

    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Loads a plugin and puts it at the end of the chain.
    pub fn add(&self, wasm: &[u8], config: PluginConfig) -> Result<Rc<WorkerFilter>, LoadFailure> {
        let plugin = Plugin::load(&self.process, wasm, config)?;
        let filter = self.worker.filter(&plugin);
        self.filters.borrow_mut().push(Rc::clone(&filter));
        Ok(filter)
    }

    /// Takes every filter out of the chain of new streams.
    pub fn clear(&self) {
        self.filters.borrow_mut().clear();
    }

    /// Everything logged since the last call, in the order it was.
    pub fn take_lines(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The texts of [`Self::take_lines`].
    pub fn take_log(&self) -> Vec<String> {
        self.take_lines().into_iter().map(|line| line.message).collect()
    }

    /// Lets timers, queues and farewells have their turn.
    pub fn run(&self) {
        self.worker.run_due(Instant::now());
    }

    /// A stream through the chain as it is now.
    pub fn stream(&self) -> Stream {
        let route = RouteInfo {
            name: "route".to_owned(),
            virtual_host: "all".to_owned(),
            cluster: Some("app".to_owned()),
            ..RouteInfo::default()
        };
        let chain = Chain::new(ChainParams {
            filters: &self.filters.borrow(),
            info: StreamInfo { start: SystemTime::now(), ..StreamInfo::default() },
            listener: Arc::new(ListenerInfo { name: "listener".to_owned(), ..ListenerInfo::default() }),
            routes: Rc::new(OneRoute(Arc::new(route))),
            buffer_limit: self.buffer_limit,
        });
        Stream { chain, sent: Sent::default() }
    }
}

/// One stream being driven by hand.
pub struct Stream {
    chain: Rc<Chain>,
    sent: Sent,
}

fn list(kind: HeaderKind, pairs: &[(&str, &str)]) -> HeaderList {
    let mut list = HeaderList::new(kind);
    pairs.iter().for_each(|(name, value)| list.add(name.as_bytes(), value.as_bytes()));
    list
}

fn texts(list: &HeaderList) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    list.iter().map(|(name, value)| (text(name), text(value))).collect()
}

impl Stream {
    pub fn chain(&self) -> &Rc<Chain> {
        &self.chain
    }

    /// `GET /` or, with a body to come, `POST /`, with more headers.
    pub fn request(&mut self, more: &[(&str, &str)], end_stream: bool) -> &mut Self {
        let method = if end_stream { "GET" } else { "POST" };
        let mut pairs = vec![(":authority", "host"), (":path", "/"), (":method", method), (":scheme", "http")];
        pairs.extend_from_slice(more);
        self.chain.on_headers(Side::Request, list(HeaderKind::Request, &pairs), end_stream);
        self
    }

    /// A response of 200 with more headers.
    pub fn response(&mut self, more: &[(&str, &str)], end_stream: bool) -> &mut Self {
        let mut pairs = vec![(":status", "200")];
        pairs.extend_from_slice(more);
        self.chain.on_headers(Side::Response, list(HeaderKind::Response, &pairs), end_stream);
        self
    }

    pub fn data(&mut self, side: Side, data: &str, end_stream: bool) -> &mut Self {
        self.chain.on_data(side, Body::from(Bytes::copy_from_slice(data.as_bytes())), end_stream);
        self
    }

    pub fn trailers(&mut self, side: Side, pairs: &[(&str, &str)]) -> &mut Self {
        self.chain.on_trailers(side, list(HeaderKind::RequestTrailers, pairs));
        self
    }

    /// The stream is complete.
    pub fn finish(&mut self) -> &mut Self {
        self.chain.finish();
        self
    }

    /// All that has left the stream since it began.
    pub fn sent(&mut self) -> &Sent {
        while let Some(output) = self.chain.next_output() {
            let exchange = self.chain.exchange();
            match output {
                Output::Reset => self.sent.was_reset = true,
                Output::Headers { side, end_stream } => {
                    let headers = exchange.headers(side).map(|headers| texts(&headers));
                    let message = self.sent.side(side);
                    message.headers = headers;
                    message.ended = end_stream;
                }
                Output::Data { side, data, end_stream } => {
                    let message = self.sent.side(side);
                    message.body.extend_from_slice(&data.to_vec());
                    message.ended = end_stream;
                }
                Output::Trailers { side } => {
                    let trailers = exchange.trailers(side).map(|trailers| texts(&trailers));
                    let message = self.sent.side(side);
                    message.trailers = trailers;
                    message.ended = true;
                }
            }
        }
        &self.sent
    }
}

impl Sent {
    fn side(&mut self, side: Side) -> &mut Message {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }
}

impl Message {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
