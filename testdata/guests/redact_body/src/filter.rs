//! The filter: which bodies, and their lengths.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

use crate::redact::Redactor;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| Box::new(Stream { redactor: None }));
}}

struct Stream {
    /// None: this body is not looked at.
    redactor: Option<Redactor>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let coded = self.get_http_response_header("content-encoding").is_some_and(|coding| coding != "identity");
        if !end_of_stream && !coded {
            self.redactor = Some(Redactor::default());
            // It would be wrong as soon as a secret is found.
            self.set_http_response_header("content-length", None);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        let piece = self.get_http_response_body(0, size);
        if let (Some(redactor), Some(piece)) = (&mut self.redactor, piece)
            && let Some(clean) = redactor.pass(&piece)
        {
            self.set_http_response_body(0, size, &clean);
        }
        Action::Continue
    }
}
