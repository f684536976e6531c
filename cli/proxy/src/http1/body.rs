//! Body framing: finding data, trailers and the end in what arrives.

use bytes::{Buf, BytesMut};
use spctl_host::{Body, HeaderKind, HeaderList};

use super::head::MAX_HEAD;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the next bytes of a body were.
#[derive(Debug)]
pub(crate) enum Event {
    /// More bytes are needed.
    Pending,
    Data {
        data: Body,
        end: bool,
    },
    /// The end, with trailers.
    Trailers(HeaderList),
}

/// The framing is broken: nothing behind it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadBody;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    /// All data has been handed out; the end has not.
    End,
    Length(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// Reads one body.
#[derive(Debug)]
pub(crate) struct BodyReader {
    state: State,
    kind: HeaderKind,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing, kind: HeaderKind) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, kind }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The end is known already: no more bytes are needed to say so.
    pub(crate) fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// The peer has closed: the end of the body, or a cut.
    pub(crate) fn on_eof(&mut self) -> Result<(), BadBody> {
        match self.state {
            State::Done | State::End | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BadBody),
        }
    }

    /// Takes what it can of the buffer; all chunks in it become one event. The
    /// end is an event of its own, without data, as Envoy's codec has it.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut) -> Result<Event, BadBody> {
        let mut data = Body::new();
        loop {
            match self.state {
                State::Done => return Ok(Event::Data { data, end: true }),
                State::End if !data.is_empty() => return Ok(Event::Data { data, end: false }),
                State::End => self.state = State::Done,
                State::Length(left) => {
                    let left = self.take(buffer, left, &mut data);
                    if left > 0 {
                        self.state = State::Length(left);
                        return Ok(data_or_pending(data));
                    }
                    self.state = State::End;
                }
                State::UntilClose => {
                    data.push(buffer.split().freeze());
                    return Ok(data_or_pending(data));
                }
                State::Chunk(left) => {
                    let left = self.take(buffer, left, &mut data);
                    if left > 0 {
                        self.state = State::Chunk(left);
                        return Ok(data_or_pending(data));
                    }
                    self.state = State::ChunkEnd;
                }
                State::ChunkEnd => match line(buffer)? {
                    Some(0) => self.state = State::ChunkSize,
                    Some(_) => return Err(BadBody),
                    None => return Ok(data_or_pending(data)),
                },
                State::ChunkSize => match chunk_size(buffer)? {
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Chunk(size),
                    None => return Ok(data_or_pending(data)),
                },
                State::Trailers => {
                    // Data first; the trailers are an event of their own.
                    if !data.is_empty() {
                        return Ok(Event::Data { data, end: false });
                    }
                    let Some(trailers) = self.trailers(buffer)? else { return Ok(Event::Pending) };
                    if trailers.is_empty() {
                        self.state = State::End;
                    } else {
                        self.state = State::Done;
                        return Ok(Event::Trailers(trailers));
                    }
                }
            }
        }
    }

    fn take(&self, buffer: &mut BytesMut, left: u64, data: &mut Body) -> u64 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        data.push(buffer.split_to(n).freeze());
        left - n as u64
    }

    fn trailers(&self, buffer: &mut BytesMut) -> Result<Option<HeaderList>, BadBody> {
        let mut slots = [httparse::EMPTY_HEADER; 100];
        match httparse::parse_headers(buffer, &mut slots) {
            Ok(httparse::Status::Complete((len, headers))) => {
                let mut list = HeaderList::new(self.kind);
                for header in headers {
                    list.add(header.name.as_bytes(), header.value);
                }
                buffer.advance(len);
                Ok(Some(list))
            }
            Ok(httparse::Status::Partial) if buffer.len() <= MAX_HEAD => Ok(None),
            _ => Err(BadBody),
        }
    }
}

fn data_or_pending(data: Body) -> Event {
    if data.is_empty() { Event::Pending } else { Event::Data { data, end: false } }
}

/// Consumes a line end; how many bytes stood before it, if it is there.
fn line(buffer: &mut BytesMut) -> Result<Option<usize>, BadBody> {
    match &buffer[..] {
        [b'\r', b'\n', ..] => buffer.advance(2),
        [b'\n', ..] => buffer.advance(1),
        [] | [b'\r'] => return Ok(None),
        _ => return Err(BadBody),
    }
    Ok(Some(0))
}

fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, BadBody> {
    match httparse::parse_chunk_size(buffer) {
        Ok(httparse::Status::Complete((len, size))) => {
            buffer.advance(len);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if buffer.len() <= MAX_HEAD => Ok(None),
        _ => Err(BadBody),
    }
}
