//! A body that comes in, whichever HTTP it comes by: of a request from a caller, of an answer from an upstream.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};

use super::http1::Incoming;

/// A body, streamed.
#[derive(Debug)]
pub(super) enum Inflow {
    /// On a connection of its own.
    Http1(Incoming),
    /// A stream's. Boxed, so that HTTP/1 carries no room for it.
    Http2(Box<Stream>),
}

/// The receiving side of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    recv: RecvStream,
    // What is left of the length that was told.
    left: Option<u64>,
    data_ended: bool,
    wanted: Option<Rc<Cell<bool>>>,
}

/// A body broke off. Over HTTP/2 with the code that the other side gave, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BrokenOff(pub(super) Option<Reason>);

impl Inflow {
    /// The body of a stream whose header fields are these.
    pub(super) fn http2(recv: RecvStream, headers: &HeaderMap) -> Self {
        Self::Http2(Box::new(Stream::new(recv, headers)))
    }

    /// Sets the flag when the body is asked for the first time.
    pub(super) fn tell_when_wanted(&mut self, flag: Rc<Cell<bool>>) {
        if let Self::Http2(stream) = self {
            stream.wanted = Some(flag);
        }
    }
}

impl Body for Inflow {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }
}

impl Stream {
    /// Of an answer or a request whose header fields are these.
    pub(super) fn new(recv: RecvStream, headers: &HeaderMap) -> Self {
        let left = if recv.is_end_stream() {
            Some(0)
        } else {
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
        };
        Self { recv, left, data_ended: false, wanted: None }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next piece.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(wanted) = self.wanted.take() {
            wanted.set(true);
        }
        // Every reset is a body that broke off, whatever its code: only the end of the stream is an end.
        let broken = |error: h2::Error| BrokenOff(error.reason());
        if !self.data_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window opens by what was taken out: whoever does not take more holds up this stream only.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(error)))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.recv.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).map_err(broken).transpose())
    }
}
