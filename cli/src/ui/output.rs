//! Results, warnings and errors, as text or in the JSON envelope `spctl/v1`.

use std::cell::RefCell;
use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Live, Progress, Style};
use crate::error::{Error, Result};

/// The envelope's version: members may be added, never renamed or removed.
const SCHEMA: &str = "spctl/v1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Where and how a command's result is written.
pub struct Output {
    format: Format,
    quiet: bool,
    command: &'static str,
    out: Style,
    err: Style,
    warnings: RefCell<Vec<String>>,
}

impl Output {
    pub fn new(format: Format, quiet: bool, command: &'static str) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self {
            format,
            quiet,
            command,
            out: Style::new(colour && std::io::stdout().is_terminal()),
            err: Style::new(colour && std::io::stderr().is_terminal()),
            warnings: RefCell::default(),
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub fn progress(&self) -> Progress {
        Progress::new(self.quiet)
    }

    /// For lines that come from another thread.
    pub fn live(&self) -> Live {
        Live { format: self.format, command: self.command, style: self.err }
    }

    /// The command's one result.
    pub fn result<T: Serialize>(&self, data: &T, text: impl FnOnce(Style) -> String) -> Result<()> {
        if self.is_json() {
            let mut line = self.envelope(data)?.to_string();
            line.push('\n');
            self.stdout(&line)
        } else {
            self.stdout(&text(self.out))
        }
    }

    /// One element of a stream; JSON elements stand one a line.
    pub fn element<T: Serialize>(&self, data: &T, text: impl FnOnce(Style) -> String) -> Result<()> {
        self.result(data, text)
    }

    /// Bytes that are the result themselves (an exported file, a script).
    pub fn raw(&self, text: &str) -> Result<()> {
        self.stdout(text)
    }

    /// A line for people on stderr, beside the result.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Something the user should know that does not fail the command.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        if !self.is_json() {
            let _ = writeln!(std::io::stderr(), "{} {text}", self.err.warn("warning:"));
        }
        self.warnings.borrow_mut().push(text);
    }

    /// The error, once, at the end. Usage errors of the parser come here too.
    pub fn error(&self, error: &Error) {
        let report = error.report();
        if self.is_json() && matches!(error, Error::Unwell { .. }) {
            // The findings are the one document; the exit code says the rest.
            return;
        }
        if self.is_json() {
            let line = json!({"schema": SCHEMA, "command": self.command, "error": report}).to_string();
            let _ = self.stdout(&format!("{line}\n"));
            return;
        }
        let mut text = String::new();
        let causes = if matches!(error, Error::Build { shown: true, .. }) { &[][..] } else { &report.causes };
        for (n, cause) in causes.iter().enumerate() {
            let mark = if matches!(error, Error::Build { .. }) { String::new() } else { format!("  {}: ", n + 1) };
            text.push_str(&self.err.dim(&format!("{mark}{cause}\n")));
        }
        let head = format!("{} {}\n", self.err.bad("error:"), report.message);
        // A compiler's output is long: the message belongs under it.
        let mut all =
            if matches!(error, Error::Build { .. }) { format!("{text}{head}") } else { format!("{head}{text}") };
        if let Some(hint) = report.hint {
            all.push_str(&format!("{} {hint}\n", self.err.accent("hint:")));
        }
        let _ = std::io::stderr().write_all(all.as_bytes());
    }

    fn envelope<T: Serialize>(&self, data: &T) -> Result<Value> {
        let data = serde_json::to_value(data).map_err(|e| Error::Protocol(e.to_string()))?;
        Ok(envelope(self.command, &data, &self.warnings.borrow()))
    }

    fn stdout(&self, text: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Error::ClosedPipe),
            other => other.map_err(Error::io("cannot write to standard output")),
        }
    }
}

/// A result as it crosses to machines.
pub(super) fn envelope(command: &str, data: &Value, warnings: &[String]) -> Value {
    json!({"schema": SCHEMA, "command": command, "data": data, "warnings": warnings})
}
