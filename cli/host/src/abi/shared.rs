//! Shared data and shared queues.

use std::sync::Arc;

use super::{Link, export};
use crate::memory::{Guest, bytes, give, put_u32, view};
use crate::status::{Outcome, Status};

pub(super) fn link(link: &mut Link<'_>) -> wasmtime::Result<()> {
    export!(link, "env", "proxy_get_shared_data", get_data,
        (key: u32, key_len: u32, out: u32, out_len: u32, out_cas: u32));
    export!(link, "env", "proxy_set_shared_data", set_data,
        (key: u32, key_len: u32, value: u32, value_len: u32, cas: u32));
    export!(link, "env", "proxy_register_shared_queue", register, (name: u32, name_len: u32, out: u32));
    export!(link, "env", "proxy_resolve_shared_queue", resolve,
        (vm_id: u32, vm_id_len: u32, name: u32, name_len: u32, out: u32));
    export!(link, "env", "proxy_enqueue_shared_queue", enqueue, (token: u32, value: u32, value_len: u32));
    export!(link, "env", "proxy_dequeue_shared_queue", dequeue, (token: u32, out: u32, out_len: u32));
    Ok(())
}

fn get_data(guest: &mut Guest<'_>, key: u32, key_len: u32, out: u32, out_len: u32, out_cas: u32) -> Outcome {
    let (memory, state) = view(guest);
    let key = bytes(memory, key, key_len)?;
    let vm = &state.vm;
    let (value, cas) = vm.worker.process.data.get(&vm.identity.vm_id, key).ok_or(Status::NotFound)?;
    give(guest, &value, out, out_len)?;
    let (memory, _) = view(guest);
    put_u32(memory, out_cas, cas)
}

fn set_data(guest: &mut Guest<'_>, key: u32, key_len: u32, value: u32, value_len: u32, cas: u32) -> Outcome {
    let (memory, state) = view(guest);
    let key = bytes(memory, key, key_len)?;
    let value = bytes(memory, value, value_len)?;
    state.keep(key.len() + value.len())?;
    let vm = &state.vm;
    Ok(vm.worker.process.data.set(&vm.identity.vm_id, key, value, cas)?)
}

fn register(guest: &mut Guest<'_>, name: u32, name_len: u32, out: u32) -> Outcome {
    let (memory, state) = view(guest);
    let name = bytes(memory, name, name_len)?;
    state.keep(name.len())?;
    let vm = &state.vm;
    let root = state.context().root().map_or(0, |(root, _)| root.id);
    let reader = Arc::downgrade(&vm.worker.mailbox);
    let token = vm.worker.process.queues.register(&vm.identity.vm_id, name, reader, vm.identity.key, root);
    put_u32(memory, out, token)
}

fn resolve(guest: &mut Guest<'_>, vm_id: u32, vm_id_len: u32, name: u32, name_len: u32, out: u32) -> Outcome {
    let (memory, state) = view(guest);
    let vm_id = bytes(memory, vm_id, vm_id_len)?;
    let name = bytes(memory, name, name_len)?;
    let vm = &state.vm;
    let vm_id = if vm_id.is_empty() { vm.identity.vm_id.clone().into() } else { String::from_utf8_lossy(vm_id) };
    let token = vm.worker.process.queues.resolve(&vm_id, name).ok_or(Status::NotFound)?;
    put_u32(memory, out, token)
}

fn enqueue(guest: &mut Guest<'_>, token: u32, value: u32, value_len: u32) -> Outcome {
    let (memory, state) = view(guest);
    let value = bytes(memory, value, value_len)?;
    state.keep(value.len())?;
    Ok(state.vm.worker.process.queues.enqueue(token, value)?)
}

fn dequeue(guest: &mut Guest<'_>, token: u32, out: u32, out_len: u32) -> Outcome {
    let item = guest.data().vm.worker.process.queues.dequeue(token)?;
    give(guest, &item, out, out_len)
}
