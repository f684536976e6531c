//! Host calls on their way from the workers to the user: a bounded queue that
//! workers never wait for, and a thread that takes secrets out and tells.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use spctl_host::trace as host;
use spctl_plugin::redact::defaults::{FIELDS, HEADERS};
use spctl_plugin::redact::{Marks, REPLACEMENT, Redactor, Side};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::trace::{Call, Callback, Frame, Told, Trace};

/// Frames that wait; each holds 128 KiB at most.
const QUEUE: usize = 256;
/// How long the end waits for what is still to be told.
const LAST: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// What is in the name of a header or a property that holds a secret, whatever
/// else it is called.
const SECRET: [&str; 11] = [
    "authorization",
    "token",
    "secret",
    "password",
    "passwd",
    "api-key",
    "api_key",
    "apikey",
    "credential",
    "private-key",
    "jwt",
];

/// The thread that tells.
pub(super) struct Teller {
    closing: Arc<AtomicBool>,
    told: watch::Receiver<bool>,
}

/// Begins to tell; workers write into the sink.
pub(super) fn start(trace: Trace) -> Result<(host::Sink, Teller)> {
    let (queue, frames) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let closing = Arc::new(AtomicBool::new(false));
    let (done, told) = watch::channel(false);
    let failed = Error::io("cannot start the thread that tells of host calls");
    let redactor = Secrets::new()?;
    let thread = {
        let (trace, lost, closing) = (trace.clone(), lost.clone(), closing.clone());
        move || {
            tell(&frames, &redactor, &lost, &closing, &trace);
            done.send_replace(true);
        }
    };
    std::thread::Builder::new().name("trace".into()).spawn(thread).map_err(failed)?;
    Ok((Arc::new(move |frame| push(frame, &trace, &queue, &lost)), Teller { closing, told }))
}

impl Teller {
    /// Waits until all is told, or for a moment where nobody reads it.
    pub(super) async fn finish(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(LAST, self.told.clone().wait_for(|told| *told)).await;
    }
}

