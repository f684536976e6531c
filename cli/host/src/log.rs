//! Guest log lines and the host's own lines about a plugin, as values.
//!
//! Owns the level scale and Envoy's wording of a line; never writes anywhere.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

/// Severity, numbered as in the ABI; `Off` exists only as a host level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
    Off = 6,
}

impl Level {
    /// The level with this ABI number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            6 => Self::Off,
            _ => return None,
        })
    }

    /// Envoy's name of the level, as its log lines and `/logging` print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is none of Envoy's level names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level `{0}`")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Ok(match text {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warning" | "warn" => Self::Warn,
            "error" => Self::Error,
            "critical" => Self::Critical,
            "off" => Self::Off,
            _ => return Err(UnknownLevel(text.to_owned())),
        })
    }
}

/// Who a line is about; shared by all lines of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    pub plugin: String,
    pub root_id: String,
    pub vm_id: String,
}

/// What spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContextKind {
    /// The guest, while its start functions ran.
    Vm,
    /// The guest, in a root context.
    Root,
    /// The guest, for one HTTP stream.
    Stream,
    /// The host itself: traps, backtraces, load failures.
    Host,
}

/// One log line of a plugin.
#[derive(Debug, Clone)]
pub struct LogLine {
    pub time: SystemTime,
    pub level: Level,
    pub origin: Arc<Origin>,
    pub context: ContextKind,
    pub message: String,
}

/// Where lines go. Called on the worker's own thread: it must not block.
pub type LogSink = Arc<dyn Fn(&LogLine) + Send + Sync>;

impl LogLine {
    /// The message part of the line Envoy would have printed.
    ///
    /// Streams name plugin, root and VM; root contexts leave the plugin's name
    /// out; empty parts leave no space behind.
    pub fn envoy_message(&self) -> String {
        let mut out = String::with_capacity(self.message.len() + 32);
        if self.context == ContextKind::Host {
            out.push_str(&self.message);
            return out;
        }
        out.push_str("wasm log");
        let name = match self.context {
            ContextKind::Stream => self.origin.plugin.as_str(),
            _ => "",
        };
        for part in [name, &self.origin.root_id, &self.origin.vm_id] {
            if !part.is_empty() {
                let _ = write!(out, " {part}");
            }
        }
        out.push_str(": ");
        out.push_str(&self.message);
        out
    }
}
