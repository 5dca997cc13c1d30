//! The heads of messages (RFC 9112 §2 to §5): where one ends, and what it says.
//!
//! Strict: a head is read in the one way in which every reader would, or refused. Nothing is mended.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};
use memchr::memchr;

use super::Facts;

/// As many fields as one head or trailer section may have.
const MAX_FIELDS: usize = 100;

/// Why a head cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Malformed {
    /// It is not one.
    Head,
    /// Its request target is not one.
    Target,
    /// It is longer, or has more fields, than is read.
    TooLarge,
}

/// What a head said beside what stands in the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Said {
    pub(in crate::proxy) facts: Facts,
    /// Its `Content-Length`.
    pub(in crate::proxy) length: u64,
    /// It has a `Connection`.
    pub(in crate::proxy) connection: bool,
}

/// The reason phrase of an answer, when it is not the usual one; it stands in the extensions.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Phrase(pub(in crate::proxy) Bytes);

/// Looks for the end of a head while it arrives. No byte is looked at twice.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Ending {
    // Where the search goes on, where the current line began, and where the first line did.
    at: usize,
    line: usize,
    start: usize,
    started: bool,
    bare_line_feed: bool,
    // Where the first lines ended, so that they need not be looked for again.
    ends: [u32; ENDS],
    count: usize,
}

/// As many lines as most heads have.
const ENDS: usize = 24;

impl Ending {
    /// Where the head ends, its empty line included.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(step) = memchr(b'\n', &bytes[self.at..]) {
            let line_feed = self.at + step;
            let line = &bytes[self.line..line_feed];
            let (line, is_bare) = match line.split_last() {
                Some((b'\r', line)) => (line, false),
                _ => (line, true),
            };
            self.bare_line_feed |= is_bare;
            self.at = line_feed + 1;
            self.line = self.at;
            if !line.is_empty() {
                self.started = true;
                if let Some(end) = self.ends.get_mut(self.count) {
                    // A head is no longer than `max_header_bytes`, at most 1 MiB.
                    *end = (line_feed - self.start) as u32;
                    self.count += 1;
                }
            } else if self.started {
                return Some(self.at);
            } else {
                // Empty lines before a message mean nothing (RFC 9112 §2.2).
                self.start = self.at;
            }
        }
        self.at = bytes.len();
        None
    }

    /// Whether a line ended without a carriage return.
    pub(super) fn has_bare_line_feed(&self) -> bool {
        self.bare_line_feed
    }

    /// Where a line of the head ends, the first one being number 0.
    fn end_of(&self, number: usize, from: usize, head: &[u8]) -> Option<usize> {
        match self.ends[..self.count].get(number) {
            Some(end) => Some(*end as usize),
            None => memchr(b'\n', head.get(from..)?).map(|step| from + step),
        }
    }

    /// What has come of the first line.
    fn beginning<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = &bytes[self.start..];
        // A carriage return may be the first half of an empty line.
        if bytes == b"\r" { &[] } else { bytes }
    }
}

/// Takes the head of a request out of what has come, once it is whole, into `parts`, whose header fields are empty.
pub(in crate::proxy) fn take_request(
    bytes: &mut BytesMut,
    ending: &mut Ending,
    max: usize,
    parts: &mut Parts,
) -> Result<Option<Said>, Malformed> {
    let Some(end) = ending.find(bytes) else {
        // Whoever speaks another protocol is told at once, instead of being waited for.
        let is_other = ending.beginning(bytes).first().is_some_and(|byte| !is_token(*byte));
        return incomplete(is_other, bytes.len(), max);
    };
    let found = &std::mem::take(ending);
    let Ending { start, bare_line_feed, .. } = *found;
    if end > max {
        return Err(Malformed::TooLarge);
    }
    bytes.advance(start);
    let head = bytes.split_to(end - start).freeze();
    let (line, from) = first_line(&head, found)?;
    let method_end = memchr(b' ', line).ok_or(Malformed::Head)?;
    let target_end =
        line.len().checked_sub(VERSION_LEN).filter(|end| *end > method_end).ok_or(Malformed::Head)?;
    let version = match &line[target_end..] {
        b" HTTP/1.1" => Version::HTTP_11,
        b" HTTP/1.0" => Version::HTTP_10,
        _ => return Err(Malformed::Head),
    };
    let target = &line[method_end + 1..target_end];
    if target.is_empty() || memchr(b' ', target).is_some() {
        return Err(Malformed::Head);
    }
    parts.version = version;
    parts.method = Method::from_bytes(&line[..method_end]).map_err(|_| Malformed::Head)?;
    // The library cuts it off; the caller of this one refuses.
    let fragment = memchr(b'#', target).is_some();
    parts.uri =
        Uri::from_maybe_shared(head.slice(method_end + 1..target_end)).map_err(|_| Malformed::Target)?;
    let mut said = fields(&head, from, found, &mut parts.headers)?;
    said.facts.fragment = fragment;
    said.facts.bare_line_feed = bare_line_feed;
    Ok(Some(said))
}

