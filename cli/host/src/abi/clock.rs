//! The wall clock and the root context's timer.

use std::time::{Duration, SystemTime};

use super::{Link, export};
use crate::memory::{Guest, put, view};
use crate::status::Outcome;

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_get_current_time_nanoseconds", get_time, (out: u32));
    export!(link, "env", "proxy_set_tick_period_milliseconds", set_tick_period, (period: u32));
    Ok(())
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn get_time(guest: &mut Guest<'_>, out: u32) -> Outcome {
    let (memory, _) = view(guest);
    put(memory, out, &now().to_le_bytes())
}

fn set_tick_period(guest: &mut Guest<'_>, period: u32) -> Outcome {
    let state = guest.data();
    if let Some((root, _)) = state.context().root() {
        state.vm.worker.set_tick(&state.vm, root, Duration::from_millis(u64::from(period)));
    }
    Ok(())
}
