//! Marks every request and every response with a header.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

const HEADER: &str = "x-training";
const VALUE: &str = "envoy-wasm";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| Box::new(Stream));
}}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Set, not added: a client's own header of that name does not pass.
        self.set_http_request_header(HEADER, Some(VALUE));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header(HEADER, Some(VALUE));
        Action::Continue
    }
}