/// Takes the head of an answer out of what has come, once it is whole. Its header fields take the place of `spare`.
pub(in crate::proxy) fn take_answer(
    bytes: &mut BytesMut,
    ending: &mut Ending,
    max: usize,
    spare: &mut HeaderMap,
) -> Result<Option<(Response<()>, Said)>, Malformed> {
    let Some(end) = ending.find(bytes) else {
        let is_other =
            !ending.beginning(bytes).iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected);
        return incomplete(is_other, bytes.len(), max);
    };
    let found = &std::mem::take(ending);
    let Ending { start, bare_line_feed, .. } = *found;
    if end > max {
        return Err(Malformed::TooLarge);
    }
    bytes.advance(start);
    let head = bytes.split_to(end - start).freeze();
    let (line, from) = first_line(&head, found)?;
    let (version, rest) = line.split_at_checked(VERSION_LEN).ok_or(Malformed::Head)?;
    let mut response = Response::new(());
    *response.version_mut() = match version {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return Err(Malformed::Head),
    };
    let (code, phrase) = rest.split_at_checked(3).ok_or(Malformed::Head)?;
    let status = StatusCode::from_bytes(code).map_err(|_| Malformed::Head)?;
    *response.status_mut() = status;
    let phrase = match phrase {
        [] => phrase,
        [b' ', phrase @ ..] => phrase,
        _ => return Err(Malformed::Head),
    };
    if !phrase.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)) {
        return Err(Malformed::Head);
    }
    if status.canonical_reason().is_none_or(|usual| usual.as_bytes() != phrase) {
        response.extensions_mut().insert(Phrase(head.slice_ref(phrase)));
    }
    *response.headers_mut() = std::mem::take(spare);
    let mut said = fields(&head, from, found, response.headers_mut())?;
    said.facts.bare_line_feed = bare_line_feed;
    Ok(Some((response, said)))
}

/// The length of a version and the space beside it.
const VERSION_LEN: usize = b" HTTP/1.1".len();

fn incomplete<T>(is_other: bool, len: usize, max: usize) -> Result<Option<T>, Malformed> {
    if is_other {
        Err(Malformed::Head)
    } else if len >= max {
        Err(Malformed::TooLarge)
    } else {
        Ok(None)
    }
}

/// The first line without its end, and where the next one begins.
fn first_line<'a>(head: &'a [u8], found: &Ending) -> Result<(&'a [u8], usize), Malformed> {
    let end = found.end_of(0, 0, head).ok_or(Malformed::Head)?;
    Ok((without_return(&head[..end]), end + 1))
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads the field lines (RFC 9112 §5) of a head, which begin at `from`, or of a trailer section, where that is 0.
pub(super) fn fields(
    head: &Bytes,
    from: usize,
    found: &Ending,
    headers: &mut HeaderMap,
) -> Result<Said, Malformed> {
    let mut said = Said::default();
    let mut at = from;
    for count in 0.. {
        // The empty line at the end is not among those that were noted.
        let line = count + usize::from(from > 0);
        let end = found.end_of(line, at, head).ok_or(Malformed::Head)?;
        let line = without_return(&head[at..end]);
        if line.is_empty() {
            break;
        }
        if count == 0 && headers.capacity() < ROOM {
            // About as many as there are, so that the map need not grow: it does so by moving everything.
            headers.try_reserve(ROOM).map_err(|_| Malformed::TooLarge)?;
        }
        if count == MAX_FIELDS {
            return Err(Malformed::TooLarge);
        }
        // A folded line begins with a space, which no name holds; neither does the one before a colon.
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::Head)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Malformed::Head)?;
        let value = trimmed(&line[colon + 1..]);
        if name == CONTENT_LENGTH {
            said.facts.lengths = said.facts.lengths.saturating_add(1);
            match number(value) {
                Some(length) => said.length = length,
                None => said.facts.odd_length = true,
            }
        } else if name == TRANSFER_ENCODING {
            said.facts.encodings = said.facts.encodings.saturating_add(1);
        } else if name == CONNECTION {
            said.connection = true;
        }
        // Not an empty slice of its own: that would not be one of `head`.
        let value = if value.is_empty() { Bytes::new() } else { head.slice_ref(value) };
        // Refuses control characters, a bare carriage return among them.
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::Head)?;
        headers.try_append(name, value).map_err(|_| Malformed::TooLarge)?;
        at = end + 1;
    }
    Ok(said)
}

/// As many fields as ordinary heads have, and some more that are put on.
const ROOM: usize = 12;

