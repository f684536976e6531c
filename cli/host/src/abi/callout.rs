//! HTTP callouts: requests that the root context makes.

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
    state.keep(body.len() + headers.byte_size())?;
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
