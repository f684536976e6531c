//! Does what the SDK example of this name does: makes two callouts at once and
//! answers with both results once both are there.

use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_http_context(|_, _| Box::new(Stream::default()));
}}

#[derive(Default)]
struct Stream {
    /// Tokens in the order of dispatch, and their answers.
    calls: Vec<(u32, Option<Vec<u8>>)>,
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        for path in ["/base64/one", "/base64/two"] {
            let headers = vec![(":method", "GET"), (":path", path), (":authority", "httpbin.org")];
            if let Ok(token) = self.dispatch_http_call("httpbin", headers, None, vec![], Duration::from_secs(1)) {
                self.calls.push((token, None));
            }
        }
        if self.calls.is_empty() { Action::Continue } else { Action::Pause }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, _: usize, size: usize, _: usize) {
        let body = self.get_http_call_response_body(0, size).unwrap_or_default();
        if let Some(slot) = self.calls.iter_mut().find(|(of, _)| *of == token) {
            slot.1 = Some(body);
        }
        let answers: Vec<&[u8]> = self.calls.iter().filter_map(|(_, answer)| answer.as_deref()).collect();
        if answers.len() == self.calls.len() {
            let joined = answers.join(&b'+');
            self.send_http_response(200, vec![("Powered-By", "proxy-wasm")], Some(&joined));
        }
    }
}
