//! Properties by path: what Envoy's CEL attributes show of a stream.
//!
//! Which of them a guest can see depends on the maps it holds at the moment;
//! the answers are the ones of Envoy since 1.33.

use std::time::{Duration, SystemTime};

use crate::config::{Locality, Metadata, Node, Value};
use crate::context::StreamPart;
use crate::exchange::Side;
use crate::headers::HeaderList;
use crate::pairs;
use crate::proto;
use crate::state::VmState;
use crate::status::Status;

/// A value on the way along a path.
enum Cel<'a> {
    Bytes(Vec<u8>),
    Int(i64),
    Uint(u64),
    Double(f64),
    Bool(bool),
    /// It exists and has no serial form.
    Opaque,
    Node(&'a Node),
    Locality(&'a Locality),
    Metadata(&'a Metadata),
    Namespaces(&'a Metadata),
    Struct(&'a [(String, Value)]),
    List(&'a [Value]),
    Headers(Option<&'a HeaderList>),
}

type Found<'a> = Result<Cel<'a>, Status>;

/// `proxy_get_property`.
pub(crate) fn get(state: &VmState, path: &[u8]) -> Result<Vec<u8>, Status> {
    if path.is_empty() {
        return Err(Status::SerializationFailure);
    }
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    let mut parts = path.split(|byte| *byte == 0);
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&[u8]> = parts.collect();
    let context = state.context();
    match (first, context.stream()) {
        (b"xds", stream) => xds(state, stream, &rest),
        (b"plugin_name", _) if rest.is_empty() => Ok(context.origin.plugin.clone().into_bytes()),
        (b"plugin_root_id", _) if rest.is_empty() => Ok(context.origin.root_id.clone().into_bytes()),
        (b"plugin_vm_id", _) if rest.is_empty() => Ok(context.origin.vm_id.clone().into_bytes()),
        (_, None) => Err(Status::NotFound),
        (_, Some(stream)) => of_stream(stream, first, &rest),
    }
}

fn of_stream(stream: &StreamPart, first: &[u8], rest: &[&[u8]]) -> Result<Vec<u8>, Status> {
    let logging = stream.logging.get();
    match first {
        b"request" => {
            let held = &stream.request;
            let headers = (logging || held.headers.get()).then(|| stream.exchange.headers(Side::Request)).flatten();
            follow(request(stream, headers.as_deref(), rest)?, rest.get(1..).unwrap_or_default())
        }
        b"response" => {
            let held = &stream.response;
            let headers = (logging || held.headers.get()).then(|| stream.exchange.headers(Side::Response)).flatten();
            let trailers = (logging || held.trailers.get()).then(|| stream.exchange.trailers(Side::Response)).flatten();
            let found = response(stream, headers.as_deref(), trailers.as_deref(), rest)?;
            follow(found, rest.get(1..).unwrap_or_default())
        }
        b"connection" => follow(connection(stream, rest)?, rest.get(1..).unwrap_or_default()),
        b"source" | b"destination" => {
            let info = stream.exchange.info();
            let peer = if first == b"source" { info.downstream_remote } else { info.downstream_local };
            follow(address(peer, rest)?, rest.get(1..).unwrap_or_default())
        }
        b"upstream" => follow(upstream(stream, rest)?, rest.get(1..).unwrap_or_default()),
        b"metadata" => {
            let none = Metadata::new();
            follow(Cel::Metadata(&none), rest)
        }
        b"filter_state" => filter_state(stream, rest),
        b"upstream_filter_state" => {
            let connected = stream.exchange.info().upstream.as_ref().is_some_and(|up| up.local_address.is_some());
            Err(if rest.is_empty() && connected { Status::SerializationFailure } else { Status::NotFound })
        }
        b"connection_id" if rest.is_empty() => Ok(stream.exchange.info().connection_id.to_le_bytes().to_vec()),
        name if rest.is_empty() => {
            stream.exchange.filter_state.borrow().get(name).map(<[u8]>::to_vec).ok_or(Status::NotFound)
        }
        _ => Err(Status::NotFound),
    }
}

fn filter_state(stream: &StreamPart, rest: &[&[u8]]) -> Result<Vec<u8>, Status> {
    let [name] = rest else {
        return Err(if rest.is_empty() { Status::SerializationFailure } else { Status::NotFound });
    };
    let state = stream.exchange.filter_state.borrow();
    let found = match name.strip_prefix(b"wasm.") {
        Some(own) => state.get(own),
        None => state.object(name),
    };
    found.map(<[u8]>::to_vec).ok_or(Status::NotFound)
}

fn optional<'a>(value: Option<Cel<'a>>) -> Found<'a> {
    value.ok_or(Status::NotFound)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn int(n: u64) -> Cel<'static> {
    Cel::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn string<'a>(text: impl Into<String>) -> Cel<'a> {
    Cel::Bytes(text.into().into_bytes())
}

fn request<'a>(stream: &StreamPart, headers: Option<&'a HeaderList>, rest: &[&[u8]]) -> Found<'a> {
    let Some(name) = rest.first() else { return Ok(Cel::Opaque) };
    let info = stream.exchange.info();
    let header = |name: &[u8]| optional(headers.and_then(|headers| headers.get(name)).map(|v| Cel::Bytes(v.to_vec())));
    let path = || headers.and_then(|headers| headers.get(b":path")).ok_or(Status::NotFound);
    let bytes = stream.exchange.request.bytes.get();
    match *name {
        b"headers" => Ok(Cel::Headers(headers)),
        b"path" => header(b":path"),
        b"url_path" => Ok(Cel::Bytes(split_query(path()?).0.to_vec())),
        b"query" => Ok(Cel::Bytes(split_query(path()?).1.to_vec())),
        b"host" => header(b":authority"),
        b"scheme" => header(b":scheme"),
        b"method" => header(b":method"),
        b"referer" => header(b"referer"),
        b"useragent" => header(b"user-agent"),
        b"id" => header(b"x-request-id"),
        b"protocol" => Ok(string(info.protocol.name())),
        b"time" => {
            let since = info.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ok(Cel::Int(nanos(since)))
        }
        b"duration" => optional(info.duration.map(|duration| Cel::Int(nanos(duration)))),
        b"size" => match headers.and_then(|headers| headers.get(b"content-length")) {
            Some(length) => {
                let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                optional(length.map(Cel::Int))
            }
            None => Ok(int(bytes)),
        },
        b"total_size" => Ok(int(bytes + headers.map_or(0, HeaderList::byte_size) as u64)),
        _ => Err(Status::NotFound),
    }
}

fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            let query = &path[at + 1..];
            let end = query.iter().position(|byte| *byte == b'#').unwrap_or(query.len());
            (&path[..at], &query[..end])
        }
        None => (path, &[]),
    }
}

