//! The part of WASI that Envoy links: standard output is the log, the clock and
//! randomness work, files do not exist.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

use super::{Link, clock, export};
use crate::log::Level;
use crate::memory::{Guest, bytes, put, put_u32, view};
use crate::status::Outcome;

const OK: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTDIR: u32 = 20;
const NOTSUP: u32 = 58;

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    link.provide_void("env", "emscripten_notify_memory_growth")?;
    export!(link, "env", "pthread_equal", pthread_equal, (a: u32, b: u32));
    macro_rules! wasi {
        ($name:literal, $f:path, $args:tt) => {
            export!(link, "wasi_snapshot_preview1", $name, $f, $args);
            export!(link, "wasi_unstable", $name, $f, $args);
        };
    }
    wasi!("fd_write", fd_write, (fd: u32, iovs: u32, count: u32, out: u32));
    wasi!("fd_read", nosys4, (_fd: u32, _iovs: u32, _count: u32, _out: u32));
    wasi!("fd_seek", fd_seek, (_fd: u32, _offset: i64, _whence: u32, _out: u32));
    wasi!("fd_close", zero1, (_fd: u32));
    wasi!("fd_fdstat_get", fd_fdstat_get, (fd: u32, out: u32));
    wasi!("fd_fdstat_set_flags", nosys2, (_fd: u32, _flags: u32));
    wasi!("fd_prestat_get", badf2, (_fd: u32, _out: u32));
    wasi!("fd_prestat_dir_name", nosys3, (_fd: u32, _path: u32, _len: u32));
    wasi!("fd_filestat_get", badf2, (_fd: u32, _out: u32));
    wasi!("path_filestat_get", notsup5, (_fd: u32, _flags: u32, _path: u32, _len: u32, _out: u32));
    wasi!("path_open", path_open,
        (_fd: u32, _dirflags: u32, _path: u32, _len: u32, _oflags: u32, _rights: i64, _inheriting: i64,
         _fdflags: u32, _out: u32));
    wasi!("environ_get", environ_get, (array: u32, buffer: u32));
    wasi!("environ_sizes_get", environ_sizes_get, (out_count: u32, out_size: u32));
    wasi!("args_get", zero2, (_array: u32, _buffer: u32));
    wasi!("args_sizes_get", args_sizes_get, (out_count: u32, out_size: u32));
    wasi!("clock_time_get", clock_time_get, (id: u32, _precision: i64, out: u32));
    wasi!("random_get", random_get, (buffer: u32, len: u32));
    wasi!("sched_yield", zero0, ());
    wasi!("poll_oneoff", poll_oneoff, (_in: u32, _out: u32, _count: u32, out_events: u32));
    wasi!("clock_res_get", clock_res_get, (id: u32, out: u32));
    wasi!("fd_advise", standard_wide, (fd: u32, _offset: i64, _len: i64, _advice: u32));
    wasi!("fd_allocate", standard_allocate, (fd: u32, _offset: i64, _len: i64));
    wasi!("fd_datasync", standard1, (fd: u32));
    wasi!("fd_sync", standard1, (fd: u32));
    wasi!("fd_tell", standard2, (fd: u32, _out: u32));
    wasi!("fd_fdstat_set_rights", standard_rights, (fd: u32, _base: i64, _inheriting: i64));
    wasi!("fd_filestat_set_size", standard_size, (fd: u32, _size: i64));
    wasi!("fd_filestat_set_times", standard_times, (fd: u32, _access: i64, _modified: i64, _flags: u32));
    wasi!("fd_pread", nosys_pread, (_fd: u32, _iovs: u32, _count: u32, _offset: i64, _out: u32));
    wasi!("fd_pwrite", fd_pwrite, (fd: u32, iovs: u32, count: u32, _offset: i64, out: u32));
    wasi!("fd_readdir", fd_readdir, (_fd: u32, _buffer: u32, _len: u32, _cookie: i64, _out: u32));
    wasi!("fd_renumber", notsup2, (_from: u32, _to: u32));
    wasi!("path_create_directory", notsup3, (_fd: u32, _path: u32, _len: u32));
    wasi!("path_remove_directory", notsup3, (_fd: u32, _path: u32, _len: u32));
    wasi!("path_unlink_file", notsup3, (_fd: u32, _path: u32, _len: u32));
    wasi!("path_filestat_set_times", path_times,
        (_fd: u32, _flags: u32, _path: u32, _len: u32, _access: i64, _modified: i64, _fst: u32));
    // Envoy's have a parameter less than WASI's: a guest that imports WASI's is refused.
    wasi!("path_link", notsup6, (_fd: u32, _flags: u32, _path: u32, _len: u32, _new_fd: u32, _new_path: u32));
    wasi!("path_readlink", notsup6, (_fd: u32, _path: u32, _len: u32, _buffer: u32, _size: u32, _out: u32));
    wasi!("path_rename", notsup6, (_fd: u32, _path: u32, _len: u32, _new_fd: u32, _new_path: u32, _new_len: u32));
    wasi!("path_symlink", notsup4, (_path: u32, _len: u32, _fd: u32, _new_path: u32));
    wasi!("sock_accept", notsup3, (_fd: u32, _flags: u32, _out: u32));
    wasi!("sock_recv", notsup6, (_fd: u32, _iovs: u32, _count: u32, _flags: u32, _out: u32, _out_flags: u32));
    wasi!("sock_send", notsup5, (_fd: u32, _iovs: u32, _count: u32, _flags: u32, _out: u32));
    wasi!("sock_shutdown", notsup2, (_fd: u32, _how: u32));
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        link.provide_void(module, "proc_exit")?;
    }
    Ok(())
}

