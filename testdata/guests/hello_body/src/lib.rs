//! Does what the sandbox "Wasm C++ filter" of Envoy's documentation does: adds
//! a header, changes the type of the content, and writes a greeting over the
//! beginning of each piece of the body.

use log::info;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

const GREETING: &[u8] = b"Hello, world";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| Box::new(Stream));
}}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_response_headers(&mut self, count: usize, _: bool) -> Action {
        info!("headers: {count}");
        self.add_http_response_header("X-Wasm-custom", "FOO");
        self.set_http_response_header("content-type", Some("text/plain; charset=utf-8"));
        // The body may grow.
        self.set_http_response_header("content-length", None);
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_body(0, GREETING.len(), GREETING);
        Action::Continue
    }
}
