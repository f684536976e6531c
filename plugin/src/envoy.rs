//! The filter as Envoy sees it: translates SDK callbacks into calls of the pure
//! core. Compiled for Wasm only; nothing is decided here.

mod hostcalls;
mod root;
mod stream;

use hostcalls::EnvoyHost;
use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    start();
}}

fn start() {
    // Installs the hook that reports a panic; the level is not used otherwise,
    // since every line of ours goes to the host directly.
    proxy_wasm::set_log_level(LogLevel::Critical);
    proxy_wasm::set_root_context(|_| Box::new(root::RootFilter::new(EnvoyHost)));
}
