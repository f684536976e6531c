//! What Softprobe's proxies and SDKs ask besides uploads: `POST /v1/inject` and
//! the control API of sessions.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message as _;
use serde_json::{Value, json};

use super::Store;
use super::decode;
use super::serve::{Answers, Refused, Verdict};
use super::server::{JSON, PROTOBUF, is_json};

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    answers: Arc<Answers>,
    store: Arc<Store>,
}

pub(super) fn routes(answers: Arc<Answers>, store: Arc<Store>) -> Router {
    Router::new()
        .route("/v1/inject", post(inject))
        .route("/v1/meta", get(meta))
        .route("/v1/sessions", post(open).get(list))
        .route("/v1/sessions/{id}/stats", get(stats))
        .route("/v1/sessions/{id}/state", get(state))
        .route("/v1/sessions/{id}/{*what}", post(change))
        .with_state(Shared { answers, store })
}

async fn inject(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(json) = is_json(&headers) else {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send {PROTOBUF} or {JSON}")).into_response();
    };
    let request = if json {
        decode::message_from_json(&body).map_err(|e| e.to_string())
    } else {
        ExportTraceServiceRequest::decode(body).map_err(|e| e.to_string())
    };
    let lookup = match request.map(lookup) {
        Ok(Some(lookup)) => lookup,
        Ok(None) => return (StatusCode::BAD_REQUEST, error("no span of type inject")).into_response(),
        Err(why) => return (StatusCode::BAD_REQUEST, error(&why)).into_response(),
    };
    let work = tokio::task::spawn_blocking(move || shared.answers.answer(&shared.store, &lookup));
    match work.await {
        Ok(Ok(Verdict::Hit(answer))) if json => Json(answer).into_response(),
        Ok(Ok(Verdict::Hit(answer))) => ([(header::CONTENT_TYPE, PROTOBUF)], answer.encode_to_vec()).into_response(),
        Ok(Ok(Verdict::Miss)) => (StatusCode::NOT_FOUND, error("no inject match")).into_response(),
        Ok(Err(e)) => (StatusCode::INTERNAL_SERVER_ERROR, error(&e.to_string())).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, error(&e.to_string())).into_response(),
    }
}

/// The first span that asks, with its resource.
fn lookup(request: ExportTraceServiceRequest) -> Option<ResourceSpans> {
    for mut group in request.resource_spans {
        for mut scope in std::mem::take(&mut group.scope_spans) {
            if let Some(at) = scope.spans.iter().position(|span| decode::span_type(span) == Some("inject")) {
                scope.spans = vec![scope.spans.swap_remove(at)];
                group.scope_spans = vec![scope];
                return Some(group);
            }
        }
    }
    None
}

fn error(why: &str) -> Json<Value> {
    Json(json!({"error": why}))
}

async fn meta() -> Json<Value> {
    Json(json!({
        "status": "ok",
        "specVersion": "http-control-api@v1",
        "schemaVersion": "1",
        "runtimeVersion": env!("CARGO_PKG_VERSION"),
    }))
}

async fn open(State(shared): State<Shared>, Json(request): Json<Value>) -> Response {
    answer(shared.answers.sessions(|sessions| sessions.open(&request)))
}

async fn list(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.answers.sessions(|sessions| sessions.list()))
}

async fn stats(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    answer(shared.answers.sessions(|sessions| sessions.stats(&id)))
}

async fn state(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    answer(shared.answers.sessions(|sessions| sessions.state(&id)))
}

async fn change(State(shared): State<Shared>, Path((id, what)): Path<(String, String)>, body: Bytes) -> Response {
    let request = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
    answer(match request {
        Ok(request) => shared.answers.sessions(|sessions| sessions.change(&id, &what, request)),
        Err(e) => Err(Refused::Invalid(e.to_string())),
    })
}

fn answer(result: Result<Value, Refused>) -> Response {
    let refusal = |status: StatusCode, code: &str, message: &str| {
        (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
    };
    match result {
        Ok(value) => Json(value).into_response(),
        Err(Refused::Unknown) => refusal(StatusCode::NOT_FOUND, "unknown_session", "unknown session"),
        Err(Refused::Invalid(why)) => refusal(StatusCode::BAD_REQUEST, "invalid_request", &why),
    }
}
