//! What one Wasm filter does with a message: Envoy's Wasm `Context` as a filter.

use std::rc::Rc;

use super::iterate::{Data, DataStatus, HeadersStatus, TrailersStatus};
use super::{Chain, Link, LocalReply, Slot};
use crate::body::Body;
use crate::config::FailurePolicy;
use crate::context::{BodyWindow, Context, StreamPart};
use crate::exchange::Side;
use crate::log::{ContextKind, Level};
use crate::plugin::Plugin;
use crate::vm::{Vm, length};

/// How a callback ended, before its number means anything.
enum Called {
    /// There is no such export.
    Missing,
    Returned(u32),
    /// The VM has failed, before the call or in it.
    Failed,
}

struct Live<'a> {
    context: &'a Rc<Context>,
    stream: &'a StreamPart,
    vm: &'a Rc<Vm>,
}

impl Slot {
    fn live(&self) -> Option<Live<'_>> {
        let Link::Live { context, handle } = &self.link else { return None };
        let stream = context.stream()?;
        Some(Live { context, stream, vm: handle.vm() })
    }

    fn plugin(&self) -> &Plugin {
        match &self.link {
            Link::Live { handle, .. } => handle.plugin(),
            Link::Closed(plugin) => plugin,
        }
    }
}

impl Live<'_> {
    /// Runs a callback; the caller converts its number before `after_call`.
    fn run(&self, call: impl FnOnce(&Vm) -> Option<Option<u32>>) -> Called {
        if self.vm.is_failed() {
            return Called::Failed;
        }
        match call(self.vm) {
            None => Called::Missing,
            Some(Some(value)) => Called::Returned(value),
            Some(None) => Called::Failed,
        }
    }
}

impl Chain {
    pub(super) fn filter_headers(self: &Rc<Self>, slot: &Slot, side: Side, end_stream: bool) -> HeadersStatus {
        let Some(live) = slot.live() else {
            if side == Side::Response && slot.failed.get() {
                return HeadersStatus::Continue;
            }
            return self.failed(slot, HeadersStatus::Continue, HeadersStatus::StopAllWatermark);
        };
        if side == Side::Request {
            live.vm.create(live.context, live.stream.root.id);
            live.vm.after_call();
        } else if !live.context.created.get() || slot.failed.get() {
            return HeadersStatus::Continue;
        }
        let held = live.stream.held(side);
        held.headers.set(true);
        live.stream.end_of_stream.set(end_stream);
        let count = self.exchange.headers(side).map_or(0, |headers| length(headers.len()));
        let (id, eos) = (live.context.id, u32::from(end_stream));
        let (name, with_end, without_end) = {
            let exports = &live.vm.exports;
            match side {
                Side::Request => {
                    ("proxy_on_request_headers", &exports.on_request_headers, &exports.on_request_headers_010)
                }
                Side::Response => {
                    ("proxy_on_response_headers", &exports.on_response_headers, &exports.on_response_headers_010)
                }
            }
        };
        let called = live.run(|vm| {
            if let Some(export) = without_end {
                return Some(vm.call(live.context, name, Some(export), (id, count)));
            }
            let export = with_end.as_ref()?;
            Some(vm.call(live.context, name, Some(export), (id, count, eos)))
        });
        let status = match called {
            Called::Missing => HeadersStatus::Continue,
            Called::Failed => self.failed(slot, HeadersStatus::Continue, HeadersStatus::StopAllWatermark),
            Called::Returned(value) => self.headers_status(slot, live.vm, value),
        };
        live.vm.after_call();
        if status == HeadersStatus::Continue {
            held.headers.set(false);
        }
        status
    }

    fn headers_status(&self, slot: &Slot, vm: &Vm, value: u32) -> HeadersStatus {
        if vm.shared.stop_iteration.get() {
            return HeadersStatus::StopAllWatermark;
        }
        match value {
            0 | 2 => HeadersStatus::Continue,
            1 if slot.plugin().config().allow_on_headers_stop_iteration => HeadersStatus::Stop,
            3 => HeadersStatus::StopAllBuffer,
            _ => HeadersStatus::StopAllWatermark,
        }
    }