/// Without the whitespace that may stand around a value.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 65536;

    type Read = Result<Option<(Parts, Said)>, Malformed>;

    fn take(bytes: &mut BytesMut, ending: &mut Ending) -> Read {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        Ok(take_request(bytes, ending, MAX, &mut parts)?.map(|said| (parts, said)))
    }

    fn request(bytes: &[u8]) -> Read {
        take(&mut BytesMut::from(bytes), &mut Ending::default())
    }

    fn facts(bytes: &[u8]) -> Facts {
        request(bytes).unwrap().unwrap().1.facts
    }

    #[test]
    fn a_request_is_read_as_it_stands() {
        let bytes = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: a#b\r\nX:\t two words \t\r\nX:\r\nContent-Length: 3\r\n\r\nabcGET";
        let mut came = BytesMut::from(&bytes[..]);
        let (request, said) = take(&mut came, &mut Ending::default()).unwrap().unwrap();
        assert_eq!(
            (&request.method, &request.uri, request.version),
            (&Method::POST, &"/a?b=c".parse().unwrap(), Version::HTTP_11)
        );
        let lines: Vec<_> = request.headers.get_all("x").iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!((lines, request.headers.len()), (vec!["two words", ""], 4));
        assert_eq!(
            said,
            Said { facts: Facts { lengths: 1, ..Facts::default() }, length: 3, connection: false }
        );
        assert_eq!(came, "abcGET");
    }

    #[test]
    fn an_answer_is_read_as_it_stands() {
        for (line, status, phrase) in [
            ("HTTP/1.1 200 OK", 200, None),
            ("HTTP/1.1 200 Fine enough", 200, Some("Fine enough")),
            ("HTTP/1.0 404", 404, Some("")),
            ("HTTP/1.1 799 \u{e9}t\u{e9}", 799, Some("\u{e9}t\u{e9}")),
        ] {
            let mut came = BytesMut::from(format!("{line}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            let (answer, said) =
                take_answer(&mut came, &mut Ending::default(), MAX, &mut HeaderMap::new()).unwrap().unwrap();
            assert_eq!((answer.status().as_u16(), said.facts.lengths), (status, 1));
            let told = answer.extensions().get::<Phrase>().map(|phrase| phrase.0.as_ref());
            assert_eq!(told, phrase.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn a_fragment_is_seen_in_the_target_only() {
        assert!(facts(b"GET /a#b HTTP/1.1\r\n\r\n").fragment);
        assert!(!facts(b"GET /a HTTP/1.1\r\nX: #\r\n\r\n").fragment);
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
            assert!(
                facts(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes()).is_ambiguous(),
                "{head:?}"
            );
        }
        assert!(facts(b"\nGET / HTTP/1.1\r\n\r\n").is_ambiguous());
    }

    #[test]
    fn what_is_not_a_head_is_not_read() {
        for bytes in [
            &b"GET /\r\n\r\n"[..],
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / x HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b"GET / HTTP/1.2\r\n\r\n",
            b" GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01",
            b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            b"GET / HTTP/1.1\r\n: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nA\r\n\r\n",
        ] {
            assert_eq!(request(bytes).unwrap_err(), Malformed::Head, "{:?}", String::from_utf8_lossy(bytes));
        }
        for bytes in [
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-x",
            "<html>",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
        ] {
            let answer =
                take_answer(&mut BytesMut::from(bytes), &mut Ending::default(), MAX, &mut HeaderMap::new());
            assert_eq!(answer.unwrap_err(), Malformed::Head, "{bytes:?}");
        }
        assert_eq!(request(b"GET /\x7f HTTP/1.1\r\n\r\n").unwrap_err(), Malformed::Target);
    }

    #[test]
    fn a_head_has_as_many_bytes_and_fields_as_are_read() {
        let long = |len: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(len - 23));
        assert!(request(long(MAX).as_bytes()).is_ok());
        assert_eq!(request(long(MAX + 1).as_bytes()).unwrap_err(), Malformed::TooLarge);
        assert_eq!(request(&long(MAX + 1).as_bytes()[..MAX]).unwrap_err(), Malformed::TooLarge);
        let many = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert!(request(many(MAX_FIELDS).as_bytes()).is_ok());
        assert_eq!(request(many(MAX_FIELDS + 1).as_bytes()).unwrap_err(), Malformed::TooLarge);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_head_is_cut(
            pieces in proptest::collection::vec(
                "[A-Za-z0-9 :#/\r\n-]{0,40}|Content-Length: [0-9]{1,3}\r\n|Transfer-Encoding: x\r\n|\r\n\r\n",
                0..12,
            ),
            cuts in proptest::collection::vec(1usize..90, 1..40),
        ) {
            let bytes = format!("GET / HTTP/1.1\r\n{}", pieces.concat());
            let mut came = BytesMut::from(bytes.as_bytes());
            let told = |read: Read| read.map(|read| {
                read.map(|(request, said)| (format!("{:?}", request.headers), said))
            });
            let whole = (told(take(&mut came, &mut Ending::default())), came.len());
            let (mut came, mut ending, mut rest) = (BytesMut::new(), Ending::default(), bytes.as_bytes());
            let mut cut = told(Ok(None));
            for step in cuts.iter().cycle() {
                if rest.is_empty() || cut != Ok(None) {
                    break;
                }
                let (piece, tail) = rest.split_at((*step).min(rest.len()));
                came.extend_from_slice(piece);
                cut = told(take(&mut came, &mut ending));
                rest = tail;
            }
            prop_assert_eq!(whole.0, cut);
            if whole.1 > 0 {
                prop_assert_eq!(whole.1, came.len() + rest.len());
            }
        }
    }
}
