//! Foreign functions: Envoy's own additions to the ABI, called by name.

use std::io::{Read, Write};
use std::rc::Rc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{Link, export};
use crate::context::Context;
use crate::memory::{Guest, allocate, bytes, put_u32, view};
use crate::proto;
use crate::status::{Outcome, Status};
use crate::vm::length;

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_call_foreign_function", call,
        (name: u32, name_len: u32, arguments: u32, arguments_len: u32, out: u32, out_len: u32));
    export!(link, "env", "envoy_resolve_dns", resolve_dns, (_name: u32, _name_len: u32, _out: u32));
    Ok(())
}

fn call(
    guest: &mut Guest<'_>,
    name: u32,
    name_len: u32,
    arguments: u32,
    arguments_len: u32,
    out: u32,
    out_len: u32,
) -> Outcome {
    let limit = crate::pairs::MAX_BYTES.max(guest.data().vm.worker.process.engine.limits().memory);
    let (memory, state) = view(guest);
    let name = bytes(memory, name, name_len)?;
    let arguments = bytes(memory, arguments, arguments_len)?;
    let context = Rc::clone(state.context());
    let result = match name {
        b"compress" => compress(arguments)?,
        b"uncompress" => uncompress(arguments, limit)?,
        b"clear_route_cache" => {
            clear_route_cache(&context);
            Vec::new()
        }
        b"declare_property" => {
            declare_property(&context, arguments)?;
            Vec::new()
        }
        b"set_envoy_filter_state" => {
            set_envoy_filter_state(&context, arguments)?;
            Vec::new()
        }
        // Cryptography this host does not have; without a key Envoy neither.
        b"verify_signature" | b"sign" => {
            let fields = proto::fields(arguments).ok_or(Status::BadArgument)?;
            return Err(if fields.is_empty() { Status::BadArgument } else { Status::NotFound }.into());
        }
        _ => return Err(Status::NotFound.into()),
    };
    let mut address = 0;
    if out != 0 && !result.is_empty() {
        address = allocate(guest, length(result.len()))?;
    }
    let (memory, _) = view(guest);
    if address != 0 {
        crate::memory::put(memory, address, &result)?;
    }
    if out != 0 {
        put_u32(memory, out, address)?;
    }
    if out_len != 0 {
        put_u32(memory, out_len, length(result.len()))?;
    }
    Ok(())
}

fn compress(input: &[u8]) -> Result<Vec<u8>, Status> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(input).map_err(|_| Status::SerializationFailure)?;
    encoder.finish().map_err(|_| Status::SerializationFailure)
}

/// Bounded by what the guest could hold at all.
fn uncompress(input: &[u8], limit: usize) -> Result<Vec<u8>, Status> {
    let mut output = Vec::new();
    let mut decoder = ZlibDecoder::new(input).take(limit as u64);
    decoder.read_to_end(&mut output).map_err(|_| Status::SerializationFailure)?;
    Ok(output)
}

fn clear_route_cache(context: &Rc<Context>) {
    if let Some(stream) = context.stream() {
        stream.exchange.clear_route();
    }
}

/// `DeclarePropertyArguments`: name = 1, readonly = 2.
fn declare_property(context: &Rc<Context>, arguments: &[u8]) -> Result<(), Status> {
    let fields = proto::fields(arguments).ok_or(Status::BadArgument)?;
    let mut name = &[][..];
    let mut read_only = false;
    for (number, field) in fields {
        match (number, field) {
            (1, proto::Field::Bytes(value)) => name = value,
            (2, proto::Field::Varint(value)) => read_only = value != 0,
            _ => {}
        }
    }
    let (_, root) = context.root().ok_or(Status::NotFound)?;
    let mut declared = root.declared.borrow_mut();
    if declared.iter().any(|(known, _)| known == name) {
        return Err(Status::BadArgument);
    }
    declared.push((name.to_vec(), read_only));
    Ok(())
}

/// `SetEnvoyFilterStateArguments`: path = 1, value = 2, span = 3.
fn set_envoy_filter_state(context: &Rc<Context>, arguments: &[u8]) -> Result<(), Status> {
    let (mut name, mut value, mut span) = (&[][..], &[][..], 0);
    for (number, field) in proto::fields(arguments).ok_or(Status::BadArgument)? {
        match (number, field) {
            (1, proto::Field::Bytes(bytes)) => name = bytes,
            (2, proto::Field::Bytes(bytes)) => value = bytes,
            (3, proto::Field::Varint(number)) => span = number,
            _ => {}
        }
    }
    let stream = context.stream().ok_or(Status::NotFound)?;
    stream.exchange.filter_state.borrow_mut().set_object(name, value, span)
}

fn resolve_dns(_guest: &mut Guest<'_>, _name: u32, _name_len: u32, _out: u32) -> Outcome {
    Err(Status::InternalFailure.into())
}