/// Functions that only answer a number, by that number and their parameters.
macro_rules! constant {
    ($($name:ident($($arg:ty),*) = $value:expr;)*) => {
        $(fn $name(_guest: &mut Guest<'_>, $(_: $arg),*) -> u32 { $value })*
    };
}

constant! {
    zero0() = OK;
    zero1(u32) = OK;
    zero2(u32, u32) = OK;
    fd_seek(u32, i64, u32, u32) = OK;
    nosys2(u32, u32) = NOSYS;
    nosys3(u32, u32, u32) = NOSYS;
    nosys4(u32, u32, u32, u32) = NOSYS;
    nosys_pread(u32, u32, u32, i64, u32) = NOSYS;
    badf2(u32, u32) = BADF;
    notsup2(u32, u32) = NOTSUP;
    notsup3(u32, u32, u32) = NOTSUP;
    notsup4(u32, u32, u32, u32) = NOTSUP;
    notsup5(u32, u32, u32, u32, u32) = NOTSUP;
    notsup6(u32, u32, u32, u32, u32, u32) = NOTSUP;
    path_times(u32, u32, u32, u32, i64, i64, u32) = NOTSUP;
    fd_readdir(u32, u32, u32, i64, u32) = NOTDIR;
    path_open(u32, u32, u32, u32, u32, i64, i64, u32, u32) = NOENT;
}

/// Functions that succeed on standard output and error, and on nothing else.
macro_rules! standard_only {
    ($($name:ident($($arg:ty),*);)*) => {
        $(fn $name(_guest: &mut Guest<'_>, fd: u32, $(_: $arg),*) -> u32 { standard(fd) })*
    };
}

standard_only! {
    standard1();
    standard2(u32);
    standard_wide(i64, i64, u32);
    standard_allocate(i64, i64);
    standard_rights(i64, i64);
    standard_size(i64);
    standard_times(i64, i64, u32);
}

fn standard(fd: u32) -> u32 {
    if matches!(fd, 1 | 2) { OK } else { BADF }
}

/// Memory errors are WASI's `EFAULT` here.
fn fault(outcome: Outcome) -> u32 {
    if outcome.is_ok() { OK } else { FAULT }
}

fn pthread_equal(_guest: &mut Guest<'_>, a: u32, b: u32) -> u32 {
    u32::from(a == b)
}

fn fd_write(guest: &mut Guest<'_>, fd: u32, iovs: u32, count: u32, out: u32) -> u32 {
    let level = match fd {
        1 => Level::Info,
        2 => Level::Error,
        _ => return BADF,
    };
    let (memory, state) = view(guest);
    let Some(text) = gather(memory, iovs, count) else { return FAULT };
    if !text.is_empty() {
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let context = state.context();
        let message = || String::from_utf8_lossy(line).into_owned();
        state.vm.worker.log(level, &context.origin, context.kind(), message);
    }
    fault(put_u32(memory, out, crate::vm::length(text.len())))
}

/// All bytes of an array of address and length, or none where one is bad.
fn gather(memory: &[u8], iovs: u32, count: u32) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for index in 0..count {
        let at = iovs.checked_add(index.checked_mul(8)?)?;
        let pair = bytes(memory, at, 8).ok()?;
        let address = u32::from_le_bytes(pair[..4].try_into().ok()?);
        let len = u32::from_le_bytes(pair[4..].try_into().ok()?);
        text.extend_from_slice(bytes(memory, address, len).ok()?);
        // A guest cannot own more than its memory; more is an endless list.
        if text.len() > memory.len() {
            return None;
        }
    }
    Some(text)
}

fn fd_pwrite(guest: &mut Guest<'_>, fd: u32, iovs: u32, count: u32, _offset: i64, out: u32) -> u32 {
    fd_write(guest, fd, iovs, count, out)
}

fn fd_fdstat_get(guest: &mut Guest<'_>, fd: u32, out: u32) -> u32 {
    if !matches!(fd, 1 | 2) {
        return BADF;
    }
    /// `__WASI_RIGHTS_FD_WRITE`, at the place of the base rights.
    const WRITE: u8 = 64;
    let mut stat = [0; 24];
    stat[8] = WRITE;
    let (memory, _) = view(guest);
    fault(put(memory, out, &stat))
}

fn environ_get(guest: &mut Guest<'_>, array: u32, buffer: u32) -> u32 {
    let (memory, state) = view(guest);
    let (mut slot, mut at) = (array, buffer);
    for (name, value) in &state.vm.identity.environment {
        let mut entry = format!("{name}={value}").into_bytes();
        entry.push(0);
        if put_u32(memory, slot, at).is_err() || put(memory, at, &entry).is_err() {
            return FAULT;
        }
        slot = slot.wrapping_add(4);
        at = at.wrapping_add(crate::vm::length(entry.len()));
    }
    OK
}

fn environ_sizes_get(guest: &mut Guest<'_>, out_count: u32, out_size: u32) -> u32 {
    let (memory, state) = view(guest);
    let environment = &state.vm.identity.environment;
    let size: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let count = crate::vm::length(environment.len());
    fault(put_u32(memory, out_count, count).and_then(|()| put_u32(memory, out_size, crate::vm::length(size))))
}

fn args_sizes_get(guest: &mut Guest<'_>, out_count: u32, out_size: u32) -> u32 {
    let (memory, _) = view(guest);
    fault(put_u32(memory, out_count, 0).and_then(|()| put_u32(memory, out_size, 0)))
}

fn clock_time_get(guest: &mut Guest<'_>, id: u32, _precision: i64, out: u32) -> u32 {
    let time = match id {
        0 => clock::now(),
        1 => monotonic(),
        _ => return NOTSUP,
    };
    let (memory, _) = view(guest);
    fault(put(memory, out, &time.to_le_bytes()))
}

/// Nanoseconds since some moment of this thread.
fn monotonic() -> u64 {
    thread_local! {
        static START: Instant = Instant::now();
    }
    START.with(|start| u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)).saturating_add(1)
}

fn clock_res_get(guest: &mut Guest<'_>, id: u32, out: u32) -> u32 {
    if id > 1 {
        return NOTSUP;
    }
    let (memory, _) = view(guest);
    fault(put(memory, out, &1u64.to_le_bytes()))
}

fn random_get(guest: &mut Guest<'_>, buffer: u32, len: u32) -> u32 {
    /// Proxy-Wasm C++ host, `limits.h`.
    const MAX: u32 = 64 << 10;
    if len > MAX {
        return INVAL;
    }
    let (memory, _) = view(guest);
    let start = buffer as usize;
    let Some(slot) = memory.get_mut(start..start + len as usize) else { return FAULT };
    for chunk in slot.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
    OK
}

/// The process's hash keys are random; hashing a counter with them is enough
/// for guests, which know that this is no source of secrets.
pub(crate) fn random() -> u64 {
    thread_local! {
        static KEYS: std::hash::RandomState = std::hash::RandomState::new();
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }
    let count = COUNT.with(|count| {
        count.set(count.get().wrapping_add(1));
        count.get()
    });
    KEYS.with(|keys| {
        let mut hasher = keys.build_hasher();
        hasher.write_u64(count);
        hasher.finish()
    })
}

fn poll_oneoff(guest: &mut Guest<'_>, _in: u32, _out: u32, _count: u32, out_events: u32) -> u32 {
    let (memory, _) = view(guest);
    fault(put_u32(memory, out_events, 0))
}
