//! gRPC calls and streams that plugins open: what Envoy's gRPC client makes of
//! an HTTP/2 stream, which whoever drives the worker carries.
//!
//! The driver takes [`GrpcOutgoing`]s from a [`GrpcStream`] and hands it what
//! comes back; framing, statuses and callbacks are decided here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::chain::grpc_status_of_response;
use crate::context::{Context, Root};
use crate::headers::{HeaderKind, HeaderList};
use crate::vm::{Vm, length};

/// gRPC's status numbers, as far as the client makes them up itself.
pub(crate) const UNKNOWN: u32 = 2;
pub(crate) const INTERNAL: u32 = 13;
pub(crate) const UNAVAILABLE: u32 = 14;

/// Envoy's gRPC decoder refuses nothing below 4 GiB; this keeps a message
/// within what the guest could hold at all.
const MAX_MESSAGE: usize = 1 << 30;
const VIA_UPSTREAM: &str = "via_upstream";
/// A flag and four bytes of length before each message.
const FRAME_HEAD: usize = 5;

/// A gRPC call to be made: `POST` of these headers to a cluster, over HTTP/2.
pub struct GrpcCallout {
    pub cluster: String,
    pub headers: HeaderList,
    /// None: no limit.
    pub timeout: Option<Duration>,
    pub stream: Rc<GrpcStream>,
}

/// What leaves towards the upstream.
#[derive(Debug, PartialEq, Eq)]
pub enum GrpcOutgoing {
    Data {
        data: Bytes,
        end_stream: bool,
    },
    /// Cut the stream; nothing more is wanted of it.
    Reset,
}

/// How a call or stream ends.
struct End {
    status: u32,
    message: String,
}

/// One call or stream between a root context and the upstream.
pub struct GrpcStream {
    vm: Weak<Vm>,
    root: Rc<Context>,
    token: u32,
    /// One message each way, and one callback: its answer or its failure.
    unary: bool,
    outgoing: RefCell<VecDeque<GrpcOutgoing>>,
    waker: RefCell<Option<Waker>>,
    incoming: RefCell<BytesMut>,
    /// How the response came about, in Envoy's words.
    details: RefCell<String>,
    /// The message of a unary call, until its status is known.
    response: RefCell<Option<Bytes>>,
    pub(crate) local_closed: Cell<bool>,
    /// The plugin has been told of the end, or wants to hear no more.
    ended: Cell<bool>,
}

