//! Scale to zero: requests for hosts without a running backend wait until the
//! control plane has started one.
//!
//! One module, two plugins of one `vm_id`, told apart by their root id:
//! - `service`, a singleton: asks the control plane which hosts are scaled to
//!   zero and shares the list;
//! - `filter`: holds requests for these hosts back, pokes the control plane, and
//!   lets them go, or answers 503, in time.
//!
//! Whatever goes wrong, requests pass: no list, an old one, a broken one.

pub mod hosts;
pub mod queue;
pub mod settings;

#[cfg(target_arch = "wasm32")]
mod filter;
#[cfg(target_arch = "wasm32")]
mod service;

#[cfg(target_arch = "wasm32")]
proxy_wasm::main! {{
    use proxy_wasm::traits::RootContext;
    use proxy_wasm::types::LogLevel;

    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> {
        let root_id = proxy_wasm::hostcalls::get_property(vec!["plugin_root_id"]).ok().flatten();
        if root_id.as_deref() == Some(b"service") { Box::<service::Service>::default() } else { Box::<filter::Filter>::default() }
    });
}}
