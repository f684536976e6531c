//! Body framing: finding data, trailers and the end in what arrives.

use bytes::{Buf, BytesMut};
use memchr::memchr;
use spctl_host::{Body, HeaderKind, HeaderList};

use super::chunk_size::{self, ChunkSize};
use super::framing::Framing;
use super::lines::{end_of_head, fields};
use super::request::{BadRequest, MAX_HEAD, MAX_HEADERS};

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
pub(crate) enum BadBody {
    Malformed,
    TooLarge,
    TooManyHeaders,
}

impl From<BadBody> for BadRequest {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::Malformed => Self::Malformed,
            BadBody::TooLarge => Self::TooLarge,
            BadBody::TooManyHeaders => Self::TooManyHeaders,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    /// All data has been handed out; the end has not.
    End,
    Length(u64),
    UntilClose,
    ChunkSize(ChunkSize),
    Chunk(u64),
    ChunkEnd,
    /// How far their end has been looked for.
    Trailers(usize),
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
            Framing::Chunked => State::ChunkSize(ChunkSize::default()),
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
            _ => Err(BadBody::Malformed),
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
                // Envoy's parser skips what stands between a chunk and its line end.
                State::ChunkEnd => match memchr(b'\n', buffer) {
                    Some(at) => {
                        buffer.advance(at + 1);
                        self.state = State::ChunkSize(ChunkSize::default());
                    }
                    None => {
                        buffer.clear();
                        return Ok(data_or_pending(data));
                    }
                },
                State::ChunkSize(ref mut size) => match size.read(buffer) {
                    chunk_size::Step::Pending => return Ok(data_or_pending(data)),
                    chunk_size::Step::Size(0) => self.state = State::Trailers(0),
                    chunk_size::Step::Size(size) => self.state = State::Chunk(size),
                    chunk_size::Step::Bad => return Err(BadBody::Malformed),
                },
                State::Trailers(seen) => {
                    // Data first; the trailers are an event of their own.
                    if !data.is_empty() {
                        return Ok(Event::Data { data, end: false });
                    }
                    let Some(trailers) = self.trailers(buffer, seen)? else { return Ok(Event::Pending) };
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

    fn trailers(&mut self, buffer: &mut BytesMut, mut seen: usize) -> Result<Option<HeaderList>, BadBody> {
        let mut list = HeaderList::new(self.kind);
        match &buffer[..] {
            [b'\n', ..] => {
                buffer.advance(1);
                return Ok(Some(list));
            }
            [b'\r', b'\n', ..] => {
                buffer.advance(2);
                return Ok(Some(list));
            }
            _ => {}
        }
        let end = end_of_head(buffer, &mut seen);
        if end.unwrap_or(buffer.len()) > MAX_HEAD {
            return Err(BadBody::TooLarge);
        }
        let Some(end) = end else {
            self.state = State::Trailers(seen);
            return Ok(None);
        };
        for (count, field) in fields(&buffer[..end]).enumerate() {
            let field = field.map_err(|_| BadBody::Malformed)?;
            if count == MAX_HEADERS {
                return Err(BadBody::TooManyHeaders);
            }
            list.add(field.name, &field.value);
        }
        buffer.advance(end);
        Ok(Some(list))
    }
}

fn data_or_pending(data: Body) -> Event {
    if data.is_empty() { Event::Pending } else { Event::Data { data, end: false } }
}
