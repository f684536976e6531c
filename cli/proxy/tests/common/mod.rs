//! A proxy with real sockets: raw clients, scripted upstreams.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../../../host/tests/common/guest.rs"]
mod guest;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use spctl_proxy::{
    Cluster, FilterSpec, Listener, LogLine, PluginConfig, Proxy, ProxyConfig, Route, StatValue, Threads,
};

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use guest::{Guest, guest};

/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "it never came about: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A connection to read and write by hand.
pub(crate) struct Client {
    io: TcpStream,
    buffer: Vec<u8>,
}

/// A response as it was on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let io = TcpStream::connect(address).unwrap();
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        io.set_nodelay(true).unwrap();
        Self { io, buffer: Vec::new() }
    }

    pub(crate) fn from(io: TcpStream) -> Self {
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        io.set_nodelay(true).unwrap();
        Self { io, buffer: Vec::new() }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.io
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.io.write_all(text.as_ref()).unwrap();
        self
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.io.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything up to and with a mark.
    pub(crate) fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                let rest = self.buffer.split_off(at + mark.len());
                let taken = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8_lossy(&taken).into_owned();
            }
            assert!(self.fill(), "closed before {mark:?}: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "closed {} bytes short", count - self.buffer.len());
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// What is left until the peer closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// The head of a message.
    pub(crate) fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    /// A whole message with a length or chunks; what a chunked one consists of
    /// is returned joined, trailers left out.
    pub(crate) fn message(&mut self) -> Answer {
        let head = self.head();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let body = if field("transfer-encoding: chunked").is_some() {
            self.chunks()
        } else {
            let length = field("content-length: ").map_or(0, |length| length.parse().unwrap());
            self.exactly(length)
        };
        Answer { head, body }
    }

    pub(crate) fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.until("\r\n").trim_end(), 16).unwrap();
            if size == 0 {
                while self.until("\r\n") != "\r\n" {}
                return body;
            }
            body.extend(self.exactly(size));
            self.until("\r\n");
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: host\r\n\r\n")).message()
    }
}

/// An upstream whose every connection is handled by a function on its thread.
pub(crate) fn upstream(serve: impl Fn(Client) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for io in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(Client::from(io)));
        }
    });
    address
}

/// An upstream that answers each request with its own head and body as text.
pub(crate) fn echo() -> SocketAddr {
    upstream(|mut client| {
        while !client.buffer.is_empty() || client.fill() {
            let request = client.message();
            let text = format!("{}{}", request.head, request.text());
            client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

pub(crate) struct Setup {
    pub(crate) config: ProxyConfig,
    pub(crate) lines: Arc<Mutex<Vec<LogLine>>>,
}

/// Two workers, one listener whose every path goes to the cluster `app`.
pub(crate) fn setup(app: SocketAddr) -> Setup {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let mut config = ProxyConfig::new(Arc::new(move |line: &LogLine| sink.lock().unwrap().push(line.clone())));
    config.workers = 2;
    config.limits.memory = 64 << 20;
    let mut listener = Listener::new("ingress", "127.0.0.1:0".parse().unwrap(), vec![Route::new("/", "app")]);
    listener.enable_trailers = true;
    config.listeners.push(listener);
    let mut app = Cluster::new("app", vec![app.to_string()]);
    app.enable_trailers = true;
    config.clusters.push(app);
    Setup { config, lines }
}

pub(crate) fn spec(name: &str, guest: &Guest) -> FilterSpec {
    let plugin =
        PluginConfig { name: name.into(), root_id: "root".into(), vm_id: "vm".into(), ..PluginConfig::default() };
    FilterSpec { name: name.into(), threads: Threads::All, wasm: guest.wasm().into(), plugin }
}

impl Setup {
    pub(crate) fn filter(mut self, filter: FilterSpec) -> Self {
        self.config.listeners[0].filters.push(filter.name.clone());
        self.config.filters.push(filter);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn start(self) -> Running {
        let proxy = Proxy::start(self.config).unwrap();
        let address = proxy.addresses()[0].1;
        Running { proxy, address, lines: self.lines }
    }
}

pub(crate) struct Running {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    lines: Arc<Mutex<Vec<LogLine>>>,
}

impl Running {
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.message.clone()).collect()
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        match self.proxy.stats().into_iter().find(|stat| stat.name == name).map(|stat| stat.value) {
            Some(StatValue::Counter(value) | StatValue::Gauge(value)) => value,
            other => panic!("{name}: {other:?}"),
        }
    }
}
