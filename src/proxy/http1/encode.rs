//! Heads and chunks as they are written (RFC 9112 §3 to §7).

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TRANSFER_ENCODING},
    response::Parts,
    uri::PathAndQuery,
};

use super::{Out, Phrase};
use crate::proxy::hop;

/// How the other side learns where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Length {
    /// There is no body, and nothing is said about one.
    None,
    /// So many bytes are still to be written.
    Exact(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The body that is being written is not what its head said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Untrue;

impl Length {
    /// Writes a piece of a body.
    pub(in crate::proxy) fn piece(&mut self, piece: Bytes, out: &mut Out) -> Result<(), Untrue> {
        match self {
            // Nothing, which would end a chunked body.
            _ if piece.is_empty() => {}
            Self::None => return Err(Untrue),
            Self::Exact(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Untrue)?;
                out.piece(piece, b"");
            }
            Self::Chunked => {
                hexadecimal(piece.len(), out.buffer());
                out.piece(piece, b"\r\n");
            }
            Self::UntilClose => out.piece(piece, b""),
        }
        Ok(())
    }

    /// Takes note of bytes that were written by the kernel.
    pub(in crate::proxy) fn passed(&mut self, count: usize) {
        if let Self::Exact(left) = self {
            *left = left.saturating_sub(count as u64);
        }
    }

    /// Whether nothing more has to be written.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        matches!(self, Self::None | Self::Exact(0))
    }

    /// Writes the end of a body.
    pub(in crate::proxy) fn end(&mut self, trailers: &HeaderMap, out: &mut Out) -> Result<(), Untrue> {
        match self {
            Self::Exact(1..) => return Err(Untrue),
            Self::Chunked => {
                let buffer = out.buffer();
                buffer.extend_from_slice(b"0\r\n");
                fields(trailers, buffer);
                buffer.extend_from_slice(b"\r\n");
            }
            Self::None | Self::Exact(0) | Self::UntilClose => {}
        }
        *self = Self::None;
        Ok(())
    }
}

/// Writes the head of a request whose `headers` say nothing about its length.
pub(in crate::proxy) fn request(
    method: &Method,
    target: &PathAndQuery,
    headers: &HeaderMap,
    length: Length,
    out: &mut Out,
) {
    let buffer = out.buffer();
    // One growth at most.
    buffer.reserve(RESERVED);
    buffer.extend_from_slice(method.as_str().as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(target.as_str().as_bytes());
    buffer.extend_from_slice(b" HTTP/1.1\r\n");
    fields(headers, buffer);
    framing(length, buffer);
    buffer.extend_from_slice(b"\r\n");
}

/// Writes the head of an answer, and tells whether its connection may be kept, which it may not if its own `Connection` says
/// so. `length` is what is said of its body, unless the fields say it: of an answer to HEAD what it would be, if that is known.
pub(super) fn answer(head: &Parts, version: Version, length: Length, keep: bool, out: &mut Out) -> bool {
    let (status, headers) = (head.status, &head.headers);
    let buffer = out.buffer();
    buffer.reserve(RESERVED);
    let old = version == Version::HTTP_10;
    status_line(head, version, buffer);
    let (mut says_length, mut says_date, mut says_connection) = (false, false, false);
    for (name, value) in headers {
        says_length |= name == CONTENT_LENGTH;
        says_date |= name == DATE;
        says_connection |= name == CONNECTION;
        field(name, value.as_bytes(), buffer);
    }
    if !says_length {
        framing(length, buffer);
    }
    // What attaché itself says is `close`, or `upgrade` with a 101.
    let closes = says_connection && hop::lists(headers, &CONNECTION, b"close");
    let keep = keep && !closes;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if !switches && !keep && !closes {
        buffer.extend_from_slice(b"connection: close\r\n");
    } else if !switches && keep && old {
        buffer.extend_from_slice(b"connection: keep-alive\r\n");
    }
    // RFC 9110 §6.6.1.
    if !switches && !says_date {
        buffer.extend_from_slice(b"date: ");
        buffer.extend_from_slice(httpdate::fmt_http_date(std::time::SystemTime::now()).as_bytes());
        buffer.extend_from_slice(b"\r\n");
    }
    buffer.extend_from_slice(b"\r\n");
    keep
}

/// Writes an interim answer, which has no body and ends nothing.
pub(super) fn interim(head: &Parts, out: &mut Out) {
    let buffer = out.buffer();
    status_line(head, Version::HTTP_11, buffer);
    fields(&head.headers, buffer);
    buffer.extend_from_slice(b"\r\n");
}

fn status_line(head: &Parts, version: Version, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    buffer.extend_from_slice(head.status.as_str().as_bytes());
    buffer.push(b' ');
    match head.extensions.get::<Phrase>() {
        Some(Phrase(phrase)) => buffer.extend_from_slice(phrase),
        None => buffer.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    buffer.extend_from_slice(b"\r\n");
}

/// About the length of a head with a token.
const RESERVED: usize = 2048;

fn fields(headers: &HeaderMap, buffer: &mut Vec<u8>) {
    for (name, value) in headers {
        field(name, value.as_bytes(), buffer);
    }
}

fn field(name: &HeaderName, value: &[u8], buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(name.as_str().as_bytes());
    buffer.extend_from_slice(b": ");
    buffer.extend_from_slice(value);
    buffer.extend_from_slice(b"\r\n");
}

fn framing(length: Length, buffer: &mut Vec<u8>) {
    match length {
        Length::Exact(length) => {
            field(&CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes(), buffer);
        }
        Length::Chunked => field(&TRANSFER_ENCODING, b"chunked", buffer),
        Length::None | Length::UntilClose => {}
    }
}

/// The size line of a chunk.
fn hexadecimal(size: usize, buffer: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    buffer.extend((0..digits).rev().map(|digit| DIGITS[size >> (digit * 4) & 15]));
    buffer.extend_from_slice(b"\r\n");
}
