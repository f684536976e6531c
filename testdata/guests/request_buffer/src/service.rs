//! The service: keeps the shared list up to date.

use std::time::{Duration, SystemTime};

use log::{error, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, Status};

use crate::hosts::{Hosts, KEY};
use crate::settings::Settings;

#[derive(Default)]
pub struct Service {
    settings: Settings,
    /// A question is under way.
    asking: bool,
}

impl Service {
    /// Another instance may write too, where there are no singletons: the newer
    /// list stays.
    fn share(&self, hosts: &Hosts) {
        loop {
            let (old, version) = self.get_shared_data(KEY);
            let newer = old.and_then(|old| Hosts::decode(&old)).is_some_and(|old| old.updated_ms > hosts.updated_ms);
            if newer {
                return;
            }
            match self.set_shared_data(KEY, Some(hosts.encode().as_bytes()), version) {
                Err(Status::CasMismatch) => continue,
                Err(status) => return error!("the list cannot be shared: {status:?}"),
                Ok(()) => return,
            }
        }
    }
}

impl RootContext for Service {
    fn on_configure(&mut self, _: usize) -> bool {
        match Settings::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(settings) => self.settings = settings,
            Err(reason) => {
                error!("configuration: {reason}");
                return false;
            }
        }
        self.set_tick_period(Duration::from_millis(self.settings.poll_ms));
        true
    }

    fn on_tick(&mut self) {
        if self.asking {
            return;
        }
        let Settings { cluster, authority, .. } = &self.settings;
        let question = vec![(":method", "GET"), (":path", "/"), (":authority", authority.as_str()), ("accept", "*/*")];
        match self.dispatch_http_call(cluster, question, None, vec![], self.settings.timeout()) {
            Ok(_) => self.asking = true,
            Err(status) => warn!("the control plane cannot be asked: {status:?}"),
        }
    }

    /// Istio knows no services: there it is a filter that does nothing.
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Nothing))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Service {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        self.asking = false;
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        if status != "200" {
            // The old list holds until it is too old.
            return warn!("the control plane answered `{status}`");
        }
        let body = self.get_http_call_response_body(0, size).unwrap_or_default();
        match Hosts::from_json(&body, millis(self.get_current_time())) {
            Ok(hosts) => self.share(&hosts),
            Err(reason) => warn!("the control plane's list: {reason}"),
        }
    }
}

struct Nothing;

impl Context for Nothing {}

impl HttpContext for Nothing {}

pub fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
