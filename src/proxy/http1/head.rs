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

use super::{Ending, Facts};

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

/// Takes the head of a request out of what has come, once it is whole, into `parts`, whose header fields are empty. What it says
/// stays in the buffer that it came in, which lives as long; or is copied, to stand `apart` from it.
pub(in crate::proxy) fn take_request(
    bytes: &mut BytesMut,
    ending: &mut Ending,
    max: usize,
    apart: bool,
    parts: &mut Parts,
) -> Result<Option<Said>, Malformed> {
    let Some(end) = ending.find(bytes) else {
        ending.skip_empty_lines(bytes);
        // Whoever speaks another protocol is told at once, instead of being waited for.
        let is_other = ending.beginning(bytes).first().is_some_and(|byte| !is_token(*byte));
        return incomplete(is_other, bytes.len(), max);
    };
    let (head, found) = split_off(bytes, ending, end, max, apart)?;
    let (line, from) = first_line(&head, &found)?;
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
    let mut said = fields(&head, from, &found, &mut parts.headers)?;
    said.facts.fragment = fragment;
    said.facts.bare_line_feed = found.has_bare_line_feed();
    Ok(Some(said))
}

/// Takes the head of an answer out of what has come, once it is whole. Its header fields take the place of `spare`.
/// `apart` as for [`take_request`].
pub(in crate::proxy) fn take_answer(
    bytes: &mut BytesMut,
    ending: &mut Ending,
    max: usize,
    apart: bool,
    spare: &mut HeaderMap,
) -> Result<Option<(Response<()>, Said)>, Malformed> {
    let Some(end) = ending.find(bytes) else {
        let is_other =
            !ending.beginning(bytes).iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected);
        return incomplete(is_other, bytes.len(), max);
    };
    let (head, found) = split_off(bytes, ending, end, max, apart)?;
    let (line, from) = first_line(&head, &found)?;
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
    let mut said = fields(&head, from, &found, response.headers_mut())?;
    said.facts.bare_line_feed = found.has_bare_line_feed();
    Ok(Some((response, said)))
}

/// The length of a version and the space beside it.
const VERSION_LEN: usize = b" HTTP/1.1".len();

/// Takes a whole head out, without the empty lines before it; what was found of its lines stays with it.
fn split_off(
    bytes: &mut BytesMut,
    ending: &mut Ending,
    end: usize,
    max: usize,
    apart: bool,
) -> Result<(Bytes, Ending), Malformed> {
    let found = std::mem::take(ending);
    if end > max {
        return Err(Malformed::TooLarge);
    }
    bytes.advance(found.start());
    let len = end - found.start();
    let head = if apart {
        let copy = Bytes::copy_from_slice(&bytes[..len]);
        bytes.advance(len);
        copy
    } else {
        bytes.split_to(len).freeze()
    };
    Ok((head, found))
}

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
        // Names are short: a search that is made for long ones begins later than this one ends.
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
mod tests;
