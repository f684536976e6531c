//! The filter: asks of each request whether its host is blocked.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

use crate::hosts::Blocklist;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { blocked: Rc::new(Blocklist::parse("")) }));
}}

struct Root {
    blocked: Rc<Blocklist>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        let Ok(text) = std::str::from_utf8(&text) else { return false };
        self.blocked = Rc::new(Blocklist::parse(text));
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { blocked: self.blocked.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    blocked: Rc<Blocklist>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let host = self.get_http_request_header(":authority").unwrap_or_default();
        if !self.blocked.blocks(&host) {
            return Action::Continue;
        }
        self.send_http_response(451, vec![("content-type", "text/plain")], Some(b"blocked by wasm"));
        Action::Pause
    }
}
