//! The SDK's root context.

use super::hostcalls::EnvoyHost;
use super::stream::StreamFilter;
use crate::root::Root;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

pub(super) struct RootFilter(Root<EnvoyHost>);

impl RootFilter {
    pub(super) fn new(host: EnvoyHost) -> RootFilter {
        RootFilter(Root::new(host))
    }
}

impl Context for RootFilter {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_size: usize, _num_trailers: usize) {
        self.0.on_call_answer(token, num_headers, body_size);
    }

    fn on_done(&mut self) -> bool {
        self.0.on_done()
    }
}

impl RootContext for RootFilter {
    fn on_configure(&mut self, size: usize) -> bool {
        self.0.on_configure(size)
    }

    fn on_tick(&mut self) {
        self.0.on_tick();
    }

    fn on_queue_ready(&mut self, _queue: u32) {
        // What is in the queue is found by whoever sends.
        self.0.on_tick();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(StreamFilter(self.0.stream(id))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
