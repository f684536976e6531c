//! OTLP over HTTP on loopback: `POST /v1/traces`, protobuf or JSON, gzip.
//!
//! Answers as the OTLP/HTTP specification asks: 200 with an
//! `ExportTraceServiceResponse`, 400 for what cannot be read, 413, 415, and
//! 503 when the database cannot take it now, which tells exporters to retry.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use flate2::read::MultiGzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::decode::{message_from_json, stored_spans};
use super::serve::Answers;
use super::{Store, control, telemetry};
use crate::error::{Error, Result};

/// OTLP asks servers to cap a decompressed request; 64 MiB is its suggestion.
const REQUEST_MAX: usize = 64 << 20;
pub(super) const PROTOBUF: &str = "application/x-protobuf";
pub(super) const JSON: &str = "application/json";

/// A listening backend.
pub struct Backend {
    pub address: SocketAddr,
    pub store: Arc<Store>,
    /// What lookups are answered from.
    pub answers: Arc<Answers>,
    /// Counts batches; whoever follows the captures waits on it.
    pub arrivals: watch::Receiver<u64>,
    server: tokio::task::JoinHandle<()>,
}

/// An upload on its way to the database, and where its outcome goes.
struct Upload {
    body: Bytes,
    form: Form,
    gzip: bool,
    outcome: oneshot::Sender<Outcome>,
}

/// What an upload is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
    /// APIClarity's telemetry.
    Telemetry,
}

type Outcome = std::result::Result<(), Refusal>;

/// Uploads that may wait for the database; further ones wait in their sockets.
const WAITING: usize = 16;

impl Backend {
    /// Listens on `address`; port 0 takes a free one.
    pub async fn start(address: SocketAddr, store: Arc<Store>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|source| {
            if source.kind() == std::io::ErrorKind::AddrInUse {
                Error::PortInUse { address: address.to_string(), flag: "--backend-listen" }
            } else {
                Error::Io { what: format!("cannot listen on {address}"), source }
            }
        })?;
        let address = listener.local_addr().map_err(Error::io("cannot read the backend's address"))?;
        let (arrived, arrivals) = watch::channel(0);
        let (uploads, waiting) = mpsc::channel(WAITING);
        let answers = Arc::new(Answers::default());
        let (writer, learner) = (store.clone(), answers.clone());
        std::thread::Builder::new()
            .name("backend".into())
            .spawn(move || write(&writer, &learner, waiting, &arrived))
            .map_err(Error::io("cannot start the backend's thread"))?;
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/api/telemetry", post(telemetry))
            .route("/publish", post(telemetry))
            .route("/api/hostsToTrace", get(|| async { axum::Json(serde_json::json!({"hosts": ["*"]})) }))
            .route("/health", get(health))
            .with_state(uploads)
            .merge(control::routes(answers.clone(), store.clone()))
            .layer(axum::extract::DefaultBodyLimit::max(REQUEST_MAX));
        let server = tokio::spawn(async move {
            // It ends with the instance; an accept error is retried inside.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, store, answers, arrivals, server })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn health() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, JSON)], r#"{"status":"ok","specVersion":"http-control-api@v1","schemaVersion":"1"}"#)
}

async fn traces(State(uploads): State<mpsc::Sender<Upload>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(json) = is_json(&headers) else {
        return failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, false, &format!("send {PROTOBUF} or {JSON}"));
    };
    let form = if json { Form::Json } else { Form::Protobuf };
    match take(&uploads, form, &headers, body).await {
        Ok(()) => success(json),
        Err(refusal) => failure(refusal.status, json, &refusal.why),
    }
}

/// APIClarity's `POST /api/telemetry` and, before it, `POST /publish`.
async fn telemetry(State(uploads): State<mpsc::Sender<Upload>>, headers: HeaderMap, body: Bytes) -> Response {
    let (status, message) = match take(&uploads, Form::Telemetry, &headers, body).await {
        Ok(()) => (StatusCode::OK, "stored".to_owned()),
        Err(refusal) => (refusal.status, refusal.why),
    };
    (status, axum::Json(serde_json::json!({"message": message}))).into_response()
}

/// Hands an upload to the writer and waits for what becomes of it.
async fn take(uploads: &mpsc::Sender<Upload>, form: Form, headers: &HeaderMap, body: Bytes) -> Outcome {
    let refused = |status, why: &str| Refusal { status, why: why.to_owned() };
    let gzip = match headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes()) {
        None | Some(b"identity" | b"") => false,
        Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => true,
        Some(_) => return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the only content coding taken is gzip")),
    };
    let (outcome, done) = oneshot::channel();
    // Both ends live as long as the backend: a lost one is its end.
    let gone = || refused(StatusCode::SERVICE_UNAVAILABLE, "the backend is stopping");
    uploads.send(Upload { body, form, gzip, outcome }).await.map_err(|_| gone())?;
    done.await.map_err(|_| gone())?
}

