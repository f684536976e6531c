//! Random requests, deterministic: whatever comes in, what would go upstream is
//! one well-framed request for each that was read, and nothing panics.

use bytes::BytesMut;
use spctl_host::{Body, HeaderKind, HeaderList};

use super::{BodyReader, Chunking, Event, Framing, chunk, end_of_chunks, parse_request, request_head, trailers};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What requests are made of, and what attacks on them are made of.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /p?q HTTP/1.1\r\n",
    "CONNECT h:80 HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://h/p HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "Host: h\r\n",
    "Host: h\n",
    "Content-Length: 2\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length : 2\r\n",
    "Content-Length: 2, 2\r\n",
    "Content-Length:\r\n 2\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chun\rked\r\n",
    "Transfer-Encoding:\tchunked\r\n",
    "Connection: close\r\n",
    "Connection: content-length, transfer-encoding\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "X: \r\n y\r\n",
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "0\r\n\r\n",
    "0\r\nx: 1\r\n\r\n",
    "2\r\nhi\r\n",
    "2;ext=\"\r\n\"\r\nhi\r\n",
    "ffffffffffffffff\r\n",
    "10000000000000000\r\n",
    "hello",
    "GET",
    "\0",
    ":",
    " ",
    "\u{7f}",
];

fn message(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Half of them are nearly right, so that bodies are reached.
    if random.below(2) == 0 {
        bytes.extend_from_slice(b"POST / HTTP/1.1\r\nHost: h\r\n");
        let framing = ["Content-Length: 2\r\n\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"];
        bytes.extend_from_slice(random.pick(&framing).as_bytes());
    }
    for _ in 0..random.below(12) {
        bytes.extend_from_slice(random.pick(PIECES).as_bytes());
    }
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap_or_default(),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, *random.pick(b"\r\n\t :;0a\0")),
        }
    }
    bytes
}

/// Reads everything as a connection would, in pieces, and writes what would go
/// upstream: one entry for each request.
fn through(input: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let (mut buffer, mut seen, mut rest) = (BytesMut::new(), 0, input);
    let mut sent = Vec::new();
    let mut open: Option<(BodyReader, BytesMut, Chunking)> = None;
    loop {
        let before = (buffer.len(), rest.len(), open.is_some());
        match &mut open {
            None => match parse_request(&mut buffer, &mut seen, HeaderList::new(HeaderKind::Request)) {
                Err(_) => return sent,
                // Refused as a whole, and the connection with it.
                Ok(Some(request)) if !request.headers.contains(b":authority") => return sent,
                Ok(Some(request)) if request.framing == Framing::UntilClose => return sent,
                Ok(Some(mut request)) => {
                    // Hop-by-hop headers never go on.
                    for name in ["connection", "transfer-encoding", "upgrade"] {
                        request.headers.remove(name.as_bytes());
                    }
                    let reader = BodyReader::new(request.framing, HeaderKind::RequestTrailers);
                    let mut out = BytesMut::new();
                    let chunking = request_head(&mut out, &request.headers, reader.is_done());
                    if reader.is_done() {
                        sent.push(out.to_vec());
                    } else {
                        open = Some((reader, out, chunking));
                    }
                }
                Ok(None) => {}
            },
            Some((reader, out, chunking)) => match reader.read(&mut buffer) {
                Err(_) => return sent,
                Ok(Event::Pending) => {}
                Ok(Event::Data { data, end }) => {
                    write(out, *chunking, &data, end);
                    if end {
                        sent.push(out.to_vec());
                        open = None;
                    }
                }
                Ok(Event::Trailers(list)) => {
                    assert_eq!(*chunking, Chunking::Chunked);
                    trailers(out, &list);
                    sent.push(out.to_vec());
                    open = None;
                }
            },
        }
        if (buffer.len(), rest.len(), open.is_some()) == before {
            if rest.is_empty() {
                return sent;
            }
            let (now, later) = rest.split_at(1 + random.below(rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
        }
    }
}

fn write(out: &mut BytesMut, chunking: Chunking, data: &Body, end: bool) {
    if chunking == Chunking::Chunked {
        chunk(out, data);
        if end {
            end_of_chunks(out);
        }
    } else {
        data.chunks().for_each(|part| out.extend_from_slice(part));
    }
}

/// A reader that knows nothing but RFC 9112, strictly: exactly one request.
fn assert_one_request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = head.unwrap_or_else(|| panic!("no end of head: {text:?}"));
    let lines: Vec<&[u8]> = bytes[..head - 4].split(|byte| *byte == b'\n').collect();
    for (n, line) in lines.iter().enumerate() {
        let line =
            line.strip_suffix(b"\r").unwrap_or_else(|| if n + 1 == lines.len() { line } else { panic!("{text:?}") });
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{text:?}");
        assert!(n == 0 || (line.contains(&b':') && !line.starts_with(b" ") && !line.starts_with(b"\t")), "{text:?}");
    }
    let names = |name: &str| {
        let count = lines.iter().filter(|line| line.to_ascii_lowercase().starts_with(name.as_bytes())).count();
        assert!(count <= 1, "{name} {count} times: {text:?}");
        count == 1
    };
    let (length, coding, body) = (names("content-length:"), names("transfer-encoding:"), &bytes[head..]);
    assert!(names("host:") && !(length && coding), "{text:?}");
    if coding {
        assert!(body.ends_with(b"\r\n\r\n") && chunks_end(body) == body.len(), "{text:?}");
    } else {
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(body.len(), length.map_or(0, |length| length.parse().unwrap_or(usize::MAX)), "{text:?}");
    }
}

/// Where a chunked body ends.
fn chunks_end(body: &[u8]) -> usize {
    let line = |at: usize| body[at..].windows(2).position(|window| window == b"\r\n").map(|n| at + n);
    let mut at = 0;
    while let Some(end) = line(at) {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&body[at..end]), 16);
        match size {
            Ok(0) => {
                let mut at = end + 2;
                while let Some(end) = line(at) {
                    if end == at {
                        return end + 2;
                    }
                    at = end + 2;
                }
                return 0;
            }
            Ok(size) if body.get(end + 2 + size..end + 4 + size) == Some(b"\r\n") => at = end + 4 + size,
            _ => return 0,
        }
    }
    0
}

fn check(input: &[u8], random: &mut Random) {
    for request in through(input, random) {
        assert_one_request(&request);
    }
}

#[test]
fn nothing_that_comes_in_goes_out_as_anything_but_one_request_each() {
    let mut random = Random(0x5eed);
    for _ in 0..1_000_000 {
        let input: Vec<u8> = (0..1 + random.below(3)).flat_map(|_| message(&mut random)).collect();
        check(&input, &mut random);
    }
}

#[test]
fn what_once_went_wrong_stays_right() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/http1");
    let files: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().collect();
    assert!(!files.is_empty(), "{directory}");
    for file in files {
        let input = std::fs::read(file.path()).unwrap_or_default();
        for seed in 0..50 {
            check(&input, &mut Random(seed));
        }
    }
}
