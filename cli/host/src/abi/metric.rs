//! Metrics: defined per VM, counted process-wide.

use super::{Link, export};
use crate::memory::{Guest, bytes, put, put_u32, view};
use crate::status::{Outcome, Status};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_define_metric", define, (kind: u32, name: u32, name_len: u32, out: u32));
    export!(link, "env", "proxy_increment_metric", increment, (id: u32, delta: i64));
    export!(link, "env", "proxy_record_metric", record, (id: u32, value: i64));
    export!(link, "env", "proxy_get_metric", get, (id: u32, out: u32));
    Ok(())
}

fn define(guest: &mut Guest<'_>, kind: u32, name: u32, name_len: u32, out: u32) -> Outcome {
    let (memory, state) = view(guest);
    let name = String::from_utf8_lossy(bytes(memory, name, name_len)?);
    state.keep(name.len())?;
    if kind > 2 {
        return Err(Status::BadArgument.into());
    }
    let stats = state.vm.worker.process.stats();
    let id = state.vm.metrics.borrow_mut().define(stats, kind, &name)?;
    put_u32(memory, out, id)
}

fn increment(guest: &mut Guest<'_>, id: u32, delta: i64) -> Outcome {
    Ok(guest.data().vm.metrics.borrow().increment(id, delta)?)
}

fn record(guest: &mut Guest<'_>, id: u32, value: i64) -> Outcome {
    Ok(guest.data().vm.metrics.borrow().record(id, value.cast_unsigned())?)
}

fn get(guest: &mut Guest<'_>, id: u32, out: u32) -> Outcome {
    let value = guest.data().vm.metrics.borrow().get(id)?;
    let (memory, _) = view(guest);
    put(memory, out, &value.to_le_bytes())
}
