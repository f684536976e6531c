//! The capture filter's configuration outside of any proxy: its JSON schema,
//! and where it is in the files that carry it. Pure.

mod find;
mod schema;

pub use find::{Found, find};
pub use schema::schema;
