//! Properties: the ABI's end of them; what they are is in `crate::property`.

use std::rc::Rc;

use super::{Link, export};
use crate::memory::{Guest, bytes, give, view};
use crate::property;
use crate::status::{Outcome, Status};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_get_property", get, (path: u32, path_len: u32, out: u32, out_len: u32));
    export!(link, "env", "proxy_set_property", set, (path: u32, path_len: u32, value: u32, value_len: u32));
    Ok(())
}

fn get(guest: &mut Guest<'_>, path: u32, path_len: u32, out: u32, out_len: u32) -> Outcome {
    let (memory, state) = view(guest);
    let path = bytes(memory, path, path_len)?;
    let value = property::get(state, path)?;
    give(guest, &value, out, out_len)
}

fn set(guest: &mut Guest<'_>, path: u32, path_len: u32, value: u32, value_len: u32) -> Outcome {
    let (memory, state) = view(guest);
    let path = bytes(memory, path, path_len)?;
    let value = bytes(memory, value, value_len)?;
    state.keep(path.len() + value.len())?;
    let context = Rc::clone(state.context());
    let stream = context.stream().ok_or(Status::NotFound)?;
    let (_, root) = context.root().ok_or(Status::NotFound)?;
    let read_only = root.declared.borrow().iter().any(|(name, read_only)| *read_only && name == path);
    let stored = stream.exchange.filter_state.borrow_mut().set(path, value, read_only);
    if stored { Ok(()) } else { Err(Status::BadArgument.into()) }
}
