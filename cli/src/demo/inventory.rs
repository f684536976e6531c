//! The demo's second service: what is in stock.

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};

pub(super) fn router() -> Router {
    Router::new()
        .route("/stock", get(|| async { Json(json!({"tea": 42, "kettle": 3, "cup": 0})) }))
        .route("/stock/{item}", get(item))
        .route("/reserve", post(reserve))
}

async fn item(Path(item): Path<String>) -> impl IntoResponse {
    match item.as_str() {
        "tea" => (StatusCode::OK, Json(json!({"item": item, "left": 42}))),
        "cup" => (StatusCode::OK, Json(json!({"item": item, "left": 0}))),
        _ => (StatusCode::NOT_FOUND, Json(json!({"error": "no such item", "item": item}))),
    }
}

async fn reserve(Json(order): Json<Value>) -> impl IntoResponse {
    let id = order.get("order").cloned().unwrap_or(Value::Null);
    (StatusCode::CREATED, Json(json!({"reservation": "r-1001", "order": id})))
}
