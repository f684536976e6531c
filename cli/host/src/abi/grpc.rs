//! gRPC calls and streams: the ABI's end of them; what comes back is in
//! `crate::grpc`.

use std::rc::Rc;
use std::time::Duration;

use super::{Link, export};
use crate::context::Context;
use crate::grpc::{GrpcCallout, GrpcStream, UNAVAILABLE};
use crate::headers::{HeaderKind, HeaderList};
use crate::memory::{Guest, bytes, put_u32, view};
use crate::pairs;
use crate::proto;
use crate::shared::ClusterState;
use crate::state::VmState;
use crate::status::{Outcome, Status};
use crate::vm::Action;

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_grpc_call", call,
        (service: u32, service_len: u32, name: u32, name_len: u32, method: u32, method_len: u32,
         metadata: u32, metadata_len: u32, message: u32, message_len: u32, timeout: u32, out: u32));
    export!(link, "env", "proxy_grpc_stream", stream,
        (service: u32, service_len: u32, name: u32, name_len: u32, method: u32, method_len: u32,
         metadata: u32, metadata_len: u32, out: u32));
    export!(link, "env", "proxy_grpc_send", send, (token: u32, message: u32, message_len: u32, end: u32));
    export!(link, "env", "proxy_grpc_close", close, (token: u32));
    export!(link, "env", "proxy_grpc_cancel", cancel, (token: u32));
    Ok(())
}

/// Where a call goes: Envoy's `GrpcService`, as far as `envoy_grpc` says it.
#[derive(Default)]
struct Service {
    cluster: String,
    authority: String,
    metadata: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Service {
    /// A serialized `GrpcService`, or the plain name of a cluster.
    fn parse(state: &VmState, bytes: &[u8]) -> Result<Self, Status> {
        let Some(fields) = proto::fields(bytes) else {
            let cluster = String::from_utf8_lossy(bytes).into_owned();
            return match state.vm.worker.process.clusters.state(&cluster) {
                ClusterState::Unknown => Err(Status::ParseFailure),
                _ => Ok(Self { cluster, ..Self::default() }),
            };
        };
        let mut service = Self::default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (number, field) in fields {
            match (number, field) {
                // envoy_grpc: cluster_name = 1, authority = 2.
                (1, proto::Field::Bytes(inner)) => {
                    for (number, field) in proto::fields(inner).ok_or(Status::ParseFailure)? {
                        match (number, field) {
                            (1, proto::Field::Bytes(name)) => service.cluster = text(name),
                            (2, proto::Field::Bytes(name)) => service.authority = text(name),
                            _ => {}
                        }
                    }
                }
                // initial_metadata: key = 1, value = 2.
                (5, proto::Field::Bytes(inner)) => {
                    let mut pair = (Vec::new(), Vec::new());
                    for (number, field) in proto::fields(inner).ok_or(Status::ParseFailure)? {
                        match (number, field) {
                            (1, proto::Field::Bytes(key)) => pair.0 = key.to_vec(),
                            (2, proto::Field::Bytes(value)) => pair.1 = value.to_vec(),
                            _ => {}
                        }
                    }
                    service.metadata.push(pair);
                }
                _ => {}
            }
        }
        Ok(service)
    }

    /// The request's headers as Envoy's gRPC client puts them together; what
    /// the plugin gives comes last and wins.
    fn headers(&self, path: &str, timeout: Option<Duration>, metadata: &[(&[u8], &[u8])]) -> HeaderList {
        let mut headers = HeaderList::new(HeaderKind::Request);
        let authority = if self.authority.is_empty() { &self.cluster } else { &self.authority };
        headers.add(b":method", b"POST");
        headers.add(b":path", path.as_bytes());
        headers.add(b":authority", authority.as_bytes());
        headers.add(b":scheme", b"http");
        headers.add(b"te", b"trailers");
        if let Some(timeout) = timeout {
            headers.add(b"grpc-timeout", format!("{}m", timeout.as_millis()).as_bytes());
        }
        headers.add(b"content-type", b"application/grpc");
        self.metadata.iter().for_each(|(name, value)| headers.add(name, value));
        metadata.iter().for_each(|(name, value)| headers.add(name, value));
        headers
    }
}

/// What both kinds begin with: a service, a method, metadata.
struct Request<'a> {
    service: Service,
    path: String,
    metadata: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Request<'a> {
    fn read(memory: &'a [u8], state: &VmState, parts: [(u32, u32); 4]) -> Outcome<Self> {
        let [service, name, method, metadata] = parts.map(|(at, len)| bytes(memory, at, len));
        let (service, metadata) = (service?, metadata?);
        let path = format!("/{}/{}", String::from_utf8_lossy(name?), String::from_utf8_lossy(method?));
        Ok(Self { service: Service::parse(state, service)?, path, metadata: pairs::parse(metadata) })
    }

