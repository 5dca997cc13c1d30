//! HTTP/1.1 on the wire (RFC 9112), towards callers and towards upstreams.
//!
//! 1. `head` finds the end of a head and reads it; `body_length` says by what the body behind it ends, and `framing` reads that
//!    body. All refuse what two readers could read differently; what is left to the rest of the road to refuse stands in
//!    [`Facts`].
//! 2. `encode` writes heads and chunks, `out` holds what is on its way to the socket, `inlet` what has come from it.
//! 3. `wire` is the connection of a caller, `converse` serves the requests on it, `reply` writes an answer, of which the kernel does
//!    `pouring` if it is large. The connection to an upstream is `upstream::Connection`.
//!
//! Everything about a request happens in one task, the one of the caller's connection: it reads the request, writes it to the
//! upstream, reads the answer and writes it back (towards an HTTP/2 upstream, the connection has a task too). So nothing is
//! handed from one task to another, nothing is locked, and nobody is woken but by a socket.
//!
//! Written by hand because it is what attaché exists for: a library mends silently what must be refused (a second reader of the
//! same bytes had to find out), and its two halves of a connection cost as much as everything else outside the kernel
//! (`benches/README.md`).

pub(super) mod body_length;
mod converse;
mod encode;
mod ending;
mod framing;
mod head;
mod incoming;
mod inlet;
mod out;
mod pouring;
mod reply;
mod wire;

use http::HeaderMap;

#[cfg(fuzzing)]
pub(super) use self::head::take_request;
pub(super) use self::{
    body_length::has_odd_coding,
    converse::{Ended, converse},
    encode::{Length, request as encode_request},
    ending::Ending,
    framing::{Decoder, Piece},
    head::{Phrase, Said, take_answer},
    incoming::Incoming,
    inlet::{Buffer, Inlet},
    out::Out,
    wire::Wire,
};

/// What the head of a message looked like: what must be refused, but with an answer that says so.
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
    pub(super) fn of_http2(headers: &HeaderMap) -> Self {
        let lengths = headers.get_all(http::header::CONTENT_LENGTH).iter().take(2).count();
        Self { lengths: lengths as u8, ..Self::default() }
    }

    /// Whether two readers could disagree on where the message ends (RFC 9112 §6.1, §6.3).
    pub(super) fn is_ambiguous(self) -> bool {
        self.bare_line_feed
            || self.odd_length
            || self.lengths > 1
            || self.encodings > 1
            || (self.lengths > 0 && self.encodings > 0)
    }
}
