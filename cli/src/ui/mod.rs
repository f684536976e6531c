//! The only code that writes to the process's streams: results on stdout,
//! progress, warnings and errors on stderr.

mod exchanges;
mod live;
mod output;
mod progress;
mod prompt;
mod style;
mod table;

pub use exchanges::exchange_table;
pub use live::Live;
pub use output::{Format, Output};
pub use progress::Progress;
pub use prompt::{line, secret};
pub use style::{Style, short_digest};
pub use table::{Align, Table};

/// A line of a running foreground instance, beside everything else.
pub fn stderr_line(text: &str) {
    use std::io::Write;
    // A closed stderr must not stop an instance.
    let _ = writeln!(std::io::stderr(), "{text}");
}