impl GrpcStream {
    pub(crate) fn new(vm: Weak<Vm>, root: Rc<Context>, token: u32, unary: bool) -> Rc<Self> {
        Rc::new(Self {
            vm,
            root,
            token,
            unary,
            outgoing: RefCell::default(),
            waker: RefCell::default(),
            incoming: RefCell::default(),
            details: RefCell::default(),
            response: RefCell::default(),
            local_closed: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    /// A message of the plugin, framed.
    pub(crate) fn send(&self, message: &[u8], end_stream: bool) {
        let mut data = BytesMut::with_capacity(FRAME_HEAD + message.len());
        data.put_u8(0);
        data.put_u32(length(message.len()));
        data.put_slice(message);
        self.push(GrpcOutgoing::Data { data: data.freeze(), end_stream });
    }

    pub(crate) fn close(&self) {
        self.push(GrpcOutgoing::Data { data: Bytes::new(), end_stream: true });
    }

    /// The plugin wants nothing more of it.
    pub(crate) fn cancel(&self) {
        if !self.ended.replace(true) {
            self.push(GrpcOutgoing::Reset);
        }
    }

    fn push(&self, outgoing: GrpcOutgoing) {
        self.outgoing.borrow_mut().push_back(outgoing);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The next thing to send.
    pub fn next_outgoing(&self) -> Option<GrpcOutgoing> {
        self.outgoing.borrow_mut().pop_front()
    }

    /// Woken when there is something more to send.
    pub fn set_waker(&self, waker: &Waker) {
        self.waker.replace(Some(waker.clone()));
    }

    /// The end has been told, or nobody is left to tell: send no more.
    pub fn is_over(&self) -> bool {
        self.ended.get() || self.vm.upgrade().is_none_or(|vm| vm.is_failed())
    }

    /// Envoy's router answers in place of an upstream that does not: what it
    /// says, and the details of the response.
    pub fn on_local_reply(&self, message: &str, details: &str) {
        let mut headers = HeaderList::new(HeaderKind::Response);
        headers.add(b":status", b"200");
        headers.add(b"content-type", b"application/grpc");
        headers.add(b"grpc-status", UNAVAILABLE.to_string().as_bytes());
        headers.add(b"grpc-message", message.as_bytes());
        self.answered(headers, true, details);
    }

    /// Headers of the response.
    pub fn on_headers(&self, headers: HeaderList, end_stream: bool) {
        self.answered(headers, end_stream, VIA_UPSTREAM);
    }

    fn answered(&self, headers: HeaderList, end_stream: bool, details: &str) {
        if self.is_over() {
            return;
        }
        self.details.replace(details.to_owned());
        let code = headers.get(b":status").and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).unwrap_or(0);
        let has_status = headers.get(b"grpc-status").is_some();
        let trailers = end_stream.then(|| trailers_of(&headers));
        self.tell_initial(if end_stream { HeaderList::new(HeaderKind::Response) } else { headers });
        match trailers {
            Some(trailers) if code == 200 || has_status => self.on_trailers(trailers),
            _ if code != 200 => self.fail(grpc_status_of_response(code), ""),
            _ => {}
        }
    }

    /// Bytes of the response's body.
    pub fn on_data(&self, data: &[u8], end_stream: bool) {
        self.incoming.borrow_mut().extend_from_slice(data);
        loop {
            if self.is_over() {
                return;
            }
            match self.next_message() {
                Ok(Some(message)) => self.tell_message(message),
                Ok(None) => break,
                Err(()) => return self.fail(INTERNAL, ""),
            }
        }
        // A gRPC response ends with trailers, never with data.
        if end_stream {
            self.fail(UNKNOWN, "");
        }
    }

    fn next_message(&self) -> Result<Option<Bytes>, ()> {
        let mut incoming = self.incoming.borrow_mut();
        let Some(head) = incoming.get(..FRAME_HEAD) else { return Ok(None) };
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        // Envoy knows no compressed messages.
        if head[0] > 1 || (head[0] == 1 && size > 0) || size > MAX_MESSAGE {
            return Err(());
        }
        if incoming.len() < FRAME_HEAD + size {
            return Ok(None);
        }
        incoming.advance(FRAME_HEAD);
        Ok(Some(incoming.split_to(size).freeze()))
    }

    /// Trailers of the response: its end.
    pub fn on_trailers(&self, trailers: HeaderList) {
        if self.is_over() {
            return;
        }
        let text = |name| trailers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let status = text(b"grpc-status").and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN);
        let message = text(b"grpc-message").unwrap_or_default();
        self.tell_trailing(trailers);
        self.finish(End { status, message: self.with_details(&message) });
    }

    /// The stream was cut.
    pub fn on_reset(&self) {
        self.details.replace(String::new());
        self.fail(INTERNAL, "");
    }

    /// A message as plugins read it: its percent-encoding kept, followed by how
    /// the response came about.
    fn with_details(&self, message: &str) -> String {
        match (message, self.details.borrow().as_str()) {
            (message, "") => message.to_owned(),
            ("", details) => details.to_owned(),
            (message, details) => format!("{message}{{{details}}}"),
        }
    }

    /// Ends what has not ended with a status of the client's own.
    pub(crate) fn fail(&self, status: u32, message: &str) {
        if self.is_over() {
            return;
        }
        self.tell_trailing(HeaderList::new(HeaderKind::ResponseTrailers));
        self.finish(End { status, message: self.with_details(message) });
        self.push(GrpcOutgoing::Reset);
    }

    fn finish(&self, end: End) {
        if self.is_over() {
            return;
        }
        self.ended.set(true);
        let response = self.response.borrow_mut().take();
        match response {
            Some(message) if self.unary && end.status == 0 => self.deliver_message(message),
            None if self.unary && end.status == 0 => self.deliver_close(INTERNAL, ""),
            _ => self.deliver_close(end.status, &end.message),
        }
        if self.unary || self.local_closed.get() {
            self.with_root(|_, root| root.grpc.borrow_mut().remove(&self.token));
        }
    }

    fn tell_message(&self, message: Bytes) {
        if self.unary {
            self.response.replace(Some(message));
        } else {
            self.deliver_message(message);
        }
    }

    fn tell_initial(&self, headers: HeaderList) {
        if !self.unary {
            self.with_root(|vm, root| {
                let params = (self.root.id, self.token, length(headers.len()));
                root.grpc_initial.replace(Some(headers));
                let export = vm.exports.on_grpc_receive_initial_metadata.as_ref();
                vm.call(&self.root, "proxy_on_grpc_receive_initial_metadata", export, params);
                root.grpc_initial.replace(None);
                vm.after_call();
            });
        }
    }

    fn tell_trailing(&self, trailers: HeaderList) {
        if !self.unary {
            self.with_root(|vm, root| {
                let params = (self.root.id, self.token, length(trailers.len()));
                root.grpc_trailing.replace(Some(trailers));
                let export = vm.exports.on_grpc_receive_trailing_metadata.as_ref();
                vm.call(&self.root, "proxy_on_grpc_receive_trailing_metadata", export, params);
                root.grpc_trailing.replace(None);
                vm.after_call();
            });
        }
    }

    fn deliver_message(&self, message: Bytes) {
        self.with_root(|vm, root| {
            let params = (self.root.id, self.token, length(message.len()));
            root.grpc_message.replace(Some(message));
            vm.call(&self.root, "proxy_on_grpc_receive", vm.exports.on_grpc_receive.as_ref(), params);
            root.grpc_message.replace(None);
            vm.after_call();
        });
    }

    fn deliver_close(&self, status: u32, message: &str) {
        self.with_root(|vm, root| {
            root.status.replace((status, message.to_owned().into()));
            let params = (self.root.id, self.token, status);
            vm.call(&self.root, "proxy_on_grpc_close", vm.exports.on_grpc_close.as_ref(), params);
            root.status.borrow_mut().1 = "".into();
            vm.after_call();
        });
    }

    fn with_root<T>(&self, f: impl FnOnce(&Rc<Vm>, &Root) -> T) -> Option<T> {
        let vm = self.vm.upgrade()?;
        let (_, root) = self.root.root()?;
        Some(f(&vm, root))
    }
}

/// Headers that are trailers as well, as of a response without a body.
fn trailers_of(headers: &HeaderList) -> HeaderList {
    let mut trailers = HeaderList::new(HeaderKind::ResponseTrailers);
    headers.iter().for_each(|(name, value)| trailers.add(name, value));
    trailers
}
