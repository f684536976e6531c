//! What is being done, for anything over a moment: a spinner on a terminal,
//! plain lines elsewhere. Always on stderr.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One step at a time; dropping it clears the spinner.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
}

impl Progress {
    /// `lines` off and no terminal means silence (`--quiet`).
    pub(super) fn new(quiet: bool) -> Self {
        let spinner = !quiet && std::io::stderr().is_terminal();
        let bar = spinner.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Self { bar, lines: !quiet && !spinner }
    }

    /// The step that begins now.
    pub fn step(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        } else if self.lines {
            // Progress is a courtesy: a closed stderr must not end the command.
            let _ = writeln!(std::io::stderr(), "{what}");
        }
    }

    /// A line of a program that works for the step; stays on the screen.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.lines => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            None => {}
        }
    }

    /// A detail of the running step; only a terminal shows it.
    pub fn detail(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
