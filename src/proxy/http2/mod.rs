//! HTTP/2 without TLS from a caller that knows that it is spoken here (RFC 9113 §3.3), on the port of HTTP/1.1.
//!
//! 1. `preface`: the first bytes of a connection tell which of the two it is. Nothing here is paid for by HTTP/1.1.
//! 2. `connection` accepts streams; `frames` tells whether a head is arriving, so that a slow one is seen, and `refused` which
//!    streams the library refuses, so that they are counted.
//! 3. `stream` is one request: the same road as for HTTP/1.1 ([`handle`](super::handle)), then its answer.
//! 4. `pump` sends a body as fast as the other side takes it, towards callers and towards upstreams.
//!
//! hyper's own HTTP/2 is not used: it cannot send 100 (Continue), takes a reset for a clean end when its code is
//! `NO_ERROR`, and does not tell why a stream failed, which decides whether it may be sent once more (RFC 9113 §8.7).

mod connection;
mod frames;
mod preface;
mod pump;
mod refused;
mod stream;

pub(super) use self::{
    connection::serve,
    frames::{CONTINUATION, END_HEADERS, HEADER_LEN as FRAME_HEADER_LEN, HEADERS},
    preface::{Opening, PREFACE_LEN, opening, rest_of_preface},
    pump::{Broken, Pump},
};

use super::error::Reason;

/// Streams that a caller may have open at once on one connection.
const MAX_STREAMS: u32 = 100;

/// What of one request's body may be on its way to us. A loopback connection needs no more.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a caller has reset and that are still remembered, and those that it may reset before they are looked at
/// (CVE-2023-44487): more ends the connection.
const RESET_STREAMS: usize = 50;

/// All that is said on a connection that is not served: GOAWAY for whatever is asked (RFC 9113 §6.8), so that the caller knows that
/// nothing has been looked at, with the reason's word as its debug data.
pub(super) fn refusal(reason: Reason) -> Vec<u8> {
    let code = match reason {
        Reason::TooManyConnections => h2::Reason::ENHANCE_YOUR_CALM,
        _ => h2::Reason::INADEQUATE_SECURITY,
    };
    let word = reason.word().as_bytes();
    // SETTINGS come first (§3.4). A word is shorter than 248 bytes.
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    bytes.extend([0, 0, 8 + word.len() as u8, 7, 0, 0, 0, 0, 0]);
    bytes.extend([0; 4]);
    bytes.extend(u32::from(code).to_be_bytes());
    bytes.extend(word);
    bytes
}

/// The limits of a caller's connection, all told rather than left to defaults.
pub(super) fn builder(max_header_bytes: usize) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        // Every stream can fill its window: uploads that are stuck hold up no other, and no connection holds more.
        .initial_connection_window_size(MAX_STREAMS * STREAM_WINDOW)
        .max_frame_size(16 * 1024)
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        // WebSocket (RFC 8441 §3).
        .enable_connect_protocol();
    builder
}
