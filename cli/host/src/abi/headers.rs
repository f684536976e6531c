//! Header maps: who may see which one when is Envoy's `Context::getMap`.

use std::cell::{Ref, RefMut};
use std::rc::Rc;

use super::{Abi, Link, export};
use crate::context::{BodyWindow, Context, Root, StreamPart};
use crate::exchange::Side;
use crate::headers::HeaderList;
use crate::memory::{Guest, bytes, give_with, put_u32, view};
use crate::pairs;
use crate::state::VmState;
use crate::status::{Outcome, Status};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_get_header_map_value", get_value,
        (map: u32, key: u32, key_len: u32, out: u32, out_len: u32));
    export!(link, "env", "proxy_add_header_map_value", add_value,
        (map: u32, key: u32, key_len: u32, value: u32, value_len: u32));
    export!(link, "env", "proxy_replace_header_map_value", replace_value,
        (map: u32, key: u32, key_len: u32, value: u32, value_len: u32));
    export!(link, "env", "proxy_remove_header_map_value", remove_value, (map: u32, key: u32, key_len: u32));
    export!(link, "env", "proxy_get_header_map_pairs", get_pairs, (map: u32, out: u32, out_len: u32));
    export!(link, "env", "proxy_set_header_map_pairs", set_pairs, (map: u32, at: u32, len: u32));
    export!(link, "env", "proxy_get_header_map_size", get_size, (map: u32, out: u32));
    Ok(())
}

/// The maps of the ABI.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Map {
    Headers(Side),
    Trailers(Side),
    GrpcInitial,
    GrpcTrailing,
    CallHeaders,
    CallTrailers,
}

impl Map {
    fn of(number: u32) -> Outcome<Self> {
        Ok(match number {
            0 => Self::Headers(Side::Request),
            1 => Self::Trailers(Side::Request),
            2 => Self::Headers(Side::Response),
            3 => Self::Trailers(Side::Response),
            4 => Self::GrpcInitial,
            5 => Self::GrpcTrailing,
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return Err(Status::BadArgument.into()),
        })
    }
}

/// What the answer to a callout holds, while the root is being told of it.
fn answer_map(root: &Root, map: Map) -> Option<Ref<'_, HeaderList>> {
    match map {
        Map::CallHeaders => Ref::filter_map(root.call_response.borrow(), |r| r.as_ref().map(|r| &r.headers)).ok(),
        Map::CallTrailers => Ref::filter_map(root.call_response.borrow(), |r| r.as_ref()?.trailers.as_ref()).ok(),
        Map::GrpcInitial => Ref::filter_map(root.grpc_initial.borrow(), Option::as_ref).ok(),
        Map::GrpcTrailing => Ref::filter_map(root.grpc_trailing.borrow(), Option::as_ref).ok(),
        Map::Headers(_) | Map::Trailers(_) => None,
    }
}

