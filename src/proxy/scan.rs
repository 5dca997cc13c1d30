//! Watches the raw bytes of an HTTP/1 connection for what hyper does not tell.
//!
//! hyper parses, and what it hands on is already mended: a `#` and what follows it is cut from the target, a
//! `Content-Length` beside a `Transfer-Encoding` is dropped, two equal lengths become one. attaché refuses such messages
//! instead (RFC 9112 §6.1, §6.3), so it looks at the head as it came. The scanner only watches: it never changes a byte,
//! and hyper alone decides where a message ends. It follows the messages of a connection by their lengths and chunks; what
//! it would read differently from hyper, hyper refuses.

mod head;

use std::collections::VecDeque;

use memchr::memchr;

use self::head::Head;

/// More interim answers (RFC 9110 §15.2) than this to one request come from an upstream that only wants to be read from.
const MAX_INTERIM: u32 = 100;

/// More requests than this cannot wait in what hyper reads ahead, which is their heads only: the scanner has lost its way.
const MAX_SEEN: usize = 8192;

/// Larger chunks than any body is (64 PiB): far beyond it, what a size adds up to could be read in two ways.
const MAX_CHUNK: u64 = 1 << 56;

/// Which kind of message a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Requests of a caller.
    Requests,
    /// Answers of an upstream.
    Answers,
}

/// What the head of one message looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The request target holds a `#`.
    pub(super) fragment: bool,
    /// A line ends without a carriage return.
    pub(super) bare_line_feed: bool,
    /// How many `Content-Length` lines there are.
    pub(super) lengths: u8,
    /// A `Content-Length` is not a plain number.
    pub(super) odd_length: bool,
    /// How many `Transfer-Encoding` lines there are.
    pub(super) encodings: u8,
}

impl Facts {
    /// What the library lets through of HTTP/2, where frames say where a message ends (RFC 9113 §8.1.1). Only lines that
    /// say the same length twice are left to be refused.
    pub(super) fn of_http2(headers: &http::HeaderMap) -> Self {
        let lengths = headers.get_all(http::header::CONTENT_LENGTH).iter().take(2).count();
        Self { lengths: lengths as u8, ..Self::default() }
    }

    /// Whether two readers could disagree on where the message ends.
    pub(super) fn is_ambiguous(self) -> bool {
        self.bare_line_feed
            || self.odd_length
            || self.lengths > 1
            || self.encodings > 1
            || (self.lengths > 0 && self.encodings > 0)
    }
}

/// Follows the messages of one direction of one connection.
#[derive(Debug)]
pub(super) struct Scanner {
    side: Side,
    state: State,
    head: Head,
    // What is not asked for yet: the next message, and those behind it when requests are pipelined. The first has a place
    // of its own, so that ordinary connections allocate nothing here and keep nothing when they are idle.
    seen: Option<Facts>,
    behind: VecDeque<Facts>,
    // An answer without a body, whatever its head says (RFC 9110 §9.3.2): it answers a HEAD request.
    bodiless: bool,
    excess: bool,
    interim: u32,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Inside a head, or before one.
    Head,
    /// Inside a body of known length; so many bytes are left.
    Body(u64),
    /// Inside the line that tells the size of a chunk (RFC 9112 §7.1); its digits are read until something else comes.
    ChunkSize { size: u64, digits: bool },
    /// Inside a chunk; so many bytes are left, its line break among them.
    Chunk(u64),
    /// Inside the trailer section: the length of the current line so far, and whether its last byte is a carriage return.
    Trailers { line: usize, carriage_return: bool },
    /// The answer is over: whatever comes is too much.
    Over,
    /// The answer ends with its connection.
    UntilClose,
}

const CHUNK_SIZE: State = State::ChunkSize { size: 0, digits: true };
const TRAILERS: State = State::Trailers { line: 0, carriage_return: false };

/// Why nothing more of a connection may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A line of a trailer section ends without a carriage return: hyper reads on as if it did not end.
    BareLineFeed,
    /// A chunk says that it is longer than anybody can send (RFC 9112 §7.1 asks to be careful with such sizes).
    ChunkSize,
    /// More messages than hyper can have in its buffer.
    Pipeline,
    /// Interim answers come without end: hyper skips them as fast as they come, and nothing else gets its turn.
    Interim,
}

