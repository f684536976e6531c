//! Guest memory: every access checked, every allocation through the guest.

use wasmtime::{Caller, Trap};

use crate::state::{Restriction, VmState};
use crate::status::{Outcome, Status};

pub(crate) type Guest<'a> = Caller<'a, VmState>;

/// All of the guest's memory beside the state of its VM.
pub(crate) fn view<'a>(guest: &'a mut Guest<'_>) -> (&'a mut [u8], &'a mut VmState) {
    match guest.data().memory {
        Some(memory) => memory.data_and_store_mut(guest),
        None => (&mut [], guest.data_mut()),
    }
}

/// A range of guest memory, or `InvalidMemoryAccess`.
pub(crate) fn bytes(memory: &[u8], at: u32, len: u32) -> Outcome<&[u8]> {
    let start = at as usize;
    let end = start + len as usize;
    Ok(memory.get(start..end).ok_or(Status::InvalidMemoryAccess)?)
}

/// Writes raw bytes where an out-parameter points.
pub(crate) fn put(memory: &mut [u8], at: u32, value: &[u8]) -> Outcome {
    let start = at as usize;
    let slot = memory.get_mut(start..start + value.len()).ok_or(Status::InvalidMemoryAccess)?;
    slot.copy_from_slice(value);
    Ok(())
}

pub(crate) fn put_u32(memory: &mut [u8], at: u32, value: u32) -> Outcome {
    put(memory, at, &value.to_le_bytes())
}

/// Memory from the guest's own allocator, or `InvalidMemoryAccess`.
///
/// While the allocator runs the guest may only log: the one call into a guest
/// that the host makes from inside a host function.
pub(crate) fn allocate(guest: &mut Guest<'_>, size: u32) -> Outcome<u32> {
    let Some((name, malloc)) = guest.data().malloc.clone() else { return Err(Status::InvalidMemoryAccess.into()) };
    let before = std::mem::replace(&mut guest.data_mut().restriction, Restriction::Malloc);
    let result = malloc.call(&mut *guest, size);
    guest.data_mut().restriction = before;
    match result {
        Ok(0) => Err(Status::InvalidMemoryAccess.into()),
        Ok(address) => Ok(address),
        Err(error) if error.downcast_ref() == Some(&Trap::Interrupt) => Err(error.into()),
        // In V8 a trap in here ends the allocator alone: what called it goes on
        // in a VM that has failed.
        Err(error) => {
            if let Some(vm) = guest.data().vm.this.borrow().upgrade() {
                vm.fail(name, &error);
            }
            Err(Status::InvalidMemoryAccess.into())
        }
    }
}

/// Hands `size` bytes to the guest, filled in place, and writes where they are.
pub(crate) fn give_with(
    guest: &mut Guest<'_>,
    size: usize,
    out_ptr: u32,
    out_size: u32,
    fill: impl FnOnce(&mut [u8]),
) -> Outcome {
    let Ok(size) = u32::try_from(size) else { return Err(Status::InvalidMemoryAccess.into()) };
    let mut address = 0;
    if size > 0 {
        address = allocate(guest, size)?;
        let (memory, _) = view(guest);
        let start = address as usize;
        let slot = memory.get_mut(start..start + size as usize).ok_or(Status::InvalidMemoryAccess)?;
        fill(slot);
    }
    let (memory, _) = view(guest);
    put_u32(memory, out_ptr, address)?;
    put_u32(memory, out_size, size)
}

/// Hands bytes to the guest; none: address 0, size 0.
pub(crate) fn give(guest: &mut Guest<'_>, value: &[u8], out_ptr: u32, out_size: u32) -> Outcome {
    give_with(guest, value.len(), out_ptr, out_size, |slot| slot.copy_from_slice(value))
}
