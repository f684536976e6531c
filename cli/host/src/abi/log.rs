//! `proxy_log` and the host's log level.

use super::{Abi, Link, export};
use crate::log::Level;
use crate::memory::{Guest, bytes, put_u32, view};
use crate::status::{Outcome, Status};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_log", log, (level: u32, at: u32, len: u32));
    if link.abi == Abi::V0_2_1 {
        export!(link, "env", "proxy_get_log_level", get_log_level, (out: u32));
    }
    Ok(())
}

fn log(guest: &mut Guest<'_>, level: u32, at: u32, len: u32) -> Outcome {
    let level = Level::from_number(level).filter(|level| *level != Level::Off).ok_or(Status::BadArgument)?;
    let (memory, state) = view(guest);
    let text = bytes(memory, at, len)?;
    let context = state.context();
    let message = || String::from_utf8_lossy(text).into_owned();
    state.vm.worker.log(level, &context.origin, context.kind(), message);
    Ok(())
}

fn get_log_level(guest: &mut Guest<'_>, out: u32) -> Outcome {
    let (memory, state) = view(guest);
    let level = state.vm.worker.process.log_level();
    put_u32(memory, out, level as u32)
}
