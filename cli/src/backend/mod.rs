//! The local backend: what the capture filter exports to when no other
//! backend is named. It takes OTLP over HTTP, keeps exchanges in SQLite within
//! bounds, and answers questions about them. It knows nothing of harnesses.

mod attributes;
mod control;
mod decode;
mod serve;
mod server;
mod store;
mod telemetry;

pub use decode::{exchange, timings};
pub use serve::{Serving, case};
pub use server::Backend;
pub use store::{Bounds, Counts, Filter, Ids, Page, Store, StoredSpan};
