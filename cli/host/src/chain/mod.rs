//! The filter chain of one HTTP stream: Envoy's filter manager for Wasm filters.
//!
//! Requests pass the filters in order, responses in reverse. Whoever drives the
//! chain feeds it messages from both sides and takes [`Output`]s from it.
//!
//! - `iterate`: how headers, data and trailers travel, stop and go on
//! - `filter`: what one Wasm filter does with them (callbacks, windows, statuses)
//! - `reply`: answers made here instead of upstream

mod filter;
mod iterate;
mod reply;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use crate::body::Body;
use crate::context::Context;
use crate::exchange::{Exchange, ListenerInfo, RouteTable, Side, StreamInfo};
use crate::headers::{HeaderKind, HeaderList};
use crate::plugin::Plugin;
use crate::worker::{Attached, PluginHandle, WorkerFilter};

pub use reply::LocalReply;
pub(crate) use reply::grpc_status_of as grpc_status_of_response;

/// What leaves the chain. Headers and trailers are in the exchange.
#[derive(Debug)]
pub enum Output {
    Headers {
        side: Side,
        end_stream: bool,
    },
    Data {
        side: Side,
        data: Body,
        end_stream: bool,
    },
    Trailers {
        side: Side,
    },
    /// Cut the stream: nothing more can be said to the client.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Iteration {
    #[default]
    Continue,
    StopSingle,
    StopAllBuffer,
    StopAllWatermark,
}

/// Where one direction stands at one filter.
#[derive(Default)]
struct Place {
    state: Cell<Iteration>,
    headers_continued: Cell<bool>,
    iterate_from_current: Cell<bool>,
    end_stream: Cell<bool>,
}

impl Place {
    fn stopped_all(&self) -> bool {
        matches!(self.state.get(), Iteration::StopAllBuffer | Iteration::StopAllWatermark)
    }
}

struct Slot {
    link: Link,
    decode: Place,
    encode: Place,
    /// The answer to a failed VM has been sent for this filter.
    failed: Cell<bool>,
}

enum Link {
    Live {
        context: Rc<Context>,
        handle: Rc<PluginHandle>,
    },
    /// The VM had failed before the stream began and its policy is to refuse.
    Closed(Arc<Plugin>),
}

/// Which callback is running, of either direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Decode,
    Encode,
}

/// One stream's chain. Held by its driver; contexts point back weakly.
pub struct Chain {
    exchange: Rc<Exchange>,
    slots: Vec<Slot>,
    out: RefCell<VecDeque<Output>>,
    /// Callbacks on the stack, innermost last; a chain can be entered again
    /// from the actions of its own callbacks.
    calls: RefCell<Vec<Call>>,
    decode_aborted: Cell<bool>,
    encode_aborted: Cell<bool>,
    prepared: RefCell<Option<LocalReply>>,
    /// Response headers have left for the client.
    response_started: Cell<bool>,
    response_ended: Cell<bool>,
    /// The response was made here.
    replied: Cell<bool>,
    was_reset: Cell<bool>,
    finished: Cell<bool>,
    is_head: Cell<bool>,
    is_grpc: Cell<bool>,
    buffer_limit: usize,
    waker: RefCell<Option<Waker>>,
    driven: Cell<bool>,
    /// How deep continuing is nested in itself.
    continuing: Cell<u32>,
}

/// What a chain is made from.
pub struct ChainParams<'a> {
    pub filters: &'a [Rc<WorkerFilter>],
    pub info: StreamInfo,
    pub listener: Arc<ListenerInfo>,
    pub routes: Rc<dyn RouteTable>,
    /// Bytes that filters may hold back; 0: no limit.
    pub buffer_limit: usize,
}

impl Chain {
    /// A chain for one stream, with the filters as they are now.
    pub fn new(params: ChainParams<'_>) -> Rc<Self> {
        let exchange = Exchange::new(params.info, params.listener, params.routes);
        Rc::new_cyclic(|this: &Weak<Self>| {
            let mut slots = Vec::with_capacity(params.filters.len());
            for filter in params.filters {
                let link = match filter.attached() {
                    Attached::Skipped => continue,
                    Attached::Closed(plugin) => Link::Closed(plugin),
                    Attached::Live(handle) => {
                        let context = handle.new_stream(&exchange, this, slots.len());
                        Link::Live { context, handle }
                    }
                };
                slots.push(Slot { link, decode: Place::default(), encode: Place::default(), failed: Cell::new(false) });
            }
            Self {
                exchange,
                slots,
                out: RefCell::default(),
                calls: RefCell::default(),
                decode_aborted: Cell::new(false),
                encode_aborted: Cell::new(false),
                prepared: RefCell::default(),
                response_started: Cell::new(false),
                response_ended: Cell::new(false),
                replied: Cell::new(false),
                was_reset: Cell::new(false),
                finished: Cell::new(false),
                is_head: Cell::new(false),
                is_grpc: Cell::new(false),
                buffer_limit: params.buffer_limit,
                waker: RefCell::default(),
                driven: Cell::new(false),
                continuing: Cell::new(0),
            }
        })
    }