/// A map to read, if the context may see it now.
fn readable(context: &Rc<Context>, map: Map) -> Option<Ref<'_, HeaderList>> {
    if !matches!(map, Map::Headers(_) | Map::Trailers(_)) {
        return context.root().and_then(|(_, root)| answer_map(root, map));
    }
    let stream = context.stream()?;
    let logging = stream.logging.get();
    match map {
        Map::Headers(side) => {
            if logging || stream.held(side).headers.get() {
                stream.exchange.headers(side)
            } else {
                None
            }
        }
        Map::Trailers(Side::Request) if logging => None,
        Map::Trailers(side) => {
            if logging || stream.held(side).trailers.get() {
                stream.exchange.trailers(side)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// A map to change, if the context may do so now. Trailers come into being
/// where a guest reaches for them at the very end of a body.
fn writable(context: &Rc<Context>, map: Map) -> Option<RefMut<'_, HeaderList>> {
    let stream = context.stream()?;
    match map {
        Map::Headers(side) if stream.held(side).headers.get() => stream.exchange.headers_mut(side),
        Map::Trailers(side) => {
            if !stream.held(side).trailers.get() && may_create_trailers(stream, side) {
                stream.exchange.create_trailers(side);
                stream.held(side).trailers.set(true);
            }
            if !stream.held(side).trailers.get() {
                return None;
            }
            RefMut::filter_map(stream.exchange.half(side).trailers.borrow_mut(), Option::as_mut).ok()
        }
        _ => None,
    }
}

fn may_create_trailers(stream: &StreamPart, side: Side) -> bool {
    stream.held(side).body.get() != BodyWindow::Closed && stream.end_of_stream.get()
}

/// A write to request headers makes Envoy choose the route anew, up to 0.2.1.
fn modified(context: &Rc<Context>, map: Map) {
    if map == Map::Headers(Side::Request)
        && let Some(stream) = context.stream()
    {
        stream.exchange.clear_route();
    }
}

fn get_value(guest: &mut Guest<'_>, map: u32, key: u32, key_len: u32, out: u32, out_len: u32) -> Outcome {
    let map = Map::of(map)?;
    let context = Rc::clone(guest.data().context());
    let old = guest.data().vm.abi == Abi::V0_1_0;
    let list = readable(&context, map);
    let Some(list) = list else {
        let (memory, _) = view(guest);
        bytes(memory, key, key_len)?;
        let logging = context.stream().is_some_and(|stream| stream.logging.get());
        return match (logging, old) {
            (true, true) => give_with(guest, 0, out, out_len, |_| ()),
            (true, false) => Err(Status::NotFound.into()),
            (false, _) => Err(Status::BadArgument.into()),
        };
    };
    let (memory, _) = view(guest);
    let Some(value) = list.get(bytes(memory, key, key_len)?) else {
        return if old { give_with(guest, 0, out, out_len, |_| ()) } else { Err(Status::NotFound.into()) };
    };
    give_with(guest, value.len(), out, out_len, |slot| slot.copy_from_slice(value))
}

/// Reads a key and a value, then changes the map.
fn change(
    guest: &mut Guest<'_>,
    map: u32,
    key: (u32, u32),
    value: (u32, u32),
    f: impl FnOnce(&mut HeaderList, &[u8], &[u8]),
) -> Outcome {
    let map = Map::of(map)?;
    let (memory, state) = view(guest);
    let key = bytes(memory, key.0, key.1)?;
    let value = bytes(memory, value.0, value.1)?;
    state.keep(key.len() + value.len())?;
    let context = state.context();
    let mut list = writable(context, map).ok_or(Status::BadArgument)?;
    f(&mut list, key, value);
    drop(list);
    modified(context, map);
    Ok(())
}

fn add_value(guest: &mut Guest<'_>, map: u32, key: u32, key_len: u32, value: u32, value_len: u32) -> Outcome {
    change(guest, map, (key, key_len), (value, value_len), HeaderList::add)
}

fn replace_value(guest: &mut Guest<'_>, map: u32, key: u32, key_len: u32, value: u32, value_len: u32) -> Outcome {
    change(guest, map, (key, key_len), (value, value_len), HeaderList::set)
}

fn remove_value(guest: &mut Guest<'_>, map: u32, key: u32, key_len: u32) -> Outcome {
    change(guest, map, (key, key_len), (0, 0), |list, key, _| {
        list.remove(key);
    })
}

fn get_pairs(guest: &mut Guest<'_>, map: u32, out: u32, out_len: u32) -> Outcome {
    let map = Map::of(map)?;
    let context = Rc::clone(guest.data().context());
    match readable(&context, map) {
        Some(list) if !list.is_empty() => {
            let size = pairs::size(list.iter());
            give_with(guest, size, out, out_len, |slot| {
                pairs::write(list.iter(), slot);
            })
        }
        _ => give_with(guest, 0, out, out_len, |_| ()),
    }
}

fn set_pairs(guest: &mut Guest<'_>, map: u32, at: u32, len: u32) -> Outcome {
    change(guest, map, (at, len), (0, 0), |list, encoded, _| list.replace_all(pairs::parse(encoded)))
}

fn get_size(guest: &mut Guest<'_>, map: u32, out: u32) -> Outcome {
    let map = Map::of(map)?;
    let (memory, state): (_, &mut VmState) = view(guest);
    let size = writable(state.context(), map).ok_or(Status::BadArgument)?.byte_size();
    put_u32(memory, out, crate::vm::length(size))
}
