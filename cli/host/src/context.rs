//! Contexts: what a guest's context ids stand for.
//!
//! A VM has one context of its own (id 0), a root context per plugin, and one
//! stream context per HTTP stream and filter. All belong to one thread.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::Chain;
use crate::exchange::{Exchange, Side};
use crate::grpc::GrpcStream;
use crate::headers::HeaderList;
use crate::log::{ContextKind, Origin};
use crate::plugin::Plugin;

pub(crate) struct Context {
    pub(crate) id: u32,
    pub(crate) origin: Arc<Origin>,
    /// The guest has been told of this id.
    pub(crate) created: Cell<bool>,
    pub(crate) role: Role,
}

pub(crate) enum Role {
    Vm,
    Root(Box<Root>),
    Stream(StreamPart),
}

/// A plugin within a VM: owns its timer, its callouts, its configuration.
pub(crate) struct Root {
    pub(crate) plugin: Arc<Plugin>,
    /// Buffer 7 is readable now.
    pub(crate) configuring: Cell<bool>,
    pub(crate) call_response: RefCell<Option<CallResponse>>,
    /// Code and message of `proxy_get_status`.
    pub(crate) status: RefCell<(u32, Cow<'static, str>)>,
    pub(crate) calls: RefCell<HashSet<u32>>,
    /// gRPC calls and streams by token.
    pub(crate) grpc: RefCell<HashMap<u32, Rc<GrpcStream>>>,
    /// What a gRPC callback may read, while it runs.
    pub(crate) grpc_initial: RefCell<Option<HeaderList>>,
    pub(crate) grpc_trailing: RefCell<Option<HeaderList>>,
    pub(crate) grpc_message: RefCell<Option<Bytes>>,
    /// `proxy_on_done` returned false; `proxy_done` is awaited.
    pub(crate) pending_done: Cell<bool>,
    /// Properties declared by the plugin, and whether each is read-only.
    pub(crate) declared: RefCell<Vec<(Vec<u8>, bool)>>,
}

/// The answer to a callout, while the guest may read it.
#[derive(Debug, Default)]
pub struct CallResponse {
    pub headers: HeaderList,
    pub body: Bytes,
    pub trailers: Option<HeaderList>,
}

/// Where the body that a guest may touch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BodyWindow {
    /// Out of the callbacks' reach: reads as empty, refuses writes.
    #[default]
    Closed,
    /// The chunk on its way through the chain.
    Chunk,
    /// What the stream has accumulated.
    Buffered,
}

/// What a guest holds of one direction of a stream.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) headers: Cell<bool>,
    pub(crate) trailers: Cell<bool>,
    pub(crate) body: Cell<BodyWindow>,
    /// The last body callback asked for accumulation.
    pub(crate) buffering: Cell<bool>,
}

impl Held {
    pub(crate) fn release(&self) {
        self.headers.set(false);
        self.trailers.set(false);
        self.body.set(BodyWindow::Closed);
    }

    pub(crate) fn body_window(&self) -> BodyWindow {
        if self.buffering.get() { BodyWindow::Buffered } else { self.body.get() }
    }
}

/// One HTTP stream as one filter sees it.
pub(crate) struct StreamPart {
    pub(crate) root: Rc<Context>,
    pub(crate) exchange: Rc<Exchange>,
    pub(crate) chain: Weak<Chain>,
    /// Place in the chain.
    pub(crate) index: usize,
    pub(crate) request: Held,
    pub(crate) response: Held,
    pub(crate) end_of_stream: Cell<bool>,
    pub(crate) logging: Cell<bool>,
    /// A local reply has been asked for.
    pub(crate) replied: Cell<bool>,
}

impl StreamPart {
    pub(crate) fn held(&self, side: Side) -> &Held {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }
}

impl Context {
    pub(crate) fn kind(&self) -> ContextKind {
        match self.role {
            Role::Vm => ContextKind::Vm,
            Role::Root(_) => ContextKind::Root,
            Role::Stream(_) => ContextKind::Stream,
        }
    }

    pub(crate) fn stream(&self) -> Option<&StreamPart> {
        match &self.role {
            Role::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// The root context this one belongs to, with its part of a root.
    pub(crate) fn root(self: &Rc<Self>) -> Option<(&Rc<Self>, &Root)> {
        let context = match &self.role {
            Role::Vm => return None,
            Role::Root(_) => self,
            Role::Stream(stream) => &stream.root,
        };
        match &context.role {
            Role::Root(root) => Some((context, root)),
            _ => None,
        }
    }
}
