//! Asks the cluster `metadata` before a request goes on, and tells upstream
//! whether it answered. A service that does not answer costs no request.

use std::time::Duration;

use log::warn;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

const CLUSTER: &str = "metadata";
const TIMEOUT: Duration = Duration::from_secs(5);

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| Box::new(Stream));
}}

struct Stream;

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Only this filter may say so.
        self.set_http_request_header("x-meta", None);
        let question = vec![(":method", "GET"), (":path", "/headers"), (":authority", "httpbin.org")];
        match self.dispatch_http_call(CLUSTER, question, None, vec![], TIMEOUT) {
            Ok(_) => Action::Pause,
            Err(status) => {
                warn!("`{CLUSTER}` cannot be asked: {status:?}");
                Action::Continue
            }
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, _: usize, body_size: usize, _: usize) {
        if body_size > 0 {
            self.set_http_request_header("x-meta", Some("1"));
        }
        self.resume_http_request();
    }
}