impl Scanner {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            state: State::Head,
            head: Head::default(),
            seen: None,
            behind: VecDeque::new(),
            bodiless: false,
            excess: false,
            interim: 0,
            fault: None,
        }
    }

    /// Looks at the bytes that were just read; how many of them come before a [`Fault`].
    pub(super) fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && self.fault.is_none() {
            rest = match self.state {
                State::UntilClose => return bytes.len(),
                State::Over => {
                    self.excess = true;
                    return bytes.len();
                }
                State::Head => self.scan_head(rest),
                State::Body(left) => {
                    let (left, after) = skip(left, rest);
                    self.state = if left == 0 { self.end() } else { State::Body(left) };
                    after
                }
                State::ChunkSize { size, digits } => self.scan_chunk_size(size, digits, rest),
                State::Chunk(left) => {
                    let (left, after) = skip(left, rest);
                    self.state = if left == 0 { CHUNK_SIZE } else { State::Chunk(left) };
                    after
                }
                State::Trailers { line, carriage_return } => self.scan_trailers(line, carriage_return, rest),
            };
        }
        bytes.len() - rest.len()
    }

    fn scan_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.head.keep(bytes);
            return &[];
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let complete = if self.head.line_len == 0 {
            self.head.line(line, self.side)
        } else {
            self.head.keep(line);
            self.head.kept_line(self.side)
        };
        if complete {
            self.complete();
        }
        rest
    }

    fn scan_chunk_size<'a>(&mut self, mut size: u64, mut digits: bool, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match char::from(*byte).to_digit(16) {
                Some(digit) if digits => {
                    size = size * 16 + u64::from(digit);
                    if size > MAX_CHUNK {
                        self.fault = Some(Fault::ChunkSize);
                        return &bytes[at..];
                    }
                }
                _ => digits = false,
            }
            if *byte == b'\n' {
                self.state = if size == 0 { TRAILERS } else { State::Chunk(size + 2) };
                return &bytes[at + 1..];
            }
        }
        self.state = State::ChunkSize { size, digits };
        &[]
    }

    fn scan_trailers<'a>(&mut self, mut line: usize, mut carriage_return: bool, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if !carriage_return => {
                    self.fault = Some(Fault::BareLineFeed);
                    return &bytes[at..];
                }
                b'\n' if line == 0 => {
                    self.state = self.end();
                    return &bytes[at + 1..];
                }
                b'\n' => line = 0,
                b'\r' => {}
                _ => line += 1,
            }
            carriage_return = *byte == b'\r';
        }
        self.state = State::Trailers { line, carriage_return };
        &[]
    }

    /// A message is over.
    fn end(&self) -> State {
        match self.side {
            Side::Requests => State::Head,
            Side::Answers => State::Over,
        }
    }

    fn complete(&mut self) {
        let head = std::mem::take(&mut self.head);
        let informational = (100..200).contains(&head.status);
        if self.side == Side::Answers && informational && head.status != 101 {
            self.interim += 1;
            self.fault = (self.interim > MAX_INTERIM).then_some(Fault::Interim);
            return;
        }
        if self.behind.len() + 1 >= MAX_SEEN {
            self.fault = Some(Fault::Pipeline);
            return;
        }
        match self.seen {
            None => self.seen = Some(head.facts),
            Some(_) => self.behind.push_back(head.facts),
        }
        let bodiless = self.bodiless || matches!(head.status, 204 | 304);
        self.state = match self.side {
            // A tunnel (RFC 9110 §7.8): what follows is not HTTP.
            Side::Answers if head.status == 101 => State::UntilClose,
            Side::Answers if bodiless => State::Over,
            _ if head.facts.encodings > 0 => CHUNK_SIZE,
            Side::Answers if head.facts.lengths == 0 => State::UntilClose,
            _ if head.length == 0 => self.end(),
            _ => State::Body(head.length),
        };
    }

    /// What the next message looked like.
    pub(super) fn next(&mut self) -> Option<Facts> {
        let next = self.seen.take();
        self.seen = self.behind.pop_front();
        next
    }

    /// An answer is expected, to a request that may allow no body.
    pub(super) fn expect_answer(&mut self, bodiless: bool) {
        self.bodiless = bodiless;
        self.state = State::Head;
        self.head = Head::default();
        self.seen = None;
        self.behind.clear();
        self.excess = false;
        self.interim = 0;
    }

    /// Why nothing more may be read.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Bytes came after the end of an answer.
    pub(super) fn has_excess(&self) -> bool {
        self.excess
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn is_within_head(&self) -> bool {
        self.state == State::Head && (self.head.started || self.head.line_len > 0)
    }
}

