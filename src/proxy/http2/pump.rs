//! A body on its way into a stream, as fast as the other side opens its window (RFC 9113 §5.2).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::proxy::body::{Alongside, BodyError};

/// A first piece of at most this many bytes does not wait for the window: a stream whose head is still to be sent has none, so
/// that head and body of a small request would go out one after the other. The library keeps the piece instead of us.
const FIRST: usize = 16 * 1024;

/// Smaller pieces than this are copied: about half of what is read into, unless bodies are large.
const COPIED: usize = 4 * 1024;

/// Sends a body to its end. Dropping it before resets the stream.
#[derive(Debug)]
pub(in crate::proxy) struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    begun: bool,
    // Something was sent since it was asked.
    sent: bool,
    // What the window has no room for yet.
    rest: Bytes,
}

/// Why a body did not get to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Broken {
    /// It broke off, and the other side has been told so.
    Body,
    /// The other side wants no more of it.
    Stream,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Alongside + Unpin> Pump<B> {
    pub(in crate::proxy) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, begun: false, sent: false, rest: Bytes::new() }
    }

    /// Ends the stream before its end, if it has not ended.
    pub(in crate::proxy) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Whether the other side lets nothing more through.
    pub(super) fn is_blocked(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether anything was sent since this was asked.
    pub(super) fn has_sent(&mut self) -> bool {
        std::mem::take(&mut self.sent)
    }

    /// Sends what can be sent.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if !self.rest.is_empty() {
                let Poll::Ready(sent) = self.send_rest(cx) else {
                    self.body.poll_upload(cx);
                    return Poll::Pending;
                };
                sent?;
                if self.body.is_end_stream() && self.rest.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            // Asked only while there is nothing to send: who asks is woken when the head goes out, too.
            if polled.is_pending() && self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken::Stream));
            }
            let frame = match ready!(polled) {
                None => return Poll::Ready(self.send(Bytes::new(), true)),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.stream.send_reset(error.reset_code());
                    return Poll::Ready(Err(Broken::Body));
                }
            };
            match frame.into_data() {
                Ok(chunk) if chunk.is_empty() && self.body.is_end_stream() => {
                    return Poll::Ready(self.send(chunk, true));
                }
                Ok(chunk) if !self.begun && chunk.len() <= FIRST => {
                    self.begun = true;
                    let last = self.body.is_end_stream();
                    let sent = self.send(chunk, last);
                    if last || sent.is_err() {
                        return Poll::Ready(sent);
                    }
                }
                Ok(chunk) => {
                    self.begun = true;
                    self.rest = chunk;
                }
                Err(frame) => {
                    // There are no other frames than these two.
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    // What was reserved and is not used, the library gives back with this.
                    return Poll::Ready(self.stream.send_trailers(trailers).map_err(|_| Broken::Stream));
                }
            }
        }
    }

    /// Sends as much of the rest as the window lets through.
    fn send_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.stream.reserve_capacity(self.rest.len());
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Broken::Stream)),
            }
        }
        let part = self.rest.split_to(self.stream.capacity().min(self.rest.len()));
        let last = self.rest.is_empty() && self.body.is_end_stream();
        Poll::Ready(self.send(part, last))
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), Broken> {
        self.sent = true;
        self.stream.send_data(apart(data), last).map_err(|_| Broken::Stream)
    }
}

/// A piece that may wait in the library for long: a small one is copied, because it would keep all of the buffer that it came in.
fn apart(piece: Bytes) -> Bytes {
    if piece.len() < COPIED { Bytes::copy_from_slice(&piece) } else { piece }
}

impl BodyError {
    /// What the other side is told (RFC 9113 §7): the code that the upstream gave, so that its own HTTP/2 and gRPC
    /// callers read what they would have read without us.
    fn reset_code(&self) -> Reason {
        match self {
            Self::Caller => Reason::CANCEL,
            // These two invite a repetition, and this request has had its effect.
            Self::Upstream(
                Some(Reason::REFUSED_STREAM | Reason::HTTP_1_1_REQUIRED | Reason::NO_ERROR) | None,
            ) => Reason::INTERNAL_ERROR,
            Self::Upstream(Some(reason)) => *reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_piece_does_not_keep_the_buffer_that_it_came_in() {
        let buffer = Bytes::from(vec![7; 2 * COPIED]);
        let sent = [apart(buffer.slice(..1)), apart(buffer.slice(..0))];
        assert!(buffer.is_unique() && sent[0] == buffer[..1] && sent[1].is_empty());
        assert_eq!(apart(buffer.clone()).as_ptr(), buffer.as_ptr());
    }
}
