//! What a host function answers, and how it may end the call instead.

/// `WasmResult` of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// Anything but success of a host function.
pub(crate) enum Abort {
    Status(Status),
    /// The guest trapped in its allocator, or must: unwinds the whole call.
    Trap(wasmtime::Error),
}

impl From<Status> for Abort {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<wasmtime::Error> for Abort {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Abort>;
