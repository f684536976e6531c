//! The demo's first service: a shop. It asks the inventory through the
//! outbound listener, handing the trace context on as services should, and
//! answers in every shape worth capturing.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use super::traffic::secrets;
use crate::adapters::http::send;

type Inventory = Arc<OnceLock<SocketAddr>>;

/// The headers a service hands on so that its calls join the caller's trace.
const TRACE_HEADERS: &[&str] = &["traceparent", "tracestate", "x-sp-session-id"];

pub(super) fn router(inventory: Inventory) -> Router {
    Router::new()
        .route("/products", get(products))
        .route("/products/{item}", get(product))
        .route("/orders", post(order))
        .route("/orders/{id}", put(change_order).delete(cancel_order))
        .route("/login", post(login))
        .route("/account", get(account))
        .route("/search", get(|| async { Json(json!({"hits": ["tea"]})) }))
        .route("/upload", post(upload))
        .route("/import", post(|body: Bytes| async move { Json(json!({"imported_bytes": body.len()})) }))
        .route("/report", get(report))
        .route("/events", get(events))
        .route(
            "/broken",
            get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": "the till is on fire"}))) }),
        )
        .route("/logout", delete(|| async { StatusCode::NO_CONTENT }))
        .with_state(inventory)
}

async fn products(State(inventory): State<Inventory>, headers: HeaderMap) -> Response {
    match ask(&inventory, &headers, "GET", "/stock", None).await {
        Ok((_, stock)) => {
            Json(json!({"products": [{"name": "tea", "price": 4.5}, {"name": "kettle", "price": 39}], "stock": stock}))
                .into_response()
        }
        Err(response) => response,
    }
}

async fn product(State(inventory): State<Inventory>, Path(item): Path<String>, headers: HeaderMap) -> Response {
    match ask(&inventory, &headers, "GET", &format!("/stock/{item}"), None).await {
        Ok((status, stock)) => (status, Json(json!({"name": item, "stock": stock}))).into_response(),
        Err(response) => response,
    }
}

async fn order(State(inventory): State<Inventory>, headers: HeaderMap, Json(order): Json<Value>) -> Response {
    let wanted = json!({"order": "o-77", "items": order.get("items")});
    match ask(&inventory, &headers, "POST", "/reserve", Some(wanted)).await {
        Ok((_, reservation)) => {
            let location = [(header::LOCATION, "/orders/o-77")];
            (StatusCode::CREATED, location, Json(json!({"order": "o-77", "reservation": reservation}))).into_response()
        }
        Err(response) => response,
    }
}

async fn change_order(Path(id): Path<String>) -> impl IntoResponse {
    Json(json!({"order": id, "changed": true}))
}

async fn cancel_order() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn login() -> impl IntoResponse {
    let cookie = format!("session={}; HttpOnly; Path=/", secrets::COOKIE);
    (StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, "/account".to_owned())], "welcome")
}

async fn account() -> impl IntoResponse {
    Json(json!({"name": "Ada", "card": {"cardNumber": secrets::CARD}, "access_token": secrets::TOKEN}))
}

async fn upload(body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, Json(json!({"received_bytes": body.len()})))
}

/// Gzip JSON with a secret inside: it must not reach the captures either.
async fn report() -> Response {
    let rows: Vec<Value> = (0..40).map(|n| json!({"row": n, "sold": n * 3, "api_key": secrets::API_KEY})).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(json!({"rows": rows}).to_string().as_bytes());
    match written.and_then(|()| encoder.finish()) {
        Ok(body) => {
            ([(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")], body).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// Server-sent events, one chunk each.
async fn events() -> Response {
    let events = stream::unfold(1, |n| async move {
        if n > 4 {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((Ok::<_, Infallible>(Bytes::from(format!("id: {n}\ndata: {{\"price\": {}}}\n\n", 4 + n))), n + 1))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

/// Calls the inventory; an unreachable one is a 502 of the shop.
async fn ask(
    inventory: &Inventory,
    from: &HeaderMap,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<(StatusCode, Value), Response> {
    let failed = |why: String| (StatusCode::BAD_GATEWAY, Json(json!({"error": why}))).into_response();
    let Some(address) = inventory.get() else { return Err(failed("the inventory is not connected".into())) };
    let mut request =
        Request::builder().method(method).uri(path).header("host", "inventory").header("accept", "application/json");
    for name in TRACE_HEADERS {
        for value in from.get_all(*name) {
            request = request.header(*name, value);
        }
    }
    let body = match body {
        Some(json) => {
            request = request.header("content-type", "application/json");
            Full::from(json.to_string())
        }
        None => Full::default(),
    };
    let request = request.body(body).map_err(|e| failed(e.to_string()))?;
    let answer = send(*address, request, Duration::from_secs(5)).await.map_err(|e| failed(e.to_string()))?;
    if answer.status.is_server_error() {
        return Err(failed(format!("the inventory answers {}", answer.status.as_u16())));
    }
    Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null)))
}
