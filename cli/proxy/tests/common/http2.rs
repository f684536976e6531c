//! HTTP/2 clients and upstreams for tests.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What an upstream answers.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// How often the body is sent.
    pub(crate) repeat: usize,
    pub(crate) trailers: Vec<(&'static str, &'static str)>,
    pub(crate) delay: Duration,
    /// Instead of an answer.
    pub(crate) reset: Option<Reason>,
    /// Behind the body, instead of an end.
    pub(crate) reset_within: bool,
    /// `103` first.
    pub(crate) interim: bool,
}

impl Plan {
    pub(crate) fn body(body: &str) -> Self {
        Self { status: 200, body: body.to_owned(), repeat: 1, ..Self::default() }
    }
}

/// What an upstream was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) trailers: String,
    /// Bytes of bodies that flow control let through.
    pub(crate) sent: usize,
}

/// What a client was answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
    pub(crate) trailers: String,
    pub(crate) interim: Vec<u16>,
    pub(crate) reset: Option<String>,
}

fn lines(map: &HeaderMap) -> String {
    let mut lines: Vec<String> = map
        .iter()
        .map(|(name, value)| match name.as_str() {
            "date" | "x-request-id" | "x-envoy-upstream-service-time" => format!("{name}: <>\n"),
            _ => format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())),
        })
        .collect();
    // Wire order is the library's business.
    lines.sort();
    lines.concat()
}

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, value.parse().unwrap());
    }
    map
}

async fn collect(body: &mut RecvStream) -> (String, String, Option<String>) {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                let _ = body.flow_control().release_capacity(data.len());
                bytes.extend_from_slice(&data);
            }
            Err(error) => {
                return (String::from_utf8_lossy(&bytes).into_owned(), String::new(), Some(error.to_string()));
            }
        }
    }
    let trailers = body.trailers().await.ok().flatten().map(|map| lines(&map)).unwrap_or_default();
    (String::from_utf8_lossy(&bytes).into_owned(), trailers, None)
}

pub(crate) async fn server(plan: Plan) -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<Seen>>::default();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let (plan, seen) = (plan.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(io).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(plan.clone(), Arc::clone(&seen), request, respond));
                }
            });
        }
    });
    (address, seen)
}

async fn serve(
    plan: Plan,
    seen: Arc<Mutex<Seen>>,
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let (head, mut body) = request.into_parts();
    let (text, trailers, _) = collect(&mut body).await;
    {
        let mut seen = seen.lock().unwrap();
        seen.head = format!("{} {}\n{}", head.method, head.uri, lines(&head.headers));
        (seen.body, seen.trailers) = (text, trailers);
    }
    tokio::time::sleep(plan.delay).await;
    if let Some(reason) = plan.reset {
        return respond.send_reset(reason);
    }
    if plan.interim {
        let _ = respond.send_informational(Response::builder().status(103).body(()).unwrap());
    }
    let ends = plan.body.is_empty() && plan.trailers.is_empty();
    let mut out =
        respond.send_response(Response::builder().status(plan.status.max(200)).body(()).unwrap(), ends).unwrap();
    if ends {
        return;
    }
    for _ in 0..plan.repeat {
        let mut data = Bytes::from(plan.body.clone());
        while !data.is_empty() {
            out.reserve_capacity(data.len());
            let Some(Ok(room)) = poll_fn(|cx| out.poll_capacity(cx)).await else { return };
            let part = data.split_to(room.min(data.len()));
            seen.lock().unwrap().sent += part.len();
            if out.send_data(part, false).is_err() {
                return;
            }
        }
    }
    if plan.reset_within {
        tokio::time::sleep(Duration::from_millis(50)).await;
        out.send_reset(Reason::INTERNAL_ERROR);
    } else if plan.trailers.is_empty() {
        let _ = out.send_data(Bytes::new(), true);
    } else {
        let _ = out.send_trailers(map(&plan.trailers));
    }
}

#[derive(Clone)]
pub(crate) struct Client(SendRequest<Bytes>);

impl Client {
    /// Speaks HTTP/2 without asking.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let io = TcpStream::connect(address).await.unwrap();
        Self::over(io).await
    }

    async fn over(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self(sender)
    }

    /// The server takes no more streams.
    pub(crate) async fn is_going(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(5), async {
            while poll_fn(|cx| self.0.poll_ready(cx)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .is_ok()
    }

    /// The body of an answer that nobody reads yet.
    pub(crate) async fn open(&mut self, method: &str, path: &str) -> RecvStream {
        let request = Request::builder().method(method).uri(format!("http://host{path}")).body(()).unwrap();
        let (response, _) = self.0.send_request(request, true).unwrap();
        response.await.unwrap().into_body()
    }

    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
        trailers: &[(&'static str, &'static str)],
    ) -> Said {
        poll_fn(|cx| self.0.poll_ready(cx)).await.unwrap();
        let uri = if method == "CONNECT" { path.to_owned() } else { format!("http://host{path}") };
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        *request.headers_mut() = map(headers);
        let ends = body.is_empty() && trailers.is_empty() && method != "CONNECT";
        let (mut response, mut out) = self.0.send_request(request, ends).unwrap();
        if !ends && method != "CONNECT" {
            out.send_data(Bytes::from_static(body.as_bytes()), trailers.is_empty()).unwrap();
            if !trailers.is_empty() {
                out.send_trailers(map(trailers)).unwrap();
            }
        }
        let mut said = Said::default();
        let response = loop {
            let interim = poll_fn(|cx| match response.poll_informational(cx) {
                std::task::Poll::Ready(Some(Ok(interim))) => std::task::Poll::Ready(Ok(interim.status().as_u16())),
                _ => std::pin::Pin::new(&mut response).poll(cx).map(Err),
            })
            .await;
            match interim {
                Ok(code) => said.interim.push(code),
                Err(response) => break response,
            }
        };
        match response {
            Ok(response) => {
                let (head, mut body) = response.into_parts();
                said.status = head.status.as_u16();
                said.headers = lines(&head.headers);
                (said.body, said.trailers, said.reset) = collect(&mut body).await;
            }
            Err(error) => said.reset = Some(error.to_string()),
        }
        said
    }
}

/// A certificate for `host` of its own, and its key.
pub(crate) fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["host".to_owned()]).unwrap();
    let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (chain, key)
}

/// What was agreed on, and the answer's text.
pub(crate) async fn ask_over_tls(address: SocketAddr, trusted: &Path, offered: &[&[u8]]) -> (Option<Vec<u8>>, String) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("host").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let agreed = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    if agreed.as_deref() == Some(b"h2") {
        let said = Client::over(tls).await.ask("GET", "/", &[], "", &[]).await;
        return (agreed, said.body);
    }
    tls.write_all(b"GET / HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    let _ = tls.read_to_end(&mut text).await;
    (agreed, String::from_utf8_lossy(&text).into_owned())
}
