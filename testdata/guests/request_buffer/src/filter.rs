//! The filter: holds requests back and lets them go.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, error, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::hosts::{Hosts, KEY, escaped, normal};
use crate::queue::{Admission, Queue};
use crate::service::millis;
use crate::settings::Settings;

#[derive(Default)]
pub struct Filter {
    settings: Rc<Settings>,
    queue: Rc<RefCell<Queue>>,
}

impl Context for Filter {}

impl RootContext for Filter {
    fn on_configure(&mut self, _: usize) -> bool {
        match Settings::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(settings) => self.settings = Rc::new(settings),
            Err(reason) => {
                error!("configuration: {reason}");
                return false;
            }
        }
        self.set_tick_period(Duration::from_millis(self.settings.tick_ms));
        true
    }

    fn on_tick(&mut self) {
        if self.queue.borrow().is_empty() {
            return;
        }
        let (now, settings) = (millis(self.get_current_time()), &self.settings);
        let hosts = shared(self);
        // Before anything is resumed: that may end streams, which leave the queue.
        let over = self.queue.borrow_mut().over(now, settings.max_wait_ms, |host| {
            hosts.as_ref().is_some_and(|hosts| hosts.holds(host, now, settings.max_age_ms))
        });
        for stream in over.released {
            if on_behalf_of(stream)
                && let Err(status) = hostcalls::resume_http_request()
            {
                debug!("a request cannot go on: {status:?}");
            }
        }
        for stream in over.expired {
            if on_behalf_of(stream) {
                refuse(settings);
            }
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { id, settings: self.settings.clone(), queue: self.queue.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// The list, if there is one that can be read.
fn shared(context: &dyn Context) -> Option<Hosts> {
    Hosts::decode(&context.get_shared_data(KEY).0?)
}

/// Makes a stream the one that host calls are about. It may be gone: then
/// nothing must be called, for it would concern another.
fn on_behalf_of(stream: u32) -> bool {
    hostcalls::set_effective_context(stream).is_ok()
}

fn refuse(settings: &Settings) {
    let wait = settings.retry_after_s.to_string();
    let headers = vec![("retry-after", wait.as_str()), ("content-type", "text/plain")];
    if let Err(status) = hostcalls::send_http_response(503, headers, Some(b"no backend is ready yet\n")) {
        debug!("a request cannot be answered: {status:?}");
    }
}

struct Stream {
    id: u32,
    settings: Rc<Settings>,
    queue: Rc<RefCell<Queue>>,
}

impl Stream {
    fn poke(&self, host: &str) {
        let path = format!("/poke-scale-up?host={}", escaped(host));
        let Settings { cluster, authority, .. } = &*self.settings;
        let poke = vec![(":method", "POST"), (":path", path.as_str()), (":authority", authority.as_str())];
        if let Err(status) = self.dispatch_http_call(cluster, poke, None, vec![], self.settings.timeout()) {
            warn!("the control plane cannot be poked: {status:?}");
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(hosts) = shared(self) else { return Action::Continue };
        let host = normal(&self.get_http_request_header(":authority").unwrap_or_default());
        let now = millis(self.get_current_time());
        if !hosts.holds(&host, now, self.settings.max_age_ms) {
            return Action::Continue;
        }
        let admission = self.queue.borrow_mut().admit(&host, self.id, now, &self.settings);
        match admission {
            Admission::Waits { poke: true } => self.poke(&host),
            Admission::Waits { poke: false } => {}
            Admission::Refused => refuse(&self.settings),
        }
        Action::Pause
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        if status != "200" {
            warn!("a poke was answered with `{status}`");
        }
    }
}

/// Whatever ended the stream, it waits no more.
impl Drop for Stream {
    fn drop(&mut self) {
        self.queue.borrow_mut().remove(self.id);
    }
}
