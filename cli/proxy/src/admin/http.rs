//! One request and one answer on a connection, then the next.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use spctl_host::{HeaderKind, HeaderList};

use crate::http1::parse_request;

/// Nobody else is served while a client says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked.
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) path: String,
    /// In order, decoded.
    query: Vec<(String, String)>,
}

impl Ask {
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(super) fn query(&self) -> &[(String, String)] {
        &self.query
    }
}

pub(super) struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Reply {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=UTF-8", body: body.into() }
    }

    pub(super) fn json(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: "application/json", body: body.into() }
    }
}

/// Answers what comes on a connection until its client has had enough.
pub(super) fn serve(mut io: TcpStream, answer: impl Fn(&Ask) -> Reply) -> io::Result<()> {
    io.set_read_timeout(Some(PATIENCE))?;
    io.set_write_timeout(Some(PATIENCE))?;
    let (mut buffer, mut seen, mut chunk) = (BytesMut::new(), 0, [0; 4096]);
    loop {
        let headers = HeaderList::new(HeaderKind::Request);
        let request = match parse_request(&mut buffer, &mut seen, headers) {
            Ok(Some(request)) => request,
            Ok(None) => {
                match io.read(&mut chunk)? {
                    0 => return Ok(()),
                    n => buffer.extend_from_slice(&chunk[..n]),
                }
                continue;
            }
            Err(bad) => {
                let (status, text, _) = bad.answer();
                return write(&mut io, &Reply::text(status, text), true, true);
            }
        };
        let text = |name: &[u8]| String::from_utf8_lossy(request.headers.get(name).unwrap_or_default()).into_owned();
        let (method, target) = (text(b":method"), text(b":path"));
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let ask = Ask { path: path.to_owned(), query, method };
        // A body says nothing here; what follows one is not read.
        let close = request.close || request.framing != crate::http1::Framing::None;
        write(&mut io, &answer(&ask), close, ask.method != "HEAD")?;
        if close {
            return Ok(());
        }
    }
}

fn write(io: &mut TcpStream, reply: &Reply, close: bool, with_body: bool) -> io::Result<()> {
    let reason = match reply.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        _ => "Unknown",
    };
    let end = if close { "connection: close\r\n" } else { "" };
    let Reply { status, content_type, body } = reply;
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncache-control: no-cache, max-age=0\r\n\
         x-content-type-options: nosniff\r\nserver: envoy\r\ncontent-length: {}\r\n{end}\r\n",
        body.len()
    );
    io.write_all(head.as_bytes())?;
    if with_body { io.write_all(body.as_bytes()) } else { Ok(()) }
}