/// On a worker's thread.
fn push(mut frame: host::Frame, trace: &Trace, queue: &SyncSender<host::Frame>, lost: &AtomicU64) {
    if !trace.wants(frame.callback) {
        frame.calls.retain(|call| trace.wants(call.name));
        if frame.calls.is_empty() {
            return;
        }
    }
    if queue.try_send(frame).is_err() {
        lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn tell(frames: &Receiver<host::Frame>, secrets: &Secrets, lost: &AtomicU64, closing: &AtomicBool, trace: &Trace) {
    let mut number = 0;
    loop {
        let next = frames.recv_timeout(LOOK);
        let missed = lost.swap(0, Ordering::Relaxed);
        let ended = match next {
            Ok(frame) => {
                number += 1;
                (trace.to)(Told::Frame(&secrets.frame(frame, number)));
                false
            }
            Err(RecvTimeoutError::Timeout) => closing.load(Ordering::Relaxed),
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if missed > 0 {
            (trace.to)(Told::Lost(missed));
        }
        if ended {
            return;
        }
    }
}

/// Knows what must not be shown.
struct Secrets(Redactor);

impl Secrets {
    /// What the capture filter hides by default, and what is called like it.
    fn new() -> Result<Self> {
        let defaults = spctl_plugin::config::parse(b"{}").map_err(|e| Error::Protocol(e.message))?;
        Ok(Self(defaults.config.redact))
    }

    fn frame(&self, frame: host::Frame, number: u64) -> Frame {
        let plugin = frame.origin.plugin.clone();
        let nanos = frame.time.duration_since(UNIX_EPOCH).map_or(0, |d| i128::try_from(d.as_nanos()).unwrap_or(0));
        let calls = frame.calls.into_iter().map(|call| Call {
            frame: number,
            plugin: plugin.clone(),
            context: call.context,
            stream: frame.stream,
            callback: frame.callback,
            name: call.name,
            arguments: self.fields(call.arguments),
            status: call.status.into_owned(),
            returned: self.fields(call.returned),
            took_us: micros(call.took),
        });
        let calls = calls.collect();
        let callback = Callback {
            time: jiff::Timestamp::from_nanosecond(nanos).unwrap_or_default().to_string(),
            frame: number,
            thread: frame.thread.to_string(),
            plugin,
            context: frame.context,
            stream: frame.stream,
            name: frame.callback,
            arguments: self.fields(frame.arguments),
            returned: frame.returned.into_owned(),
            took_us: micros(frame.took),
            left_out: frame.left_out,
        };
        Frame { callback, calls }
    }

    fn fields(&self, fields: Vec<host::Field>) -> Map<String, Value> {
        fields.into_iter().map(|field| (field.name.to_owned(), self.value(field.value))).collect()
    }

    fn value(&self, value: host::Value) -> Value {
        match value {
            host::Value::Number(number) => number.into(),
            host::Value::Flag(flag) => flag.into(),
            host::Value::Word(word) => word.into_owned().into(),
            host::Value::Text(cut) => text(&cut.bytes, cut.size).into(),
            host::Value::Size(size) => json!({"bytes": size}),
            host::Value::Path(cut) => dotted(&cut.bytes).into(),
            host::Value::Header { name, value } => self.header(&name, &value),
            host::Value::Property { path, value } => self.property(&path, &value),
            host::Value::Headers { headers, count } => {
                let more = count - headers.len();
                let mut list: Vec<Value> =
                    headers.iter().map(|(name, value)| json!([lossy(name), self.header(name, value)])).collect();
                if more > 0 {
                    list.push(json!(["…", format!("{more} more")]));
                }
                list.into()
            }
            host::Value::Unreadable => "outside of its memory".into(),
        }
    }

    fn header(&self, name: &[u8], value: &host::Cut) -> Value {
        let name = name.to_ascii_lowercase();
        if is_secret(&lossy(&name), &HEADERS) {
            return lossy(REPLACEMENT).into();
        }
        let mut marks = Marks::default();
        let shown = if name == b":path" {
            self.0.url(Side::Request, &value.bytes, &mut marks)
        } else {
            self.0.header(Side::Request, &name, &value.bytes, &mut marks)
        };
        text(&shown, value.size - value.bytes.len() + shown.len()).into()
    }

    /// Properties are texts, or little-endian numbers of eight bytes, or more
    /// than can be read here.
    fn property(&self, path: &[u8], value: &host::Cut) -> Value {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == 0).filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [b"request" | b"response", b"headers" | b"trailers", name] => return self.header(name, value),
            [b"request", b"path" | b"url_path"] => return self.header(b":path", value),
            [b"request", b"referer"] => return self.header(b"referer", value),
            [b"request", b"query"] => {
                let query = [b"?", value.bytes.as_slice()].concat();
                let shown = self.0.url(Side::Request, &query, &mut Marks::default());
                return text(shown.get(1..).unwrap_or_default(), value.size).into();
            }
            _ => {}
        }
        if parts.iter().any(|part| is_secret(&lossy(&part.to_ascii_lowercase()), &FIELDS)) {
            return lossy(REPLACEMENT).into();
        }
        let readable = std::str::from_utf8(&value.bytes).is_ok_and(|text| !text.chars().any(char::is_control));
        match <[u8; 8]>::try_from(value.bytes.as_slice()) {
            _ if readable => text(&value.bytes, value.size).into(),
            Ok(number) => i64::from_le_bytes(number).into(),
            Err(_) => match value.bytes.as_slice() {
                [flag @ (0 | 1)] => (*flag == 1).into(),
                _ => json!({"bytes": value.size}),
            },
        }
    }
}

fn is_secret(name: &str, known: &[&str]) -> bool {
    known.contains(&name) || SECRET.iter().any(|word| name.contains(word))
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn dotted(path: &[u8]) -> String {
    lossy(path).trim_end_matches('\0').replace('\0', ".")
}

/// A text, with its length where it was cut.
fn text(bytes: &[u8], size: usize) -> String {
    if bytes.len() >= size { lossy(bytes).into_owned() } else { format!("{}… ({size} bytes)", lossy(bytes)) }
}

/// To a tenth.
fn micros(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e7).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> host::Cut {
        host::Cut { bytes: bytes.to_vec(), size: bytes.len() }
    }

    fn header(name: &str, value: &str) -> Value {
        Secrets::new().unwrap().header(name.as_bytes(), &whole(value.as_bytes()))
    }

    fn property(path: &str, value: &[u8]) -> Value {
        Secrets::new().unwrap().property(path.replace('.', "\0").as_bytes(), &whole(value))
    }

    #[test]
    fn secrets_of_headers_are_gone_and_the_rest_stays() {
        for name in ["authorization", "Proxy-Authorization", "x-api-key", "X-My-Token", "db-password"] {
            assert_eq!(header(name, "hidden"), "REDACTED", "{name}");
        }
        assert_eq!(header(":path", "/a?b=c&access_token=hidden"), "/a?b=c&access_token=REDACTED");
        assert_eq!(header("referer", "http://u:hidden@h/?sig=hidden"), "http://REDACTED@h/?sig=REDACTED");
        assert!(!header("cookie", "a=hidden; b=hidden").to_string().contains("hidden"));
        assert!(!header("set-cookie", "a=hidden; Path=/").to_string().contains("hidden"));
        assert_eq!(header(":authority", "host"), "host");
        assert_eq!(header("accept", "*/*"), "*/*");
    }

    #[test]
    fn properties_are_read_as_what_they_are() {
        assert_eq!(property("request.headers.authorization", b"hidden"), "REDACTED");
        assert_eq!(property("request.query", b"a=b&token=hidden"), "a=b&token=REDACTED");
        assert_eq!(property("wasm.session_token", b"hidden"), "REDACTED");
        assert_eq!(property("request.size", &7u64.to_le_bytes()), 7);
        assert_eq!(property("connection.mtls", &[1]), true);
        assert_eq!(property("source.address", b"127.0.0.1:5"), "127.0.0.1:5");
        assert_eq!(property("xds.node", &[10, 3, 0, 255]), json!({"bytes": 4}));
    }

    #[test]
    fn what_was_cut_says_so() {
        let cut = host::Value::Text(host::Cut { bytes: b"abc".to_vec(), size: 9 });
        assert_eq!(Secrets::new().unwrap().value(cut), "abc… (9 bytes)");
    }
}