    /// Opens it; the token is spent even where that fails.
    fn open(&self, state: &VmState, unary: bool, timeout: Option<Duration>) -> Result<(u32, Rc<GrpcStream>), Status> {
        let Some((root, part)) = state.context().root() else { return Err(Status::InternalFailure) };
        let token = state.vm.new_grpc_token(unary);
        if self.service.cluster.is_empty() {
            return Err(Status::BadArgument);
        }
        let worker = &state.vm.worker;
        let stream = GrpcStream::new(state.vm.this.borrow().clone(), Rc::clone(root), token, unary);
        let refused = match worker.process.clusters.state(&self.service.cluster) {
            ClusterState::Usable => None,
            ClusterState::Unknown => Some("Cluster not available"),
            ClusterState::NoHost => Some("no healthy upstream"),
        };
        if let Some(why) = refused {
            // Told of once the call that opened it has returned.
            let action = Action::GrpcClosed { stream, status: UNAVAILABLE, message: why };
            state.vm.actions.borrow_mut().push_back(action);
            return Err(Status::InternalFailure);
        }
        part.grpc.borrow_mut().insert(token, Rc::clone(&stream));
        worker.open_grpc(GrpcCallout {
            cluster: self.service.cluster.clone(),
            headers: self.service.headers(&self.path, timeout, &self.metadata),
            timeout: timeout.filter(|limit| !limit.is_zero()),
            stream: Rc::clone(&stream),
        });
        Ok((token, stream))
    }
}

fn call(
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
    timeout: u32,
    out: u32,
) -> Outcome {
    let (memory, state) = view(guest);
    let parts = [(service, service_len), (name, name_len), (method, method_len), (metadata, metadata_len)];
    for (at, len) in parts.into_iter().chain([(message, message_len)]) {
        bytes(memory, at, len)?;
    }
    state.keep(message_len as usize)?;
    let request = Request::read(memory, state, parts)?;
    let message = bytes(memory, message, message_len)?;
    let timeout = Duration::from_millis(u64::from(timeout));
    let (token, stream) = request.open(state, true, Some(timeout))?;
    stream.send(message, true);
    put_u32(memory, out, token)
}

fn stream(
    guest: &mut Guest<'_>,
    service: u32,
    service_len: u32,
    name: u32,
    name_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    out: u32,
) -> Outcome {
    let (memory, state) = view(guest);
    let parts = [(service, service_len), (name, name_len), (method, method_len), (metadata, metadata_len)];
    for (at, len) in parts {
        bytes(memory, at, len)?;
    }
    state.keep(metadata_len as usize)?;
    let request = Request::read(memory, state, parts)?;
    let (token, _) = request.open(state, false, None)?;
    put_u32(memory, out, token)
}

/// The kinds of token, in their low bits.
const CALL: u32 = 1;
const STREAM: u32 = 2;

fn kind(token: u32) -> u32 {
    token & 3
}

fn opened(context: &Rc<Context>, token: u32) -> Result<Rc<GrpcStream>, Status> {
    let (_, root) = context.root().ok_or(Status::NotFound)?;
    root.grpc.borrow().get(&token).cloned().ok_or(Status::NotFound)
}

fn forget(context: &Rc<Context>, token: u32) {
    if let Some((_, root)) = context.root() {
        root.grpc.borrow_mut().remove(&token);
    }
}

fn send(guest: &mut Guest<'_>, token: u32, message: u32, message_len: u32, end: u32) -> Outcome {
    let (memory, state) = view(guest);
    let message = bytes(memory, message, message_len)?;
    state.keep(message.len())?;
    if kind(token) != STREAM {
        return Err(Status::BadArgument.into());
    }
    let stream = opened(state.context(), token)?;
    if !stream.is_over() {
        stream.send(message, end != 0);
    }
    Ok(())
}

fn close(guest: &mut Guest<'_>, token: u32) -> Outcome {
    let context = guest.data().context();
    match kind(token) {
        CALL => {
            opened(context, token)?.cancel();
            forget(context, token);
        }
        STREAM => {
            let stream = opened(context, token)?;
            if stream.is_over() {
                forget(context, token);
            } else {
                stream.close();
                stream.local_closed.set(true);
            }
        }
        _ => return Err(Status::BadArgument.into()),
    }
    Ok(())
}

fn cancel(guest: &mut Guest<'_>, token: u32) -> Outcome {
    let context = guest.data().context();
    if !matches!(kind(token), CALL | STREAM) {
        return Err(Status::BadArgument.into());
    }
    opened(context, token)?.cancel();
    forget(context, token);
    Ok(())
}
