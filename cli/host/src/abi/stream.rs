//! What a guest does to a stream as a whole: go on, cut, answer; and which
//! context it acts for.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;

use super::{Abi, Link, export};
use crate::chain::LocalReply;
use crate::context::Context;
use crate::exchange::Side;
use crate::memory::{Guest, bytes, give, put_u32, view};
use crate::pairs;
use crate::status::{Outcome, Status};
use crate::vm::{Action, VmShared};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_send_local_response", send_local_response,
        (code: u32, details: u32, details_len: u32, body: u32, body_len: u32,
         headers: u32, headers_len: u32, grpc_status: u32));
    export!(link, "env", "proxy_set_effective_context", set_effective_context, (id: u32));
    export!(link, "env", "proxy_done", done, ());
    export!(link, "env", "proxy_get_status", get_status, (out_code: u32, out: u32, out_len: u32));
    if link.abi == Abi::V0_1_0 {
        export!(link, "env", "proxy_continue_request", continue_request, ());
        export!(link, "env", "proxy_continue_response", continue_response, ());
        export!(link, "env", "proxy_clear_route_cache", clear_route_cache, ());
    } else {
        export!(link, "env", "proxy_continue_stream", continue_stream, (stream: u32));
        export!(link, "env", "proxy_close_stream", close_stream, (stream: u32));
    }
    Ok(())
}

fn queue(vm: &VmShared, action: Action) {
    vm.actions.borrow_mut().push_back(action);
}

/// Either direction releases what the guest held of the request; that of the
/// response stays, as Envoy leaves it.
fn resume(vm: &VmShared, context: &Rc<Context>, side: Option<Side>) {
    if let Some(stream) = context.stream() {
        if let Some(side) = side {
            queue(vm, Action::Continue(Rc::clone(context), side));
        }
        stream.request.release();
    }
}

fn continue_stream(guest: &mut Guest<'_>, stream: u32) -> Outcome {
    let state = guest.data_mut();
    state.keep(0)?;
    let side = match stream {
        0 => Some(Side::Request),
        1 => Some(Side::Response),
        2 => None,
        3 => return Err(Status::Unimplemented.into()),
        _ => return Err(Status::BadArgument.into()),
    };
    resume(&state.vm, state.context(), side);
    Ok(())
}

fn continue_request(guest: &mut Guest<'_>) -> Outcome {
    continue_stream(guest, 0)
}

fn continue_response(guest: &mut Guest<'_>) -> Outcome {
    continue_stream(guest, 1)
}

fn close_stream(guest: &mut Guest<'_>, stream: u32) -> Outcome {
    let state = guest.data_mut();
    state.keep(0)?;
    match stream {
        0 | 1 => {
            let context = state.context();
            if let Some(part) = context.stream() {
                let mut info = part.exchange.info_mut();
                info.response_code_details.get_or_insert(Cow::Borrowed("wasm_close_stream"));
                drop(info);
                queue(&state.vm, Action::Reset(Rc::clone(context)));
            }
            Ok(())
        }
        // The connection is not this filter's to close.
        2 | 3 => Ok(()),
        _ => Err(Status::BadArgument.into()),
    }
}

fn clear_route_cache(guest: &mut Guest<'_>) -> Outcome {
    if let Some(stream) = guest.data().context().stream() {
        stream.exchange.clear_route();
    }
    Ok(())
}

fn send_local_response(
    guest: &mut Guest<'_>,
    code: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    grpc_status: u32,
) -> Outcome {
    let (memory, state) = view(guest);
    let details = bytes(memory, details, details_len)?;
    let body = bytes(memory, body, body_len)?;
    let headers = pairs::parse(bytes(memory, headers, headers_len)?);
    let context = state.context();
    if let Some(stream) = context.stream()
        && !stream.replied.replace(true)
    {
        const MAX_GRPC_STATUS: u32 = 16;
        let reply = LocalReply {
            code: u16::try_from(code).unwrap_or(500),
            body: Bytes::copy_from_slice(body),
            headers: headers.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            grpc_status: Some(grpc_status).filter(|status| *status <= MAX_GRPC_STATUS),
            details: Cow::Owned(String::from_utf8_lossy(details).into_owned()),
        };
        queue(&state.vm, Action::Reply(Rc::clone(context), Box::new(reply)));
    }
    state.vm.stop_iteration.set(true);
    Ok(())
}

fn set_effective_context(guest: &mut Guest<'_>, id: u32) -> Outcome {
    let state = guest.data_mut();
    if id == state.current.id {
        state.effective = None;
        return Ok(());
    }
    let context = state.vm.context(id).ok_or(Status::BadArgument)?;
    state.effective = Some(context);
    Ok(())
}

fn done(guest: &mut Guest<'_>) -> Outcome {
    let state = guest.data();
    let (root, part) = state.context().root().ok_or(Status::NotFound)?;
    if !part.pending_done.replace(false) {
        return Err(Status::NotFound.into());
    }
    queue(&state.vm, Action::FinishShutdown(Rc::clone(root)));
    Ok(())
}

fn get_status(guest: &mut Guest<'_>, out_code: u32, out: u32, out_len: u32) -> Outcome {
    let (code, message) = {
        let context = guest.data().context();
        context.root().map_or((0, Cow::Borrowed("")), |(_, root)| root.status.borrow().clone())
    };
    let (memory, _) = view(guest);
    put_u32(memory, out_code, code)?;
    give(guest, message.as_bytes(), out, out_len)
}