    pub fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// Headers of the request or, unless one was made here, of the response.
    pub fn on_headers(self: &Rc<Self>, side: Side, headers: HeaderList, end_stream: bool) {
        self.driven.set(true);
        if side == Side::Request {
            self.is_head.set(headers.get(b":method") == Some(b"HEAD"));
            self.is_grpc.set(headers.get(b"content-type").is_some_and(is_grpc));
        } else if self.exchange.response.headers.borrow().is_some() {
            self.driven.set(false);
            return;
        }
        let half = self.exchange.half(side);
        half.headers.replace(Some(headers));
        half.complete.set(end_stream);
        match side {
            Side::Request => drop(self.exchange.route()),
            Side::Response => self.note_response_code(),
        }
        self.headers(side, None, end_stream);
        self.driven.set(false);
    }

    /// Headers of a request that is refused before any filter sees it.
    pub fn refuse(self: &Rc<Self>, request: Option<HeaderList>, reply: LocalReply) {
        self.exchange.request.headers.replace(request);
        self.exchange.request.complete.set(true);
        self.local_reply(reply);
    }

    /// Body bytes of either side.
    pub fn on_data(self: &Rc<Self>, side: Side, data: Body, end_stream: bool) {
        if self.is_over(side) {
            return;
        }
        self.driven.set(true);
        let half = self.exchange.half(side);
        // Envoy counts a request as it comes, a response as it goes.
        if side == Side::Request {
            half.bytes.set(half.bytes.get() + data.len() as u64);
        }
        half.complete.set(end_stream);
        self.data(side, None, iterate::Data::Chunk(data), end_stream, iterate::Start::Next);
        self.driven.set(false);
    }

    /// Trailers of either side: its end.
    pub fn on_trailers(self: &Rc<Self>, side: Side, mut trailers: HeaderList) {
        if self.is_over(side) {
            return;
        }
        self.driven.set(true);
        trailers = {
            let kind = match side {
                Side::Request => HeaderKind::RequestTrailers,
                Side::Response => HeaderKind::ResponseTrailers,
            };
            let mut list = HeaderList::new(kind);
            trailers.iter().for_each(|(name, value)| list.add(name, value));
            list
        };
        let half = self.exchange.half(side);
        half.trailers.replace(Some(trailers));
        half.complete.set(true);
        self.trailers(side, None);
        self.driven.set(false);
    }

    /// Nothing of this side is wanted any more.
    fn is_over(&self, side: Side) -> bool {
        self.was_reset.get()
            || match side {
                Side::Request => self.response_ended.get() || self.decode_aborted.get(),
                Side::Response => self.replied.get() || self.encode_aborted.get(),
            }
    }

    /// The next thing to do for the outside world.
    pub fn next_output(&self) -> Option<Output> {
        self.out.borrow_mut().pop_front()
    }

    /// Woken when output appears that the driver did not cause itself.
    pub fn set_waker(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    fn emit(&self, output: Output) {
        self.out.borrow_mut().push_back(output);
        self.wake();
    }

    fn wake(&self) {
        if !self.driven.get()
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// False while filters hold back more than the limit: read no more.
    pub fn wants_data(&self, side: Side) -> bool {
        self.buffer_limit == 0 || self.exchange.half(side).buffered_len() <= self.buffer_limit
    }

    /// The response was made here, not upstream.
    pub fn is_local_reply(&self) -> bool {
        self.replied.get()
    }

    /// Response headers have been emitted.
    pub fn response_started(&self) -> bool {
        self.response_started.get()
    }

    /// The whole response has been emitted.
    pub fn response_ended(&self) -> bool {
        self.response_ended.get()
    }

    pub fn was_reset(&self) -> bool {
        self.was_reset.get()
    }

    /// Cuts the stream.
    pub fn reset(&self) {
        if !self.was_reset.replace(true) {
            self.emit(Output::Reset);
        }
    }

    /// Takes the stream up again behind a filter (`proxy_continue_stream`).
    pub(crate) fn resume(self: &Rc<Self>, index: usize, side: Side) {
        if !self.was_reset.get() && !self.finished.get() {
            self.common_continue(side, self.position(side, index));
            self.wake();
        }
    }

    fn note_response_code(&self) {
        let code = self
            .exchange
            .headers(Side::Response)
            .and_then(|headers| std::str::from_utf8(headers.get(b":status")?).ok()?.parse().ok());
        self.exchange.info.borrow_mut().response_code = code;
    }

    /// The stream is complete: every filter logs it, then each lets go of it.
    pub fn finish(self: &Rc<Self>) {
        if self.finished.replace(true) {
            return;
        }
        for slot in &self.slots {
            self.filter_log(slot);
        }
        for slot in &self.slots {
            self.filter_destroy(slot);
        }
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}
