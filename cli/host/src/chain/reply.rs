//! Answers made here instead of upstream: Envoy's local replies.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;

use super::{Call, Chain, Output, iterate};
use crate::body::Body;
use crate::exchange::Side;
use crate::headers::{HeaderKind, HeaderList};

/// An answer to send instead of going upstream.
#[derive(Debug, Clone, Default)]
pub struct LocalReply {
    pub code: u16,
    pub body: Bytes,
    /// Added after `:status`, before what the body needs.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// None: derived from the code, for gRPC requests.
    pub grpc_status: Option<u32>,
    pub details: Cow<'static, str>,
}

impl LocalReply {
    pub fn new(code: u16, body: &'static str, details: &'static str) -> Self {
        Self { code, body: Bytes::from_static(body.as_bytes()), details: Cow::Borrowed(details), ..Self::default() }
    }
}

impl Chain {
    /// Answers the request from here, as far as that is still possible: through
    /// the response filters, or past them, or by cutting the stream.
    pub fn local_reply(self: &Rc<Self>, reply: LocalReply) {
        if self.was_reset.get() || self.finished.get() {
            return;
        }
        let call = self.calls.borrow().last().copied();
        match call {
            Some(Call::Decode) => self.decode_aborted.set(true),
            Some(Call::Encode) => self.encode_aborted.set(true),
            None => {}
        }
        self.exchange.info.borrow_mut().response_code_details = Some(match &reply.details {
            details if details.contains(char::is_whitespace) => Cow::Owned(details.replace(char::is_whitespace, "_")),
            details => details.clone(),
        });
        if self.exchange.response.headers.borrow().is_none() {
            if call == Some(Call::Decode) {
                self.prepared.replace(Some(reply));
            } else {
                self.reply_through_filters(reply);
            }
        } else if !self.response_started.get() {
            self.reply_directly(reply);
        } else {
            self.reset();
        }
        self.wake();
    }

    /// Sends the reply that a request filter asked for while it ran.
    pub(super) fn send_prepared_reply(self: &Rc<Self>) {
        let reply = self.prepared.borrow_mut().take();
        if let Some(reply) = reply {
            self.reply_through_filters(reply);
        }
    }

    fn reply_through_filters(self: &Rc<Self>, reply: LocalReply) {
        let (headers, body) = self.render(reply);
        self.replied.set(true);
        let half = &self.exchange.response;
        let end_stream = body.is_empty();
        half.headers.replace(Some(headers));
        half.complete.set(end_stream);
        self.note_response_code();
        self.headers(Side::Response, None, end_stream);
        if !end_stream && !self.was_reset.get() && !self.encode_aborted.get() {
            half.complete.set(true);
            let data = iterate::Data::Chunk(Body::from(body));
            self.data(Side::Response, None, data, true, iterate::Start::CurrentIfStopped);
        }
    }

    /// Past the filters, in place of a response they have seen already.
    pub(super) fn reply_directly(self: &Rc<Self>, reply: LocalReply) {
        self.encode_aborted.set(true);
        self.exchange.info.borrow_mut().response_code_details = Some(reply.details.clone());
        let (headers, body) = self.render(reply);
        self.replied.set(true);
        let half = &self.exchange.response;
        half.headers.replace(Some(headers));
        half.trailers.replace(None);
        half.complete.set(true);
        self.note_response_code();
        self.response_started.set(true);
        self.response_ended.set(true);
        self.emit(Output::Headers { side: Side::Response, end_stream: body.is_empty() });
        if !body.is_empty() {
            half.bytes.set(body.len() as u64);
            self.emit(Output::Data { side: Side::Response, data: Body::from(body), end_stream: true });
        }
    }

    /// Headers and body as Envoy composes them; no body where none may be sent.
    fn render(&self, reply: LocalReply) -> (HeaderList, Bytes) {
        let mut headers = HeaderList::new(HeaderKind::Response);
        headers.add(b":status", reply.code.to_string().as_bytes());
        for (name, value) in &reply.headers {
            headers.add(name, value);
        }
        if self.is_grpc.get() {
            headers.set_in_place(b":status", b"200");
            headers.set_in_place(b"content-type", b"application/grpc");
            if !headers.contains(b"grpc-status") {
                let status = reply.grpc_status.unwrap_or_else(|| grpc_status_of(reply.code));
                headers.add(b"grpc-status", status.to_string().as_bytes());
            }
            if !reply.body.is_empty() && !headers.contains(b"grpc-message") {
                headers.add(b"grpc-message", percent_encode(&reply.body).as_bytes());
            }
            headers.remove(b"content-length");
            return (headers, Bytes::new());
        }
        if reply.body.is_empty() {
            headers.remove(b"content-length");
            headers.remove(b"content-type");
        } else {
            headers.set_in_place(b"content-length", reply.body.len().to_string().as_bytes());
            if !headers.contains(b"content-type") {
                headers.add(b"content-type", b"text/plain");
            }
        }
        let body = if self.is_head.get() { Bytes::new() } else { reply.body };
        (headers, body)
    }

    /// Filters hold back more than the limit, and not by back-pressure.
    pub(crate) fn too_large(self: &Rc<Self>, side: Side) {
        match side {
            Side::Request => {
                self.local_reply(LocalReply::new(413, "Payload Too Large", "request_payload_too_large"));
            }
            Side::Response if self.response_started.get() => {
                self.exchange.info.borrow_mut().response_code_details = Some("response_payload_too_large".into());
                self.reset();
            }
            Side::Response => {
                self.local_reply(LocalReply::new(500, "Internal Server Error", "response_payload_too_large"));
            }
        }
    }
}

/// Envoy's `Grpc::Utility::httpToGrpcStatus`.
pub(crate) fn grpc_status_of(code: u16) -> u32 {
    match code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// gRPC's percent-encoding: everything outside printable ASCII, and `%`.
fn percent_encode(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
