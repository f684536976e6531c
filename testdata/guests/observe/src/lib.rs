//! Logs and counts requests, and shows what a failure policy is for.
//!
//! Configuration: the name of a header that makes the filter panic; empty,
//! the default: none does.

use std::rc::Rc;

use log::{info, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { counters: None, panic_on: "".into() }));
}}

/// Ids that the host gave to metrics.
#[derive(Clone, Copy)]
struct Counters {
    requests: u32,
    errors: u32,
}

impl Counters {
    fn define() -> Option<Self> {
        let counter = |name| hostcalls::define_metric(MetricType::Counter, name).ok();
        Some(Self { requests: counter("observe_requests_total")?, errors: counter("observe_errors_total")? })
    }
}

struct Root {
    counters: Option<Counters>,
    panic_on: Rc<str>,
}

impl Context for Root {}

impl RootContext for Root {
    /// Metrics are defined once in a VM: each definition makes a new id.
    fn on_vm_start(&mut self, _: usize) -> bool {
        self.counters = Counters::define();
        self.counters.is_some()
    }

    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        self.panic_on = String::from_utf8_lossy(&text).trim().into();
        info!("configured");
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let counters = self.counters?;
        Some(Box::new(Stream { counters, panic_on: self.panic_on.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    counters: Counters,
    panic_on: Rc<str>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if !self.panic_on.is_empty() && self.get_http_request_header(&self.panic_on).is_some() {
            panic!("asked to by `{}`", self.panic_on);
        }
        count(self.counters.requests);
        Action::Continue
    }

    /// The stream is over, whoever answered it.
    fn on_log(&mut self) {
        let request = |name| self.get_http_request_header(name).unwrap_or_default();
        let status = self.get_http_response_header(":status").unwrap_or_else(|| "none".to_owned());
        if status.starts_with('5') || status == "none" {
            count(self.counters.errors);
            warn!("{} {} -> {status}", request(":method"), request(":path"));
        } else {
            info!("{} {} -> {status}", request(":method"), request(":path"));
        }
    }
}

fn count(metric: u32) {
    // A number that cannot be counted is no reason to fail a request.
    let _ = hostcalls::increment_metric(metric, 1);
}
