//! Bytes in, bytes out: what a client and an upstream see of a proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::envoy::{self, Envoy, EnvoySettings};
use crate::common::{Running, setup, upstream};
use spctl_proxy::ProxyConfig;

/// Nothing more comes once it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);

/// One conversation.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Written one after the other, apart on the wire.
    pub(crate) sends: Vec<Vec<u8>>,
    /// What the upstream answers to each request; a first byte `!` is left out
    /// and means that it closes then.
    pub(crate) answer: Vec<u8>,
    /// The statuses the client gets.
    pub(crate) statuses: Vec<u16>,
    /// How long to look, and not only until it is quiet.
    pub(crate) watch: Duration,
    /// What had reached the upstream before the end is a race.
    pub(crate) client_only: bool,
    /// What stands in the way of sameness, if anything does.
    pub(crate) differs: Option<&'static str>,
}

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Case {
    pub(crate) fn new(name: impl Into<String>, sends: impl Into<Vec<u8>>, statuses: impl Into<Vec<u16>>) -> Self {
        Self {
            name: name.into(),
            sends: vec![sends.into()],
            answer: OK.to_vec(),
            statuses: statuses.into(),
            watch: Duration::ZERO,
            client_only: false,
            differs: None,
        }
    }

    pub(crate) fn then(mut self, send: impl Into<Vec<u8>>) -> Self {
        self.sends.push(send.into());
        self
    }

    pub(crate) fn answer(mut self, answer: impl Into<Vec<u8>>) -> Self {
        self.answer = answer.into();
        self
    }

    pub(crate) fn watch(mut self, millis: u64) -> Self {
        self.watch = Duration::from_millis(millis);
        self
    }

    pub(crate) fn client_only(mut self) -> Self {
        self.client_only = true;
        self
    }

    pub(crate) fn differs(mut self, why: &'static str) -> Self {
        self.differs = Some(why);
        self
    }
}

/// How a conversation went.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    client: String,
    /// The proxy had closed when the looking ended.
    closed: bool,
    /// By upstream connection.
    upstream: Vec<String>,
}

#[derive(Default)]
struct Script {
    answer: Vec<u8>,
    seen: Vec<Arc<Mutex<Vec<u8>>>>,
}

/// Our proxy, and an Envoy if there is one, before upstreams of the same kind.
pub(crate) struct Pair {
    ours: Running,
    our_script: Arc<Mutex<Script>>,
    envoy: Option<(Envoy, Arc<Mutex<Script>>)>,
}

const ALL_TO_APP: &str = "{name: local, virtual_hosts: [{name: all, domains: [\"*\"], routes: [{match: {prefix: \"/\"}, route: {cluster: app}}]}]}";

impl Pair {
    /// Both with one route to the cluster `app`, and what the two arguments add.
    pub(crate) fn start(manager: &str, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        Self::with_routes(manager, ALL_TO_APP, change)
    }

    pub(crate) fn with_routes(manager: &str, routes: &str, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let our_script = Arc::<Mutex<Script>>::default();
        let ours = setup(scripted(&our_script)).with(|config| config.workers = 1).with(change).start();
        let envoy = envoy::binary().map(|binary| {
            let script = Arc::<Mutex<Script>>::default();
            let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let settings = EnvoySettings {
                manager: manager.to_owned(),
                routes: routes.to_owned(),
                clusters: vec![
                    envoy::cluster("app", scripted(&script), envoy::HTTP1, ""),
                    envoy::cluster("dead", dead, envoy::HTTP1, ""),
                ],
                ..EnvoySettings::default()
            };
            (Envoy::start(&binary, &settings), script)
        });
        Self { ours, our_script, envoy }
    }

    /// Has every conversation with both and tells all differences at once.
    pub(crate) fn compare(&self, cases: impl IntoIterator<Item = Case>) {
        let mut problems = Vec::new();
        for case in cases {
            let ours = converse(self.ours.address, &self.our_script, &case);
            let envoys = self.envoy.as_ref().map(|(envoy, script)| converse(envoy.address, script, &case));
            let truth = envoys.as_ref().unwrap_or(&ours);
            if statuses(&truth.client) != case.statuses && (case.differs.is_none() || envoys.is_some()) {
                problems.push(format!("{}: expected {:?}, got {truth:#?}", case.name, case.statuses));
            }
            match &envoys {
                Some(envoys) if *envoys != ours && case.differs.is_none() => {
                    problems.push(format!("{}:\n  envoy {envoys:#?}\n  ours  {ours:#?}", case.name));
                }
                Some(envoys) if *envoys == ours && case.differs.is_some() => {
                    problems.push(format!("{}: no longer differs", case.name));
                }
                _ => {}
            }
        }
        assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
    }
}

