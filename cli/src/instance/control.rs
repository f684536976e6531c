//! The control socket: what commands ask of a running instance, as HTTP with
//! JSON on a Unix socket that only the user can reach. Streams are one JSON
//! document a line.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::Instance;
use super::levels::Held;
use super::serve::ServeRequest;
use super::status::{Counters, LogEntry, ReloadRequest};
use crate::backend::{Filter, exchange};
use crate::error::{Error, Result};
use crate::export;
use crate::logs::{Following, Level};

/// Serves until a stop is asked for; `stop` receives the answer's final
/// counters once they are on their way to the asker.
pub(super) fn serve(
    instance: Arc<Instance>,
    listener: UnixListener,
    stop: mpsc::Sender<Counters>,
) -> tokio::task::JoinHandle<()> {
    let shared = Arc::new(Shared { instance, stop });
    let router = Router::new()
        .route("/status", get(status))
        .route("/reload", post(reload))
        .route("/logs", get(logs))
        .route("/captures", get(captures).delete(clear))
        .route("/captures/follow", get(follow))
        .route("/captures/export", get(exported))
        .route("/captures/serve", post(serve_captures).delete(stop_serving))
        .route("/captures/{id}", get(capture))
        .route("/demo/inventory", post(inventory))
        .route("/stop", post(stop_instance))
        .with_state(shared);
    tokio::spawn(async move {
        // It ends with the instance.
        let _ = axum::serve(listener, router).await;
    })
}

struct Shared {
    instance: Arc<Instance>,
    stop: mpsc::Sender<Counters>,
}

type Asked = State<Arc<Shared>>;

async fn status(State(shared): Asked) -> Response {
    answer(shared.instance.status().await)
}

async fn reload(State(shared): Asked, Json(request): Json<ReloadRequest>) -> Response {
    // Its own task: an asker that goes away must not leave half a reload.
    let work = tokio::spawn(async move { shared.instance.reload(request).await });
    match work.await {
        Ok(done) => answer(done),
        Err(e) => answer::<()>(Err(Error::Instance { reason: e.to_string() })),
    }
}

#[derive(Deserialize)]
struct LogQuery {
    follow: bool,
    /// The `wasm` logger is set to it while the asker follows.
    level: Option<Level>,
}

async fn logs(State(shared): Asked, Query(query): Query<LogQuery>) -> Response {
    let (kept, live) = shared.instance.logs.follow();
    if !query.follow {
        return lines(stream::iter(kept.into_iter().map(|line| json_line(&line))));
    }
    let held = match query.level {
        Some(level) => match Held::new(shared.instance.clone(), level).await {
            Ok(held) => Some(held),
            Err(error) => return answer::<()>(Err(error)),
        },
        None => None,
    };
    let kept = stream::iter(kept.into_iter().map(|line| json_line(&LogEntry::Line(line))));
    // The level is held for as long as the stream lives.
    let live = stream::unfold((live, held), |(mut live, held)| async move {
        let entry = match Following::next(&mut live).await {
            Following::Line(line) => LogEntry::Line(line),
            Following::Lost(lost) => LogEntry::Lost { lost },
            Following::Ended => return None,
        };
        Some((json_line(&entry), (live, held)))
    });
    lines(futures_util::StreamExt::chain(kept, live))
}

async fn captures(State(shared): Asked, Query(filter): Query<Filter>) -> Response {
    answer(blocking(shared, move |instance| instance.backend()?.store.list(&filter)).await)
}

async fn capture(State(shared): Asked, Path(id): Path<String>) -> Response {
    answer(blocking(shared, move |instance| exchange(&instance.backend()?.store.find(&id)?)).await)
}

async fn clear(State(shared): Asked) -> Response {
    answer(blocking(shared, |instance| instance.backend()?.store.clear()).await)
}

async fn serve_captures(State(shared): Asked, Json(request): Json<ServeRequest>) -> Response {
    // Its own task, as for a reload.
    let work = tokio::spawn(async move { shared.instance.serve(request).await });
    answer(work.await.unwrap_or_else(|e| Err(Error::Instance { reason: e.to_string() })))
}

async fn stop_serving(State(shared): Asked) -> Response {
    let work = tokio::spawn(async move { shared.instance.stop_serving().await });
    answer(work.await.unwrap_or_else(|e| Err(Error::Instance { reason: e.to_string() })))
}

async fn inventory(State(shared): Asked, Json(runs): Json<bool>) -> Response {
    answer(shared.instance.run_inventory(runs).await)
}

#[derive(Deserialize)]
struct ExportQuery {
    format: export::Format,
    #[serde(flatten)]
    filter: Filter,
}

async fn exported(State(shared): Asked, Query(query): Query<ExportQuery>) -> Response {
    let work = blocking(shared, move |instance| {
        export::export(query.format, &instance.backend()?.store.spans(&query.filter)?)
    });
    match work.await {
        Ok(text) => text.into_response(),
        Err(error) => answer::<()>(Err(error)),
    }
}

async fn follow(State(shared): Asked, Query(filter): Query<Filter>) -> Response {
    let start = match filter.after {
        Some(after) => Ok(after),
        None => shared.instance.backend().and_then(|backend| backend.store.newest()),
    };
    let (backend, start) = match (shared.instance.backend(), start) {
        (Ok(backend), Ok(start)) => (backend, start),
        (Err(error), _) | (_, Err(error)) => return answer::<()>(Err(error)),
    };
    let state = (backend.arrivals.clone(), backend.store.clone(), start, filter);
    lines(stream::unfold(state, |(mut arrivals, store, after, filter)| async move {
        loop {
            let query = Filter { after: Some(after), ..filter.clone() };
            let reader = store.clone();
            let page = tokio::task::spawn_blocking(move || reader.list(&query)).await.ok()?.ok()?;
            if let Some(next) = page.next {
                let text: String = page.exchanges.iter().map(json_text).collect();
                return Some((Ok::<_, Infallible>(Bytes::from(text)), (arrivals, store, next, filter)));
            }
            arrivals.changed().await.ok()?;
        }
    }))
}

async fn stop_instance(State(shared): Asked) -> Response {
    let counters = shared.instance.stop().await;
    // The receiver waits for exactly this; if it is gone the process is ending anyway.
    let _ = shared.stop.send(counters.clone()).await;
    answer(Ok(counters))
}

async fn blocking<T: Send + 'static>(
    shared: Arc<Shared>,
    work: impl FnOnce(&Instance) -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(move || work(&shared.instance))
        .await
        .map_err(|e| Error::Instance { reason: e.to_string() })?
}

fn answer<T: Serialize>(result: Result<T>) -> Response {
    match result {
        Ok(data) => Json(data).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(error.report())).into_response(),
    }
}

fn lines(
    stream: impl futures_util::Stream<Item = std::result::Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    Body::from_stream(stream).into_response()
}

fn json_line<T: Serialize>(value: &T) -> std::result::Result<Bytes, Infallible> {
    Ok(Bytes::from(json_text(value)))
}

fn json_text<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}
