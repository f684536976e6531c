//! A gRPC server of a scenario: answers with messages, writes down what it was
//! sent, ends as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::net::TcpStream;

use super::format::{Answer, Reset};
use super::observe::Seen;
use super::servers::pairs;

/// Serves one connection until it ends.
pub async fn serve(stream: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (answer, seen) = (answer.clone(), seen.clone());
        tokio::spawn(async move {
            // A stream that the client cuts is for the client to judge.
            let _ = reply(request, respond, &answer, &seen).await;
        });
    }
}

/// Headers and messages follow the first message, trailers the end of the
/// request, unless the answer is early.
async fn reply(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: &Answer,
    seen: &Mutex<Vec<Seen>>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut bytes = BytesMut::new();
    let mut more = next(&mut body, &mut bytes).await;
    let entry = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: pairs(&head.headers),
        body: String::new(),
        trailers: Vec::new(),
    };
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen { body: messages(&bytes), ..entry });
        seen.len() - 1
    };
    tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
    if answer.reset == Reset::BeforeHeaders {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut response = http::Response::builder().status(answer.status).header("content-type", "application/grpc");
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let trailers_only = answer.headers.iter().any(|(name, _)| name == "grpc-status");
    let mut send = respond.send_response(response.body(()).unwrap(), trailers_only)?;
    if trailers_only {
        return Ok(());
    }
    for message in answer.grpc.iter().flatten() {
        send.send_data(framed(message), false)?;
    }
    if answer.reset == Reset::InBody {
        send.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    while more && !answer.early {
        more = next(&mut body, &mut bytes).await;
        seen.lock().unwrap()[place].body = messages(&bytes);
    }
    let mut trailers = http::HeaderMap::new();
    for (name, value) in &answer.trailers {
        trailers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    send.send_trailers(trailers)
}

/// False at the end of the request.
async fn next(body: &mut RecvStream, bytes: &mut BytesMut) -> bool {
    match body.data().await {
        Some(Ok(data)) => {
            let _ = body.flow_control().release_capacity(data.len());
            bytes.extend_from_slice(&data);
            !body.is_end_stream()
        }
        _ => false,
    }
}

fn framed(message: &str) -> Bytes {
    let mut out = BytesMut::new();
    // As it is: a frame that no client should accept.
    if let Some(raw) = message.strip_prefix("raw:") {
        out.put_slice(raw.as_bytes());
        return out.freeze();
    }
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.put_slice(message.as_bytes());
    out.freeze()
}

/// The messages of a request, apart by `|`.
fn messages(mut bytes: &[u8]) -> String {
    let mut all = Vec::new();
    while bytes.len() >= 5 {
        let size = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        let end = (5 + size).min(bytes.len());
        all.push(String::from_utf8_lossy(&bytes[5..end]).into_owned());
        bytes = &bytes[end..];
    }
    all.join("|")
}