/// Skips so many bytes of a body: how many are left, and what follows.
fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    match usize::try_from(left) {
        Ok(step) if step <= bytes.len() => (0, &bytes[step..]),
        _ => (left - bytes.len() as u64, &[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests(bytes: &[u8]) -> Vec<Facts> {
        let mut scanner = Scanner::new(Side::Requests);
        scanner.scan(bytes);
        std::iter::from_fn(|| scanner.next()).collect()
    }

    fn answer(bytes: &[u8], bodiless: bool) -> (Option<Facts>, bool) {
        let mut scanner = Scanner::new(Side::Answers);
        scanner.expect_answer(bodiless);
        scanner.scan(bytes);
        (scanner.next(), scanner.has_excess())
    }

    #[test]
    fn plain_requests_are_plain_also_when_pipelined() {
        let plain = Facts { lengths: 1, ..Facts::default() };
        let bytes = b"\r\nPOST / HTTP/1.1\r\nHost: a#b\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(requests(bytes), [plain, Facts::default()]);
        assert!(!plain.is_ambiguous());
    }

    #[test]
    fn a_fragment_is_seen_in_the_target_only() {
        assert!(requests(b"GET /a#b HTTP/1.1\r\n\r\n")[0].fragment);
        assert!(!requests(b"GET /a HTTP/1.1\r\nX: #\r\n\r\n")[0].fragment);
    }

    #[test]
    fn whatever_two_readers_could_disagree_on_is_ambiguous() {
        for head in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "X: y\n",
        ] {
            let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n");
            assert!(requests(bytes.as_bytes())[0].is_ambiguous(), "{head:?}");
        }
    }

    #[test]
    fn what_follows_a_chunked_request_is_seen() {
        for chunks in ["0\r\n\r\n", "3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n"] {
            let bytes = format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}GET /#x HTTP/1.1\r\n\r\n"
            );
            let seen = requests(bytes.as_bytes());
            assert_eq!(seen.len(), 2, "{chunks:?}");
            assert!(!seen[0].fragment && seen[1].fragment, "{chunks:?}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_a_bare_line_feed_among_trailers() {
        for trailers in ["", "X: y", "X: y\r\n"] {
            let good = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}");
            let mut scanner = Scanner::new(Side::Requests);
            let read = scanner.scan(format!("{good}\nZ: y\r\n\r\nGET / HTTP/1.1\r\n\r\n").as_bytes());
            assert_eq!((read, scanner.fault()), (good.len(), Some(Fault::BareLineFeed)), "{trailers:?}");
        }
    }

    #[test]
    fn a_chunk_that_nobody_can_count_ends_the_connection() {
        for size in ["fffffffffffffffe", "ffffffffffffffff", "1000000000000001"] {
            let mut scanner = Scanner::new(Side::Requests);
            scanner.scan(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
            scanner.scan(format!("{size}\r\n0\r\n\r\n").as_bytes());
            assert_eq!(scanner.fault(), Some(Fault::ChunkSize), "{size}");
        }
    }

    #[test]
    fn more_messages_than_can_wait_end_the_connection() {
        let mut scanner = Scanner::new(Side::Requests);
        scanner.scan("GET / HTTP/1.1\r\n\r\n".repeat(MAX_SEEN + 10).as_bytes());
        assert_eq!((scanner.fault(), scanner.behind.len()), (Some(Fault::Pipeline), MAX_SEEN - 1));
    }

    #[test]
    fn bytes_after_an_answer_are_excess() {
        assert!(!answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", false).1);
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", false).1);
        assert!(answer(b"HTTP/1.1 204 No Content\r\n\r\nx", false).1);
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", true).1);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert!(!answer(chunked.as_bytes(), false).1);
        assert!(answer(format!("{chunked}x").as_bytes(), false).1);
        assert!(!answer(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", false).1);
    }

    #[test]
    fn an_interim_answer_comes_before_the_one_that_counts() {
        let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
        let (facts, excess) = answer(bytes, false);
        assert!(facts.unwrap().is_ambiguous() && !excess);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            pieces in proptest::collection::vec(
                "[A-Za-z0-9 :#/\r\n-]{0,40}|Content-Length: [0-9]{1,3}\r\n|Transfer-Encoding: x\r\n|[0-9a-f]{1,2}\r\n|\r\n\r\n",
                0..12,
            ),
            cuts in proptest::collection::vec(1usize..90, 1..40),
        ) {
            let bytes = format!("GET / HTTP/1.1\r\n{}", pieces.concat());
            let whole = requests(bytes.as_bytes());
            let mut scanner = Scanner::new(Side::Requests);
            let mut rest = bytes.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                scanner.scan(piece);
                rest = tail;
            }
            let cut: Vec<Facts> = std::iter::from_fn(|| scanner.next()).collect();
            prop_assert_eq!(whole, cut);
        }
    }
}