fn response<'a>(
    stream: &StreamPart,
    headers: Option<&'a HeaderList>,
    trailers: Option<&'a HeaderList>,
    rest: &[&[u8]],
) -> Found<'a> {
    let Some(name) = rest.first() else { return Ok(Cel::Opaque) };
    let info = stream.exchange.info();
    let bytes = stream.exchange.response.bytes.get();
    let sizes = [headers, trailers].into_iter().flatten().map(HeaderList::byte_size).sum::<usize>();
    match *name {
        b"headers" => Ok(Cel::Headers(headers)),
        b"trailers" => Ok(Cel::Headers(trailers)),
        b"code" => optional(info.response_code.map(|code| Cel::Int(i64::from(code)))),
        b"code_details" => optional(info.response_code_details.clone().map(string)),
        b"flags" => Ok(int(info.response_flags)),
        b"size" => Ok(int(bytes)),
        b"total_size" => Ok(int(bytes + sizes as u64)),
        b"grpc_status" => {
            let status = [trailers, headers].into_iter().flatten().find_map(|map| map.get(b"grpc-status"));
            match status {
                Some(text) => optional(std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).map(Cel::Int)),
                None => optional(
                    info.response_code.map(|code| Cel::Int(i64::from(crate::chain::grpc_status_of_response(code)))),
                ),
            }
        }
        b"backend_latency" => optional(info.backend_latency.map(|latency| Cel::Int(nanos(latency)))),
        _ => Err(Status::NotFound),
    }
}