fn statuses(client: &str) -> Vec<u16> {
    let lines = client.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|rest| rest.split([' ', '\r']).next()?.parse().ok()).collect()
}

fn converse(proxy: SocketAddr, script: &Mutex<Script>, case: &Case) -> Seen {
    {
        let mut script = script.lock().unwrap();
        script.answer = case.answer.clone();
        script.seen.iter().for_each(|seen| seen.lock().unwrap().clear());
    }
    let mut client = TcpStream::connect(proxy).unwrap();
    client.set_nodelay(true).unwrap();
    for (n, send) in case.sends.iter().enumerate() {
        if n > 0 {
            thread::sleep(Duration::from_millis(40));
        }
        // The proxy may have had enough.
        let _ = client.write_all(send);
    }
    let (bytes, closed) = listen(&mut client, case.watch);
    drop(client);
    thread::sleep(Duration::from_millis(20));
    let seen = std::mem::take(&mut script.lock().unwrap().seen);
    let counts = |_: &&Arc<Mutex<Vec<u8>>>| !case.client_only;
    let upstream: Vec<String> = seen
        .iter()
        .filter(counts)
        .map(|seen| normalised(&seen.lock().unwrap()))
        .filter(|seen| !seen.is_empty())
        .collect();
    script.lock().unwrap().seen = seen;
    Seen { client: normalised(&bytes), closed, upstream }
}

fn listen(client: &mut TcpStream, watch: Duration) -> (Vec<u8>, bool) {
    let (started, mut bytes, mut chunk) = (Instant::now(), Vec::new(), [0; 16 << 10]);
    loop {
        let wait = watch.checked_sub(started.elapsed()).unwrap_or_default().max(QUIET);
        client.set_read_timeout(Some(wait)).unwrap();
        match client.read(&mut chunk) {
            Ok(0) => return (bytes, true),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return (bytes, false),
            Err(_) => return (bytes, true),
        }
    }
}

/// What no two runs share, and nothing else.
fn normalised(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let fixed = ["date: ", "x-request-id: ", "x-envoy-upstream-service-time: "];
        match fixed.iter().find(|name| line.starts_with(*name)) {
            Some(name) => {
                out.push_str(name);
                out.push_str("<>\r\n");
            }
            None if line.len() > 300 => {
                out.push_str(&format!("{}… {} bytes\n", line.chars().take(60).collect::<String>(), line.len()))
            }
            None => out.push_str(line),
        }
    }
    out
}

/// An upstream that answers every whole request as the script says.
fn scripted(script: &Arc<Mutex<Script>>) -> SocketAddr {
    let script = Arc::clone(script);
    upstream(move |client| {
        let mut socket = client.socket().try_clone().unwrap();
        socket.set_read_timeout(None).unwrap();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        script.lock().unwrap().seen.push(Arc::clone(&seen));
        let (mut pending, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            match socket.read(&mut chunk) {
                Ok(n) if n > 0 => {
                    pending.extend_from_slice(&chunk[..n]);
                    seen.lock().unwrap().extend_from_slice(&chunk[..n]);
                }
                _ => return,
            }
            while let Some(len) = request_len(&pending) {
                pending.drain(..len);
                let answer = script.lock().unwrap().answer.clone();
                let (closes, answer) = match answer.strip_prefix(b"!") {
                    Some(rest) => (true, rest.to_vec()),
                    None => (false, answer),
                };
                if socket.write_all(&answer).is_err() || closes {
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
        }
    })
}

/// Length of the request at the front, if all of it is there. Chunks are found
/// by a proxy's own way of writing them.
fn request_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]);
    if text.contains("transfer-encoding: chunked") {
        let mut at = head;
        loop {
            let line = bytes[at..].windows(2).position(|window| window == b"\r\n")? + at;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..line]).unwrap(), 16).unwrap();
            if size == 0 {
                let end = bytes[line..].windows(4).position(|window| window == b"\r\n\r\n")?;
                return Some(line + end + 4);
            }
            at = line + 2 + size + 2;
            if at > bytes.len() {
                return None;
            }
        }
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}
