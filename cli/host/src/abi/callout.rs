//! Callouts: requests that the root context makes. gRPC is refused in the words
//! that Envoy has for a service it cannot reach.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{Link, export};
use crate::callout::{Callout, CalloutAnswer};
use crate::headers::{HeaderKind, HeaderList};
use crate::memory::{Guest, bytes, put_u32, view};
use crate::pairs;
use crate::shared::ClusterState;
use crate::state::VmState;
use crate::status::{Outcome, Status};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_http_call", http_call,
        (cluster: u32, cluster_len: u32, headers: u32, headers_len: u32, body: u32, body_len: u32,
         trailers: u32, trailers_len: u32, timeout: u32, out: u32));
    export!(link, "env", "proxy_grpc_call", grpc_call,
        (service: u32, service_len: u32, name: u32, name_len: u32, method: u32, method_len: u32,
         metadata: u32, metadata_len: u32, message: u32, message_len: u32, timeout: u32, out: u32));
    export!(link, "env", "proxy_grpc_stream", grpc_stream,
        (service: u32, service_len: u32, name: u32, name_len: u32, method: u32, method_len: u32,
         metadata: u32, metadata_len: u32, out: u32));
    export!(link, "env", "proxy_grpc_send", grpc_send, (token: u32, message: u32, message_len: u32, end: u32));
    export!(link, "env", "proxy_grpc_close", grpc_end, (token: u32));
    export!(link, "env", "proxy_grpc_cancel", grpc_end, (token: u32));
    Ok(())
}

fn http_call(
    guest: &mut Guest<'_>,
    cluster: u32,
    cluster_len: u32,
    headers: u32,
    headers_len: u32,
    body: u32,
    body_len: u32,
    trailers: u32,
    trailers_len: u32,
    timeout: u32,
    out: u32,
) -> Outcome {
    let (memory, state) = view(guest);
    let cluster = bytes(memory, cluster, cluster_len)?;
    let body = Bytes::copy_from_slice(bytes(memory, body, body_len)?);
    let encoded = bytes(memory, headers, headers_len)?;
    bytes(memory, trailers, trailers_len)?;
    let cluster = String::from_utf8_lossy(cluster).into_owned();
    let mut headers = HeaderList::new(HeaderKind::Request);
    for (name, value) in pairs::parse(encoded) {
        headers.add(name, value);
    }
    put_u32(memory, out, 0)?;
    let token = start_call(state, cluster, headers, body, timeout)?;
    put_u32(memory, out, token)
}

fn start_call(
    state: &VmState,
    cluster: String,
    mut headers: HeaderList,
    body: Bytes,
    timeout: u32,
) -> Result<u32, Status> {
    if timeout.cast_signed() < 0 {
        return Err(Status::BadArgument);
    }
    let worker = &state.vm.worker;
    let cluster_state = worker.process.clusters.state(&cluster);
    if cluster_state == ClusterState::Unknown {
        return Err(Status::BadArgument);
    }
    if ![&b":path"[..], b":method", b":authority"].iter().all(|name| headers.contains(name)) {
        return Err(Status::BadArgument);
    }
    if cluster_state == ClusterState::NoHost {
        return Err(Status::InternalFailure);
    }
    let Some((root, part)) = state.context().root() else { return Err(Status::InternalFailure) };
    if !body.is_empty() {
        headers.set_in_place(b"content-length", body.len().to_string().as_bytes());
    }
    let token = state.vm.new_call_token();
    part.calls.borrow_mut().insert(token);
    let answer = CalloutAnswer { vm: state.vm.this.borrow().clone(), root: Rc::clone(root), token };
    let timeout = (timeout > 0).then(|| Duration::from_millis(u64::from(timeout)));
    worker.call_out(Callout { cluster, headers, body, timeout, answer });
    Ok(token)
}

fn grpc_call(
    guest: &mut Guest<'_>,
    service: u32,
    service_len: u32,
    name: u32,
    name_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    message: u32,
    message_len: u32,
    _timeout: u32,
    _out: u32,
) -> Outcome {
    let (memory, _) = view(guest);
    bytes(memory, message, message_len)?;
    let parts = [(service, service_len), (name, name_len), (method, method_len), (metadata, metadata_len)];
    refuse_grpc(guest, parts)
}

fn grpc_stream(
    guest: &mut Guest<'_>,
    service: u32,
    service_len: u32,
    name: u32,
    name_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    _out: u32,
) -> Outcome {
    let parts = [(service, service_len), (name, name_len), (method, method_len), (metadata, metadata_len)];
    refuse_grpc(guest, parts)
}

fn refuse_grpc(guest: &mut Guest<'_>, parts: [(u32, u32); 4]) -> Outcome {
    let (memory, state) = view(guest);
    for (at, len) in parts {
        bytes(memory, at, len)?;
    }
    let service = String::from_utf8_lossy(bytes(memory, parts[0].0, parts[0].1)?);
    match state.vm.worker.process.clusters.state(&service) {
        ClusterState::Unknown => Err(Status::ParseFailure.into()),
        _ => Err(Status::InternalFailure.into()),
    }
}

fn grpc_send(guest: &mut Guest<'_>, token: u32, message: u32, message_len: u32, _end: u32) -> Outcome {
    let (memory, _) = view(guest);
    bytes(memory, message, message_len)?;
    // Only tokens of streams (6, 10, 14…) can be sent to, and none is open.
    Err(if token & 3 == 2 { Status::NotFound } else { Status::BadArgument }.into())
}

fn grpc_end(_guest: &mut Guest<'_>, token: u32) -> Outcome {
    Err(if matches!(token & 3, 1 | 2) { Status::NotFound } else { Status::BadArgument }.into())
}
