//! Servers that tests need: an upstream that is quick, and a backend that
//! misbehaves on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::runtime;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Answers 200 with a small JSON document to everything.
pub async fn upstream() -> SocketAddr {
    let router = Router::new().fallback(|| async { ([("content-type", "application/json")], r#"{"ok":true}"#) });
    serve(router).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Good,
    Slow,
    Nonsense,
    Busy,
    /// Refuses the key.
    Forbidding,
}

/// An OTLP backend whose mood can be changed; counts distinct spans.
#[derive(Clone)]
pub struct Backend {
    pub address: SocketAddr,
    mood: Arc<AtomicU8>,
    spans: Arc<std::sync::Mutex<std::collections::HashSet<Vec<u8>>>>,
    pub uploads: Arc<AtomicU64>,
    pub bodies: Arc<std::sync::Mutex<Vec<(axum::http::HeaderMap, Bytes)>>>,
}

impl Backend {
    pub async fn start() -> Self {
        let mut backend = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            mood: Arc::default(),
            spans: Arc::default(),
            uploads: Arc::default(),
            bodies: Arc::default(),
        };
        let router = Router::new()
            .fallback(receive)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(backend.clone());
        backend.address = serve(router).await;
        backend
    }

    pub fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    pub fn distinct_spans(&self) -> u64 {
        self.spans.lock().unwrap().len() as u64
    }
}

async fn receive(State(backend): State<Backend>, headers: axum::http::HeaderMap, body: Bytes) -> Response {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;
    match backend.mood.load(Ordering::SeqCst) {
        mood if mood == Mood::Slow as u8 => tokio::time::sleep(Duration::from_secs(3)).await,
        mood if mood == Mood::Nonsense as u8 => {
            return (StatusCode::IM_A_TEAPOT, "<html>not OTLP</html>").into_response();
        }
        mood if mood == Mood::Forbidding as u8 => return StatusCode::FORBIDDEN.into_response(),
        mood if mood == Mood::Busy as u8 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => {}
    }
    backend.uploads.fetch_add(1, Ordering::SeqCst);
    let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    backend.bodies.lock().unwrap().push((headers, body));
    let mut spans = backend.spans.lock().unwrap();
    for group in request.resource_spans {
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.insert([span.trace_id, span.span_id].concat());
        }
    }
    ([("content-type", "application/x-protobuf")], Vec::new()).into_response()
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// The same on a thread of its own, for as long as the tests run.
pub fn background_upstream() -> std::net::SocketAddr {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            tx.send(upstream().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    rx.recv().unwrap()
}
