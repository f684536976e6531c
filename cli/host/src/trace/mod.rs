//! What plugins and host say to each other, as values: each call of the host
//! into a plugin with every host function that the plugin called meanwhile.
//!
//! A process that is not traced links other host functions ([`crate::abi`]):
//! nothing here runs then. Values are bounded, and bodies and configurations
//! are only measured; whoever shows the rest takes secrets out of it.

mod read;
mod record;
mod shape;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::log::{ContextKind, Origin};

pub(crate) use record::{Answer, Numbers, Recorder, close, open};

/// Where frames go. Called on the worker's own thread: it must not block.
pub type Sink = Arc<dyn Fn(Frame) + Send + Sync>;

/// One call of the host into a plugin.
#[derive(Debug, Clone)]
pub struct Frame {
    pub time: SystemTime,
    /// The thread it happened on; `load` while a plugin is tried on the side.
    pub thread: Arc<str>,
    pub origin: Arc<Origin>,
    /// The context that the host called.
    pub context: u32,
    pub kind: ContextKind,
    /// The HTTP stream of that context, counted from 1 in the order in which
    /// streams met their first plugin; the same for all plugins of a chain.
    pub stream: Option<u64>,
    pub callback: &'static str,
    /// Without the context's id.
    pub arguments: Vec<Field>,
    /// What the plugin returned, in words; empty for nothing.
    pub returned: Cow<'static, str>,
    /// Without what tracing itself took.
    pub took: Duration,
    /// In the order in which they began.
    pub calls: Vec<Call>,
    /// Calls beyond what one frame may hold.
    pub left_out: u64,
}

/// One host function that a plugin called.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: &'static str,
    /// The context that it acted for.
    pub context: u32,
    pub arguments: Vec<Field>,
    /// `WasmResult` or WASI's error by name; empty for a function without a
    /// result.
    pub status: Cow<'static, str>,
    /// What it wrote into the plugin's memory.
    pub returned: Vec<Field>,
    pub took: Duration,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub value: Value,
}

/// The beginning of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub bytes: Vec<u8>,
    /// How long it is as a whole.
    pub size: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Flag(bool),
    /// A number of the ABI, by its name.
    Word(Cow<'static, str>),
    Text(Cut),
    /// Bytes that are not told, only how many.
    Size(usize),
    /// A property's path, its parts divided by NUL.
    Path(Cut),
    /// The value of the header of that name.
    Header {
        name: Vec<u8>,
        value: Cut,
    },
    /// The value of the property of that path.
    Property {
        path: Vec<u8>,
        value: Cut,
    },
    /// The first of a map's headers, and how many there are.
    Headers {
        headers: Vec<(Vec<u8>, Cut)>,
        count: usize,
    },
    /// The plugin pointed outside of its memory.
    Unreadable,
}
