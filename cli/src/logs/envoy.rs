//! Envoy's log lines, in the format spctl starts it with: four fields divided
//! by tabs. A line that does not fit continues the message before it
//! (backtraces, multi-line config errors).

use super::{Level, Line};

/// Time, level, logger, message; `--log-format` of the harness.
const FORMAT: &str = "%Y-%m-%dT%T.%fZ\t%l\t%n\t%v";

/// Turns Envoy's stream into lines; holds one back until the next begins.
pub struct EnvoyLines {
    source: String,
    /// `(root_id vm_id)` as they stand in guest lines, and the plugin's name.
    plugins: Vec<(String, String)>,
    pending: Option<Line>,
}

impl EnvoyLines {
    /// `plugins`: name, root id and VM id of each, to tell whose a line is.
    pub fn new(source: impl Into<String>, plugins: &[(String, String, String)]) -> Self {
        let plugins =
            plugins.iter().map(|(name, root, vm)| (format!("{root} {vm}").trim().to_owned(), name.clone())).collect();
        Self { source: source.into(), plugins, pending: None }
    }

    pub fn format() -> &'static str {
        FORMAT
    }

    /// The line that this one completes, if any.
    pub fn feed(&mut self, text: &str) -> Option<Line> {
        if let Some(line) = self.parse(text) {
            return self.pending.replace(line);
        }
        match &mut self.pending {
            Some(pending) => {
                pending.message.push('\n');
                pending.message.push_str(&demangled(text));
                None
            }
            None => Some(Line {
                time: jiff::Timestamp::now().to_string(),
                source: self.source.clone(),
                level: Level::Info,
                message: text.to_owned(),
                plugin: None,
            }),
        }
    }

    /// What is held back, when the stream pauses or ends.
    pub fn flush(&mut self) -> Option<Line> {
        self.pending.take()
    }

    fn parse(&self, text: &str) -> Option<Line> {
        let mut fields = text.splitn(4, '\t');
        let (time, level, logger, message) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let level = Level::from_name(level)?;
        let (plugin, message) = match message.strip_prefix("wasm log").filter(|_| logger == "wasm") {
            Some(rest) => self.guest(rest),
            None => (None, message.to_owned()),
        };
        let message = demangled(&message);
        let time = time.parse::<jiff::Timestamp>().map_or_else(|_| time.to_owned(), |t| t.to_string());
        Some(Line { time, source: self.source.clone(), level, message, plugin })
    }

    /// ` [name] [root_id] [vm_id]: text`; a root context leaves the name out.
    fn guest(&self, rest: &str) -> (Option<String>, String) {
        for (ids, name) in &self.plugins {
            for prefix in [format!(" {name} {ids}: "), format!(" {ids}: "), format!(" {name}: ")] {
                if let Some(message) = rest.strip_prefix(&prefix) {
                    return (Some(name.clone()), message.to_owned());
                }
            }
        }
        let (ids, message) = rest.split_once(": ").unwrap_or(("", rest));
        (Some(ids.trim().to_owned()), message.to_owned())
    }
}

/// Rust's function names in a guest's backtrace, as they were written.
fn demangled(text: &str) -> String {
    if !text.contains("_ZN") && !text.contains("_R") {
        return text.to_owned();
    }
    let words = text.split(' ').map(|word| match rustc_demangle::try_demangle(word) {
        Ok(name) => format!("{name:#}"),
        Err(_) => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> EnvoyLines {
        EnvoyLines::new("envoy", &[("capture".into(), "root".into(), "vm".into())])
    }

    #[test]
    fn tells_whose_a_guest_line_is() {
        let mut lines = lines();
        assert_eq!(lines.feed("2026-01-01T10:00:00.000001Z\tinfo\twasm\twasm log capture root vm: SP hello: x"), None);
        let stream = lines.feed("2026-01-01T10:00:00.000001Z\twarning\twasm\twasm log root vm: second").unwrap();
        assert_eq!((stream.plugin.as_deref(), stream.message.as_str()), (Some("capture"), "SP hello: x"));
        let root = lines.flush().unwrap();
        assert_eq!((root.plugin.as_deref(), root.message.as_str()), (Some("capture"), "second"));
        assert_eq!(root.level, Level::Warning);
    }

    #[test]
    fn joins_continued_lines() {
        let mut lines = lines();
        lines.feed("2026-01-01T10:00:00.000001Z\terror\twasm\tFunction: x failed: unreachable");
        assert_eq!(lines.feed("  0: 0x1 - frame"), None);
        assert_eq!(lines.flush().unwrap().message, "Function: x failed: unreachable\n  0: 0x1 - frame");
    }

    #[test]
    fn names_in_backtraces_are_readable() {
        assert_eq!(demangled("  0:  0x1 - _ZN3app6filter4take17h0123456789abcdefE"), "  0:  0x1 - app::filter::take");
        assert_eq!(demangled("a _Response of _ZN"), "a _Response of _ZN");
    }

    #[test]
    fn passes_unknown_output_through() {
        let line = lines().feed("something else").unwrap();
        assert_eq!((line.message.as_str(), line.plugin), ("something else", None));
    }
}
