//! The SDK's stream context: every callback continues, but for requests that
//! wait for an answer from the backend.

use super::hostcalls::EnvoyHost;
use crate::host::Flow;
use crate::stream::Stream;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

/// Without a recorder where no configuration was taken.
pub(super) struct StreamFilter(pub(super) Option<Stream<EnvoyHost>>);

impl StreamFilter {
    fn record(&mut self, callback: impl FnOnce(&mut Stream<EnvoyHost>)) -> Action {
        if let Some(stream) = &mut self.0 {
            callback(stream);
        }
        Action::Continue
    }

    fn hold(&mut self, callback: impl FnOnce(&mut Stream<EnvoyHost>) -> Flow) -> Action {
        match self.0.as_mut().map(callback) {
            Some(Flow::Hold) => Action::Pause,
            Some(Flow::Continue) | None => Action::Continue,
        }
    }
}

impl Context for StreamFilter {
    fn on_done(&mut self) -> bool {
        self.record(Stream::finish);
        true
    }

    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_size: usize, _num_trailers: usize) {
        if let Some(stream) = &mut self.0 {
            stream.on_call_answer(token, num_headers, body_size);
        }
    }
}

impl HttpContext for StreamFilter {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.hold(|stream| stream.on_request_headers(end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.hold(|stream| stream.on_request_body(size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.hold(Stream::on_request_trailers)
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.record(|stream| stream.on_response_headers(end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.record(|stream| stream.on_response_body(size, end_of_stream))
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.record(Stream::on_response_trailers)
    }

    fn on_log(&mut self) {
        self.record(Stream::finish);
    }
}
