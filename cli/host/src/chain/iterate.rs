//! How headers, data and trailers travel along the chain, stop and go on.
//!
//! Follows Envoy's `filter_manager.cc` step by step, because which callbacks a
//! guest sees, and with what, is decided by exactly this bookkeeping.

use std::rc::Rc;

use super::{Call, Chain, Iteration, LocalReply, Output, Place, Slot};
use crate::body::Body;
use crate::exchange::Side;

/// The data on its way: a chunk of its own, or what the stream has buffered.
pub(super) enum Data {
    Chunk(Body),
    Buffered,
}

/// Where an iteration begins relative to the filter it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Next,
    CurrentIfStopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadersStatus {
    Continue,
    Stop,
    StopAllBuffer,
    StopAllWatermark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataStatus {
    Continue,
    StopAndBuffer,
    StopAndWatermark,
    StopNoBuffer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrailersStatus {
    Continue,
    Stop,
}

impl Slot {
    fn place(&self, side: Side) -> &Place {
        match side {
            Side::Request => &self.decode,
            Side::Response => &self.encode,
        }
    }
}

impl Chain {
    /// Order of iteration of a filter: responses pass the chain backwards.
    pub(super) fn position(&self, side: Side, index: usize) -> usize {
        match side {
            Side::Request => index,
            Side::Response => self.slots.len() - 1 - index,
        }
    }

    fn slot(&self, side: Side, position: usize) -> &Slot {
        // The same arithmetic maps both ways.
        &self.slots[self.position(side, position)]
    }

    fn first(&self, side: Side, from: Option<usize>, start: Start) -> usize {
        match from {
            None => 0,
            Some(at)
                if start == Start::CurrentIfStopped && self.slot(side, at).place(side).iterate_from_current.get() =>
            {
                at
            }
            Some(at) => at + 1,
        }
    }

    fn enter(&self, side: Side) {
        self.calls.borrow_mut().push(match side {
            Side::Request => Call::Decode,
            Side::Response => Call::Encode,
        });
    }

    fn leave(&self) {
        self.calls.borrow_mut().pop();
    }

    pub(super) fn aborted(&self, side: Side) -> bool {
        self.was_reset.get()
            || match side {
                Side::Request => self.decode_aborted.get(),
                Side::Response => self.encode_aborted.get(),
            }
    }

    pub(super) fn headers(self: &Rc<Self>, side: Side, from: Option<usize>, end_stream: bool) {
        for at in self.first(side, from, Start::Next)..self.slots.len() {
            let slot = self.slot(side, at);
            let place = slot.place(side);
            place.end_stream.set(end_stream);
            self.enter(side);
            let mut status = self.filter_headers(slot, side, end_stream);
            self.leave();
            if self.aborted(side) {
                self.send_prepared_reply();
                status = HeadersStatus::Stop;
            }
            match status {
                // Resumed from inside the callback, which then continued anyway:
                // everything behind has run already. Envoy crashes here.
                HeadersStatus::Continue if place.headers_continued.get() => {
                    self.warn(
                        slot,
                        "proxy_continue_stream in a headers callback that returned Continue: Envoy crashes on this",
                    );
                    return;
                }
                HeadersStatus::Continue => place.headers_continued.set(true),
                HeadersStatus::Stop => place.state.set(Iteration::StopSingle),
                HeadersStatus::StopAllBuffer => place.state.set(Iteration::StopAllBuffer),
                HeadersStatus::StopAllWatermark => place.state.set(Iteration::StopAllWatermark),
            }
            if status != HeadersStatus::Continue {
                return;
            }
        }
        self.headers_done(side, end_stream);
    }

    fn headers_done(self: &Rc<Self>, side: Side, end_stream: bool) {
        if side == Side::Response {
            if self.exchange.headers(side).is_some_and(|headers| !headers.contains(b":status")) {
                self.reply_directly(LocalReply::new(
                    502,
                    "missing required header: :status",
                    "filter_removed_required_response_headers{missing_required_header:_:status}",
                ));
                return;
            }
            self.response_started.set(true);
            self.response_ended.set(end_stream);
        }
        self.emit(Output::Headers { side, end_stream });
    }

    pub(super) fn data(
        self: &Rc<Self>,
        side: Side,
        from: Option<usize>,
        mut data: Data,
        mut end_stream: bool,
        start: Start,
    ) {
        if self.aborted(side) {
            return;
        }
        let half = self.exchange.half(side);
        let had_trailers = half.has_trailers();
        let mut trailers_added = None;
        let mut stopped = false;
        for at in self.first(side, from, start)..self.slots.len() {
            let slot = self.slot(side, at);
            let place = slot.place(side);
            if place.stopped_all() {
                half.streaming.set(place.state.get() == Iteration::StopAllWatermark);
                self.hold(side, &mut data);
                return;
            }
            if place.end_stream.get() {
                return;
            }
            place.end_stream.set(end_stream && !half.has_trailers());
            self.enter(side);
            let status = self.filter_data(slot, side, &mut data, place.end_stream.get());
            self.leave();
            if self.aborted(side) {
                self.send_prepared_reply();
                return;
            }
            if !had_trailers && trailers_added.is_none() && half.has_trailers() {
                trailers_added = Some(at);
                end_stream = false;
            }
            if !self.after_data(side, at, status, &mut data) {
                stopped = true;
                break;
            }
        }
        if stopped {
            return;
        }
        self.data_done(side, data, end_stream);
        if let Some(at) = trailers_added {
            self.trailers(side, Some(at));
        }
    }

    fn data_done(&self, side: Side, data: Data, end_stream: bool) {
        let data = match data {
            Data::Chunk(data) => data,
            Data::Buffered => {
                self.exchange.half(side).buffer.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
            }
        };
        if side == Side::Response {
            let half = &self.exchange.response;
            half.bytes.set(half.bytes.get() + data.len() as u64);
            self.response_ended.set(end_stream);
        }
        if !data.is_empty() || end_stream {
            self.emit(Output::Data { side, data, end_stream });
        }
    }

    pub(super) fn trailers(self: &Rc<Self>, side: Side, from: Option<usize>) {
        if self.aborted(side) {
            return;
        }
        for at in self.first(side, from, Start::CurrentIfStopped)..self.slots.len() {
            let slot = self.slot(side, at);
            let place = slot.place(side);
            if place.stopped_all() {
                return;
            }
            place.end_stream.set(true);
            self.enter(side);
            let status = self.filter_trailers(slot, side);
            self.leave();
            if self.aborted(side) {
                self.send_prepared_reply();
                return;
            }
            match status {
                TrailersStatus::Continue if place.state.get() == Iteration::StopSingle => {
                    self.common_continue(side, at);
                    return;
                }
                TrailersStatus::Continue => {}
                TrailersStatus::Stop => {
                    if place.state.get() == Iteration::Continue {
                        place.state.set(Iteration::StopSingle);
                    }
                    return;
                }
            }
        }
        if side == Side::Response {
            self.response_ended.set(true);
        }
        self.emit(Output::Trailers { side });
    }

    /// What a data callback's status means; false: the iteration ends here.
    fn after_data(self: &Rc<Self>, side: Side, at: usize, status: DataStatus, data: &mut Data) -> bool {
        let half = self.exchange.half(side);
        let place = self.slot(side, at).place(side);
        if status == DataStatus::Continue {
            if place.state.get() == Iteration::StopSingle {
                self.hold(side, data);
                self.common_continue(side, at);
                return false;
            }
            // The filter had its chunk appended to the buffer although nothing
            // is stopped any more: it must not stay behind there.
            if let Data::Chunk(chunk) = data
                && half.buffered_len() > 0
                && let Some(buffer) = half.buffer.borrow_mut().as_mut()
            {
                buffer.append(chunk);
                std::mem::swap(buffer, chunk);
            }
            return true;
        }
        place.state.set(Iteration::StopSingle);
        match status {
            DataStatus::StopAndBuffer | DataStatus::StopAndWatermark => {
                half.streaming.set(status == DataStatus::StopAndWatermark);
                self.hold(side, data);
            }
            _ if half.complete.get() && !half.has_trailers() && !half.has_buffer() => {
                half.buffer.replace(Some(Body::new()));
            }
            _ => {}
        }
        false
    }

    /// Moves a chunk into the stream's buffer, unless that is where it is.
    pub(super) fn hold(self: &Rc<Self>, side: Side, data: &mut Data) {
        let Data::Chunk(chunk) = data else { return };
        let half = self.exchange.half(side);
        let before = half.buffered_len();
        half.buffer.borrow_mut().get_or_insert_with(Body::new).append(chunk);
        if self.overflows(side, before, half.buffered_len()) {
            self.too_large(side);
        }
    }

    /// What is held back has grown from `before` to `after`: too much, and not
    /// under back-pressure.
    pub(crate) fn overflows(&self, side: Side, before: usize, after: usize) -> bool {
        let crossed = before <= self.buffer_limit && after > self.buffer_limit;
        self.buffer_limit > 0 && crossed && !self.exchange.half(side).streaming.get()
    }

    /// Goes on behind a stopped filter. A guest that asks for it from every
    /// callback that this leads to would never come back.
    pub(super) fn common_continue(self: &Rc<Self>, side: Side, at: usize) {
        /// Far more than any sane guest nests; Envoy's stack ends at some point.
        const DEEPEST: u32 = 32;
        if self.continuing.get() == DEEPEST {
            self.warn(self.slot(side, at), "proxy_continue_stream within itself: Envoy's stack overflows on this");
            self.reset();
            return;
        }
        self.continuing.set(self.continuing.get() + 1);
        self.continue_behind(side, at);
        self.continuing.set(self.continuing.get() - 1);
    }

    fn continue_behind(self: &Rc<Self>, side: Side, at: usize) {
        let over = side == Side::Request && self.response_ended.get();
        if self.aborted(side) || over {
            return;
        }
        let half = self.exchange.half(side);
        if half.headers.borrow().is_none() {
            self.warn(self.slot(side, at), "proxy_continue_stream before there are headers: Envoy crashes on this");
            return;
        }
        let place = self.slot(side, at).place(side);
        if place.stopped_all() {
            place.iterate_from_current.set(true);
        }
        place.state.set(Iteration::Continue);
        if !place.headers_continued.replace(true) {
            let end_stream = half.complete.get() && !half.has_buffer() && !half.has_trailers();
            self.headers(side, Some(at), end_stream);
        }
        let had_trailers = half.has_trailers();
        if half.has_buffer() {
            let end_stream = half.complete.get() && !had_trailers;
            self.data(side, Some(at), Data::Buffered, end_stream, Start::CurrentIfStopped);
        }
        if had_trailers {
            self.trailers(side, Some(at));
        }
        place.iterate_from_current.set(false);
    }
}
