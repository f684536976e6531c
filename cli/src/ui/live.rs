//! Lines that a running command tells from a thread of its own: JSON is the
//! result and goes to stdout, text stands beside it on stderr.

use std::io::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use super::output::envelope;
use super::{Format, Style};
use crate::trace::{Call, Event, Frame, Told};

/// Longest text of one value, and of one line.
const VALUE_MAX: usize = 160;
const LINE_MAX: usize = 600;

/// Where the lines go.
#[derive(Clone, Copy)]
pub struct Live {
    pub(super) format: Format,
    pub(super) command: &'static str,
    pub(super) style: Style,
}

impl Live {
    /// A callback with its host calls, or how many were lost.
    pub fn trace(&self, told: Told<'_>) {
        match (self.format, told) {
            (Format::Json, Told::Frame(frame)) => {
                let mut lines = self.line(&Event::Callback(&frame.callback));
                frame.calls.iter().for_each(|call| lines.push_str(&self.line(&Event::Call(call))));
                write(std::io::stdout().lock(), &lines);
            }
            (Format::Json, Told::Lost(lost)) => {
                write(std::io::stdout().lock(), &self.line(&Event::Lost { callbacks: lost }));
            }
            (Format::Text, Told::Frame(frame)) => write(std::io::stderr().lock(), &describe(frame, self.style)),
            (Format::Text, Told::Lost(lost)) => {
                let text = format!("{lost} callbacks are not shown: they came faster than they could be told\n");
                write(std::io::stderr().lock(), &self.style.warn(&text));
            }
        }
    }

    fn line(&self, data: &impl Serialize) -> String {
        let data = serde_json::to_value(data).unwrap_or_default();
        format!("{}\n", envelope(self.command, &data, &[]))
    }
}

/// A closed stream must not stop an instance.
fn write(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// `TIME PLUGIN stream N context N callback(…) = Continue  84 µs THREAD`, and
/// below it a line for each host call.
fn describe(frame: &Frame, style: Style) -> String {
    let callback = &frame.callback;
    let time = callback.time.get(11..23).unwrap_or(&callback.time);
    let stream = callback.stream.map(|stream| format!("stream {stream} ")).unwrap_or_default();
    let returned = match callback.returned.as_str() {
        "" => String::new(),
        "trapped" | "false" => format!(" = {}", style.bad(&callback.returned)),
        other => format!(" = {}", style.good(other)),
    };
    let mut text = format!(
        "{} {} {stream}context {} {}{returned}  {}\n",
        style.dim(time),
        style.accent(&callback.plugin),
        callback.context,
        style.bold(&format!("{}({})", callback.name, list(&callback.arguments))),
        style.dim(&format!("{} µs {}", callback.took_us, callback.thread)),
    );
    frame.calls.iter().for_each(|call| text.push_str(&line(call, callback.context, style)));
    if callback.left_out > 0 {
        text.push_str(&style.warn(&format!("    {} more host calls are not shown\n", callback.left_out)));
    }
    text
}

fn line(call: &Call, of: u32, style: Style) -> String {
    let context = if call.context == of { String::new() } else { format!(" [context {}]", call.context) };
    let status = match call.status.as_str() {
        "" => String::new(),
        "Ok" | "SUCCESS" => format!(" = {}", call.status),
        other => format!(" = {}", style.warn(other)),
    };
    let took = style.dim(&format!("{:>10.1} µs", call.took_us));
    let words = shortened(&format!("{}({})", call.name, list(&call.arguments)), LINE_MAX);
    let returned = list(&call.returned);
    let gap = if returned.is_empty() { "" } else { " " };
    format!("{took}  {words}{context}{status}{gap}{}\n", shortened(&returned, LINE_MAX))
}

/// Words and texts speak for themselves, numbers need their name.
fn list(fields: &Map<String, Value>) -> String {
    let shown = fields.iter().map(|(name, value)| match value {
        Value::String(text) if is_word(name) => text.clone(),
        Value::String(text) => format!("{:?}", shortened(text, VALUE_MAX)),
        Value::Object(size) => {
            format!("{name}: {} bytes", size.get("bytes").map(Value::to_string).unwrap_or_default())
        }
        Value::Array(headers) => format!("{name}: [{}]", headers.iter().map(header).collect::<Vec<_>>().join(", ")),
        other => format!("{name}: {other}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// These hold names of the ABI.
fn is_word(name: &str) -> bool {
    matches!(name, "map" | "buffer" | "level" | "kind" | "stream" | "clock")
}

fn header(pair: &Value) -> String {
    let part = |at: usize| pair.get(at).and_then(Value::as_str).unwrap_or_default();
    format!("{}: {:?}", part(0).escape_debug(), shortened(part(1), VALUE_MAX))
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