    pub(super) fn filter_data(
        self: &Rc<Self>,
        slot: &Slot,
        side: Side,
        data: &mut Data,
        end_stream: bool,
    ) -> DataStatus {
        let Some(live) = slot.live() else {
            if side == Side::Response && slot.failed.get() {
                return DataStatus::Continue;
            }
            return self.failed(slot, DataStatus::Continue, DataStatus::StopNoBuffer);
        };
        if !live.context.created.get() || (side == Side::Response && slot.failed.get()) {
            return DataStatus::Continue;
        }
        let half = self.exchange.half(side);
        let held = live.stream.held(side);
        if held.buffering.get() {
            half.streaming.set(false);
            self.hold(side, data);
            if self.aborted(side) {
                return DataStatus::StopNoBuffer;
            }
            held.body.set(BodyWindow::Buffered);
        } else {
            match data {
                Data::Chunk(chunk) => {
                    half.chunk.replace(std::mem::take(chunk));
                    held.body.set(BodyWindow::Chunk);
                }
                Data::Buffered => held.body.set(BodyWindow::Buffered),
            }
        }
        let size = match held.body.get() {
            BodyWindow::Chunk => half.chunk.borrow().len(),
            _ => half.buffered_len(),
        };
        live.stream.end_of_stream.set(end_stream);
        let exports = &live.vm.exports;
        let (name, export) = match side {
            Side::Request => ("proxy_on_request_body", &exports.on_request_body),
            Side::Response => ("proxy_on_response_body", &exports.on_response_body),
        };
        let params = (live.context.id, length(size), u32::from(end_stream));
        let called = live.run(|vm| Some(vm.call(live.context, name, Some(export.as_ref()?), params)));
        let status = match called {
            Called::Missing => DataStatus::Continue,
            Called::Failed => self.failed(slot, DataStatus::Continue, DataStatus::StopNoBuffer),
            Called::Returned(_) if live.vm.shared.stop_iteration.get() => DataStatus::StopNoBuffer,
            Called::Returned(0) => DataStatus::Continue,
            Called::Returned(1) => DataStatus::StopAndBuffer,
            Called::Returned(2) => DataStatus::StopAndWatermark,
            Called::Returned(_) => DataStatus::StopNoBuffer,
        };
        if let Data::Chunk(chunk) = data
            && held.body.get() == BodyWindow::Chunk
        {
            *chunk = half.chunk.take();
            // A chunk that is on its way is out of the guest's reach, unlike
            // Envoy's dangling pointer to it.
            held.body.set(BodyWindow::Closed);
        }
        live.vm.after_call();
        held.buffering.set(status == DataStatus::StopAndBuffer);
        if status == DataStatus::Continue {
            held.body.set(BodyWindow::Closed);
        }
        status
    }

    pub(super) fn filter_trailers(self: &Rc<Self>, slot: &Slot, side: Side) -> TrailersStatus {
        let Some(live) = slot.live() else {
            if side == Side::Response && slot.failed.get() {
                return TrailersStatus::Continue;
            }
            return self.failed(slot, TrailersStatus::Continue, TrailersStatus::Stop);
        };
        if !live.context.created.get() || (side == Side::Response && slot.failed.get()) {
            return TrailersStatus::Continue;
        }
        let held = live.stream.held(side);
        held.trailers.set(true);
        let count = self.exchange.trailers(side).map_or(0, |trailers| length(trailers.len()));
        let exports = &live.vm.exports;
        let (name, export) = match side {
            Side::Request => ("proxy_on_request_trailers", &exports.on_request_trailers),
            Side::Response => ("proxy_on_response_trailers", &exports.on_response_trailers),
        };
        let params = (live.context.id, count);
        let called = live.run(|vm| Some(vm.call(live.context, name, Some(export.as_ref()?), params)));
        let status = match called {
            Called::Missing => TrailersStatus::Continue,
            Called::Failed => self.failed(slot, TrailersStatus::Continue, TrailersStatus::Stop),
            Called::Returned(0) if !live.vm.shared.stop_iteration.get() => TrailersStatus::Continue,
            Called::Returned(_) => TrailersStatus::Stop,
        };
        live.vm.after_call();
        if status == TrailersStatus::Continue {
            held.trailers.set(false);
        }
        status
    }

    /// A line about a filter that asks for what Envoy would not survive.
    pub(super) fn warn(&self, slot: &Slot, text: &str) {
        if let Some(live) = slot.live() {
            let worker = &live.vm.shared.worker;
            worker.log(Level::Warn, &live.context.origin, ContextKind::Host, || text.to_owned());
        }
    }

    /// The VM is gone: the stream goes on without it, or is answered with 503.
    fn failed<T>(self: &Rc<Self>, slot: &Slot, open: T, closed: T) -> T {
        if slot.plugin().config().failure_policy == FailurePolicy::LegacyFailOpen {
            return open;
        }
        if !slot.failed.replace(true) {
            let reply = LocalReply { grpc_status: Some(14), ..LocalReply::new(503, "", "wasm_fail_stream") };
            self.local_reply(reply);
        }
        closed
    }

    pub(super) fn filter_log(self: &Rc<Self>, slot: &Slot) {
        let Some(live) = slot.live() else { return };
        live.vm.create(live.context, live.stream.root.id);
        live.vm.after_call();
        live.stream.logging.set(true);
        live.vm.call(live.context, "proxy_on_log", live.vm.exports.on_log.as_ref(), live.context.id);
        live.vm.after_call();
        live.stream.logging.set(false);
    }

    pub(super) fn filter_destroy(self: &Rc<Self>, slot: &Slot) {
        let Some(live) = slot.live() else { return };
        if live.context.created.get() {
            live.vm.done(live.context);
        }
        live.vm.delete(live.context);
    }
}

impl Drop for Chain {
    /// A driver that never finished its stream still frees the context ids.
    fn drop(&mut self) {
        if self.finished.get() {
            return;
        }
        for slot in &self.slots {
            if let Some(live) = slot.live() {
                live.vm.shared.contexts.borrow_mut().remove(&live.context.id);
            }
        }
        self.exchange.request.chunk.replace(Body::new());
    }
}
