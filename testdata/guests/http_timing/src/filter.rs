//! The filter: metrics defined once in the root, recorded when a stream ends.

use std::time::{Duration, SystemTime};

use log::{error, info};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};

use crate::timing::{CLASSES, Direction, Settings, class, counter_name, histogram_name, line};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// Ids that the host gave to the metrics of one direction.
#[derive(Clone, Copy)]
struct Metrics {
    duration: u32,
    responses: [u32; CLASSES.len()],
}

impl Metrics {
    fn define(direction: Direction) -> Option<Self> {
        let duration = hostcalls::define_metric(MetricType::Histogram, &histogram_name(direction)).ok()?;
        let mut responses = [0; CLASSES.len()];
        for (id, class) in responses.iter_mut().zip(CLASSES) {
            *id = hostcalls::define_metric(MetricType::Counter, &counter_name(direction, class)).ok()?;
        }
        Some(Self { duration, responses })
    }
}

#[derive(Default)]
struct Root {
    settings: Settings,
    /// Inbound, outbound.
    metrics: Option<[Metrics; 2]>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        let both = (Metrics::define(Direction::Inbound), Metrics::define(Direction::Outbound));
        self.metrics = if let (Some(inbound), Some(outbound)) = both { Some([inbound, outbound]) } else { None };
        self.metrics.is_some()
    }

    fn on_configure(&mut self, _: usize) -> bool {
        match Settings::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(settings) => self.settings = settings,
            Err(reason) => {
                error!("configuration: {reason}");
                return false;
            }
        }
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let metrics = self.metrics?;
        Some(Box::new(Stream { settings: self.settings.clone(), metrics, begun: SystemTime::UNIX_EPOCH }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    settings: Settings,
    metrics: [Metrics; 2],
    begun: SystemTime,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.begun = self.get_current_time();
        Action::Continue
    }

    fn on_log(&mut self) {
        // A request that was refused before it came here has no beginning.
        if self.begun == SystemTime::UNIX_EPOCH {
            return;
        }
        let took = self.get_current_time().duration_since(self.begun).unwrap_or(Duration::ZERO);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let listener = || Direction::of_listener(&self.get_property(vec!["xds", "listener_direction"])?);
        let direction = self.settings.direction.or_else(listener).unwrap_or_default();
        let status = self.get_http_response_header(":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        let [inbound, outbound] = self.metrics;
        let metrics = if direction == Direction::Inbound { inbound } else { outbound };
        // Numbers that cannot be recorded are no reason to fail a request.
        let _ = hostcalls::record_metric(metrics.duration, ms);
        if let Some(at) = class(status) {
            let _ = hostcalls::increment_metric(metrics.responses[at], 1);
        }
        if self.settings.log {
            let request = |name| self.get_http_request_header(name).unwrap_or_default();
            info!("{}", line(direction, ms, &request(":method"), status, &request(":authority"), &request(":path")));
        }
    }
}