fn connection<'a>(stream: &StreamPart, rest: &[&[u8]]) -> Found<'a> {
    let Some(name) = rest.first() else { return Ok(Cel::Opaque) };
    match *name {
        b"id" => Ok(Cel::Uint(stream.exchange.info().connection_id)),
        b"mtls" | b"peer_certificate_valid" => Ok(Cel::Bool(false)),
        b"requested_server_name" => Ok(Cel::Bytes(Vec::new())),
        _ => Err(Status::NotFound),
    }
}

fn address<'a>(address: Option<std::net::SocketAddr>, rest: &[&[u8]]) -> Found<'a> {
    let Some(name) = rest.first() else { return Ok(Cel::Opaque) };
    match (*name, address) {
        (b"address", Some(address)) => Ok(string(address.to_string())),
        (b"port", Some(address)) => Ok(Cel::Int(i64::from(address.port()))),
        _ => Err(Status::NotFound),
    }
}

fn upstream<'a>(stream: &StreamPart, rest: &[&[u8]]) -> Found<'a> {
    let Some(name) = rest.first() else { return Ok(Cel::Opaque) };
    let info = stream.exchange.info();
    match *name {
        b"request_attempt_count" => return Ok(Cel::Uint(u64::from(info.upstream_attempts))),
        b"num_endpoints" => {
            return Ok(Cel::Uint(stream.exchange.known_route().map_or(0, |route| route.cluster_endpoints)));
        }
        _ => {}
    }
    let upstream = info.upstream.as_ref().ok_or(Status::NotFound)?;
    match *name {
        b"address" => optional(upstream.address.map(|address| string(address.to_string()))),
        b"port" => optional(upstream.address.map(|address| Cel::Int(i64::from(address.port())))),
        b"local_address" => optional(upstream.local_address.map(|address| string(address.to_string()))),
        // No endpoint has a locality here: an empty message.
        b"locality" => Ok(Cel::Bytes(Vec::new())),
        b"cx_pool_ready_duration" => optional(upstream.ready.map(|ready| Cel::Int(nanos(ready)))),
        b"transport_failure_reason" => Ok(string(upstream.transport_failure.clone().unwrap_or_default())),
        _ => Err(Status::NotFound),
    }
}

fn xds(state: &VmState, stream: Option<&StreamPart>, rest: &[&[u8]]) -> Result<Vec<u8>, Status> {
    let Some(name) = rest.first() else { return Err(Status::SerializationFailure) };
    let rest = &rest[1..];
    if *name == b"node" {
        return follow(Cel::Node(&state.vm.worker.process.node), rest);
    }
    let exchange = &stream.ok_or(Status::NotFound)?.exchange;
    let listener = &exchange.listener;
    match *name {
        b"listener_metadata" => return follow(Cel::Metadata(&listener.metadata), rest),
        b"listener_direction" => return follow(Cel::Int(listener.direction as i64), rest),
        b"filter_chain_name" => return follow(string(listener.filter_chain.clone()), rest),
        // A host has none here, which Envoy cannot put into bytes.
        b"upstream_host_metadata" if exchange.info().upstream.is_some() => {
            return Err(if rest.is_empty() { Status::SerializationFailure } else { Status::NotFound });
        }
        _ => {}
    }
    let route = exchange.known_route().ok_or(Status::NotFound)?;
    match *name {
        b"cluster_name" => follow(optional(route.cluster.clone().map(string))?, rest),
        b"cluster_metadata" if route.cluster.is_some() => follow(Cel::Metadata(&route.cluster_metadata), rest),
        b"route_name" => follow(string(route.name.clone()), rest),
        b"route_metadata" => follow(Cel::Metadata(&route.metadata), rest),
        b"virtual_host_name" => follow(string(route.virtual_host.clone()), rest),
        b"virtual_host_metadata" => follow(Cel::Metadata(&Metadata::new()), rest),
        _ => Err(Status::NotFound),
    }
}