/// The one thread that decodes and stores: SQLite takes one writer, and a
/// single thread keeps memory flat.
fn write(store: &Store, answers: &Answers, mut waiting: mpsc::Receiver<Upload>, arrived: &watch::Sender<u64>) {
    while let Some(upload) = waiting.blocking_recv() {
        let outcome = accept(store, answers, &upload.body, upload.form, upload.gzip);
        if outcome.is_ok() {
            arrived.send_modify(|n| *n = n.wrapping_add(1));
        }
        // Whoever asked may have given up: it will send again.
        let _ = upload.outcome.send(outcome);
    }
}

struct Refusal {
    status: StatusCode,
    why: String,
}

fn accept(store: &Store, answers: &Answers, body: &[u8], form: Form, gzip: bool) -> Outcome {
    let bad = |why: String| Refusal { status: StatusCode::BAD_REQUEST, why };
    let inflated;
    let body = if gzip {
        let mut bytes = Vec::new();
        let mut reader = MultiGzDecoder::new(body).take(REQUEST_MAX as u64 + 1);
        reader.read_to_end(&mut bytes).map_err(|e| bad(format!("gzip: {e}")))?;
        if bytes.len() > REQUEST_MAX {
            return Err(Refusal {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                why: format!("more than {REQUEST_MAX} bytes"),
            });
        }
        inflated = bytes;
        inflated.as_slice()
    } else {
        body
    };
    let request = match form {
        Form::Json => message_from_json(body).map_err(|e| bad(format!("JSON: {e}")))?,
        Form::Protobuf => ExportTraceServiceRequest::decode(body).map_err(|e| bad(format!("protobuf: {e}")))?,
        Form::Telemetry => {
            let now = jiff::Timestamp::now().as_nanosecond().try_into().unwrap_or(0);
            telemetry::request(body, now).map_err(|e| bad(format!("JSON: {e}")))?
        }
    };
    let spans = stored_spans(request).map_err(bad)?;
    let unavailable = |e: Error| Refusal { status: StatusCode::SERVICE_UNAVAILABLE, why: e.to_string() };
    store.insert(&spans).map_err(unavailable)?;
    let sessions = spans.iter().filter_map(|span| span.summary.session_id.as_deref());
    answers.sessions(|open| sessions.for_each(|id| open.extracted(id)));
    answers.learn(&spans).map_err(unavailable)
}

/// Whether the body is JSON; none for a type that is neither JSON nor protobuf.
pub(super) fn is_json(headers: &HeaderMap) -> Option<bool> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(JSON) {
        Some(true)
    } else if essence.eq_ignore_ascii_case(PROTOBUF) || essence.eq_ignore_ascii_case("application/protobuf") {
        Some(false)
    } else {
        None
    }
}

/// An empty `ExportTraceServiceResponse` in the request's encoding.
fn success(json: bool) -> Response {
    if json {
        ([(header::CONTENT_TYPE, JSON)], "{}").into_response()
    } else {
        ([(header::CONTENT_TYPE, PROTOBUF)], Body::empty()).into_response()
    }
}

/// A `google.rpc.Status` in the request's encoding.
fn failure(status: StatusCode, json: bool, why: &str) -> Response {
    // google.rpc.Code: INVALID_ARGUMENT 3, UNAVAILABLE 14.
    let code = if status == StatusCode::SERVICE_UNAVAILABLE { 14 } else { 3 };
    let mut response = if json {
        let body = serde_json::json!({"code": code, "message": why}).to_string();
        (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
    } else {
        let body = RpcStatus { code, message: why.to_owned() }.encode_to_vec();
        (status, [(header::CONTENT_TYPE, PROTOBUF)], body).into_response()
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
    }
    response
}

/// `google.rpc.Status` without its details.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}
