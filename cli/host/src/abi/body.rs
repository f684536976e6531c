//! Buffers: bodies, configurations, answers to callouts.

use std::rc::Rc;

use super::{Abi, Link, export};
use crate::body::Body;
use crate::context::{BodyWindow, Context, Role, StreamPart};
use crate::exchange::Side;
use crate::memory::{Guest, bytes, give, give_with, put_u32, view};
use crate::status::{Outcome, Status};
use crate::vm::{Action, VmShared, length};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_get_buffer_bytes", get_bytes,
        (buffer: u32, start: u32, len: u32, out: u32, out_len: u32));
    export!(link, "env", "proxy_get_buffer_status", get_status, (buffer: u32, out_len: u32, out_flags: u32));
    export!(link, "env", "proxy_set_buffer_bytes", set_bytes,
        (buffer: u32, start: u32, len: u32, at: u32, size: u32));
    if link.abi == Abi::V0_1_0 {
        export!(link, "env", "proxy_get_configuration", get_configuration, (out: u32, out_len: u32));
    }
    Ok(())
}

/// A buffer that a context can see; nothing behind it reads as empty.
enum Buffer {
    Body(Side),
    Flat(bytes::Bytes),
    Empty,
}

fn find(vm: &VmShared, context: &Rc<Context>, number: u32) -> Outcome<Buffer> {
    Ok(match number {
        0 => Buffer::Body(Side::Request),
        1 => Buffer::Body(Side::Response),
        // Network data and call data exist nowhere here.
        2 | 3 | 8 => Buffer::Empty,
        5 => {
            let message = context.root().and_then(|(_, root)| root.grpc_message.borrow().clone());
            message.map_or(Buffer::Empty, Buffer::Flat)
        }
        4 => {
            let (_, root) = context.root().ok_or(Status::NotFound)?;
            let response = root.call_response.borrow();
            Buffer::Flat(response.as_ref().ok_or(Status::NotFound)?.body.clone())
        }
        6 => Buffer::Flat(vm.identity.vm_configuration.clone()),
        7 => match &context.role {
            Role::Root(root) if root.configuring.get() => Buffer::Flat(root.plugin.config().configuration.clone()),
            _ => return Err(Status::NotFound.into()),
        },
        _ => return Err(Status::BadArgument.into()),
    })
}

/// Runs `f` on the body that the context may touch, if there is one.
fn with_body<T>(stream: Option<&StreamPart>, side: Side, f: impl FnOnce(&mut Body) -> T) -> Option<T> {
    let stream = stream?;
    let half = stream.exchange.half(side);
    match stream.held(side).body_window() {
        BodyWindow::Closed => None,
        BodyWindow::Chunk => Some(f(&mut half.chunk.borrow_mut())),
        BodyWindow::Buffered => half.buffer.borrow_mut().as_mut().map(f),
    }
}

/// The part of `len` bytes from `start` that exists.
fn clamp(start: u32, len: u32, size: usize) -> (usize, usize) {
    let start = start as usize;
    (start, size.saturating_sub(start).min(len as usize))
}

fn get_bytes(guest: &mut Guest<'_>, buffer: u32, start: u32, len: u32, out: u32, out_len: u32) -> Outcome {
    let context = Rc::clone(guest.data().context());
    match find(&guest.data().vm, &context, buffer)? {
        Buffer::Empty => give(guest, &[], out, out_len),
        Buffer::Flat(flat) => {
            let (start, len) = clamp(start, len, flat.len());
            give(guest, flat.get(start..start + len).unwrap_or_default(), out, out_len)
        }
        Buffer::Body(side) => {
            let size = with_body(context.stream(), side, |body| body.len()).unwrap_or(0);
            let (start, len) = clamp(start, len, size);
            give_with(guest, len, out, out_len, |slot| {
                with_body(context.stream(), side, |body| body.copy_to(start, slot));
            })
        }
    }
}

fn get_status(guest: &mut Guest<'_>, buffer: u32, out_len: u32, out_flags: u32) -> Outcome {
    let (memory, state) = view(guest);
    let context = state.context();
    let size = match find(&state.vm, context, buffer)? {
        Buffer::Empty => 0,
        Buffer::Flat(flat) => flat.len(),
        Buffer::Body(side) => with_body(context.stream(), side, |body| body.len()).unwrap_or(0),
    };
    put_u32(memory, out_len, length(size))?;
    put_u32(memory, out_flags, 0)
}

fn set_bytes(guest: &mut Guest<'_>, buffer: u32, start: u32, len: u32, at: u32, size: u32) -> Outcome {
    let (memory, state) = view(guest);
    let context = state.context();
    let found = find(&state.vm, context, buffer)?;
    let data = bytes(memory, at, size)?;
    let Buffer::Body(side) = found else { return Err(Status::BadArgument.into()) };
    let context = Rc::clone(context);
    state.keep(data.len())?;
    let edited = with_body(context.stream(), side, |body| {
        let before = body.len();
        body.edit(start as usize, len as usize, data).then_some((before, body.len()))
    });
    let Some(Some((before, after))) = edited else { return Err(Status::BadArgument.into()) };
    if let Some(stream) = context.stream()
        && stream.held(side).body_window() == BodyWindow::Buffered
        && stream.chain.upgrade().is_some_and(|chain| chain.overflows(side, before, after))
    {
        state.vm.actions.borrow_mut().push_back(Action::TooLarge(context, side));
    }
    Ok(())
}

/// ABI 0.1.0 asks for the plugin's configuration by its own function.
fn get_configuration(guest: &mut Guest<'_>, out: u32, out_len: u32) -> Outcome {
    let context = Rc::clone(guest.data().context());
    match find(&guest.data().vm, &context, 7) {
        Ok(Buffer::Flat(flat)) => give(guest, &flat, out, out_len),
        _ => give(guest, &[], out, out_len),
    }
}