/// Walks the rest of a path and serializes what is there.
fn follow(value: Cel<'_>, rest: &[&[u8]]) -> Result<Vec<u8>, Status> {
    let Some((name, rest)) = rest.split_first() else { return serialize(&value) };
    let text = std::str::from_utf8(name).map_err(|_| Status::NotFound)?;
    let next = match value {
        Cel::Node(node) => match text {
            "id" => string(node.id.clone()),
            "cluster" => string(node.cluster.clone()),
            "metadata" => Cel::Struct(&node.metadata),
            "locality" => Cel::Locality(&node.locality),
            "user_agent_name" => string("envoy"),
            _ => return Err(Status::NotFound),
        },
        Cel::Locality(place) => match text {
            "region" => string(place.region.clone()),
            "zone" => string(place.zone.clone()),
            "sub_zone" => string(place.sub_zone.clone()),
            _ => return Err(Status::NotFound),
        },
        Cel::Metadata(metadata) if text == "filter_metadata" => Cel::Namespaces(metadata),
        Cel::Namespaces(metadata) => {
            let found = metadata.iter().find(|(namespace, _)| namespace == text);
            optional(found.map(|(_, members)| Cel::Struct(members)))?
        }
        Cel::Struct(members) => of_value(&members.iter().find(|(key, _)| key == text).ok_or(Status::NotFound)?.1),
        Cel::List(items) => {
            let index: usize = text.parse().map_err(|_| Status::NotFound)?;
            of_value(items.get(index).ok_or(Status::NotFound)?)
        }
        Cel::Headers(Some(headers)) => optional(headers.joined(name).map(Cel::Bytes))?,
        _ => return Err(Status::NotFound),
    };
    follow(next, rest)
}

fn of_value(value: &Value) -> Cel<'_> {
    match value {
        Value::Null => Cel::Opaque,
        Value::Bool(yes) => Cel::Bool(*yes),
        Value::Number(number) => Cel::Double(*number),
        Value::String(text) => string(text.clone()),
        Value::List(items) => Cel::List(items),
        Value::Struct(members) => Cel::Struct(members),
    }
}

fn serialize(value: &Cel<'_>) -> Result<Vec<u8>, Status> {
    Ok(match value {
        Cel::Bytes(bytes) => bytes.clone(),
        Cel::Int(n) => n.to_le_bytes().to_vec(),
        Cel::Uint(n) => n.to_le_bytes().to_vec(),
        Cel::Double(n) => n.to_le_bytes().to_vec(),
        Cel::Bool(yes) => vec![u8::from(*yes)],
        Cel::Opaque => return Err(Status::SerializationFailure),
        Cel::Node(node) => proto::node(node),
        Cel::Locality(place) => proto::locality(place),
        Cel::Metadata(metadata) => proto::metadata(metadata),
        Cel::Namespaces(metadata) => {
            let members = metadata
                .iter()
                .map(|(namespace, members)| Ok((namespace.clone().into_bytes(), serialize(&Cel::Struct(members))?)));
            encode(members.collect::<Result<_, Status>>()?)
        }
        Cel::Struct(members) => {
            let members =
                members.iter().map(|(key, member)| Ok((key.clone().into_bytes(), serialize(&of_value(member))?)));
            encode(members.collect::<Result<_, Status>>()?)
        }
        Cel::List(items) => {
            let items = items.iter().map(|item| Ok((serialize(&of_value(item))?, Vec::new())));
            encode(items.collect::<Result<_, Status>>()?)
        }
        Cel::Headers(None) => encode(Vec::new()),
        Cel::Headers(Some(headers)) => {
            let mut joined: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(headers.len());
            for (name, value) in headers.iter() {
                match joined.iter_mut().find(|(known, _)| known == name) {
                    Some((_, values)) => {
                        values.push(b',');
                        values.extend_from_slice(value);
                    }
                    None => joined.push((name.to_vec(), value.to_vec())),
                }
            }
            encode(joined)
        }
    })
}

fn encode(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    pairs::to_vec(pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))
}
