//! The connection of a caller: its socket, and what is on the way in and out.

use std::{
    cell::{RefCell, RefMut},
    io,
    os::fd::AsFd as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, header::EXPECT, request::Parts};
use http_body::Frame;

use super::{
    Buffer, Decoder, Ending, Inlet, Out, Piece,
    head::{self, Malformed, Said},
};
use crate::{
    listen::Stream,
    proxy::{
        activity::Activity,
        inflow::BrokenOff,
        pipe::{self, Pipe},
        presence::{self, Look, Presence},
    },
};

/// A connection, shared by whoever serves its requests and the body of the request under way. Both live in one task, except
/// that a body on its way to an HTTP/2 upstream goes on in another when the answer has begun.
#[derive(Debug)]
pub(in crate::proxy) struct Wire {
    inner: RefCell<Inner>,
    activity: Rc<Activity>,
}

#[derive(Debug)]
pub(super) struct Inner {
    stream: Stream,
    inlet: Inlet,
    out: Out,
    ending: Ending,
    // The body of the request under way, and which request that is.
    pub(super) body: Decoder,
    number: u64,
    // The caller waits with its body until it is asked for it (RFC 9110 §10.1.1).
    waits: bool,
    // What is on its way out belongs to the answer, and whoever writes that is woken when there is room.
    answering: bool,
    leaving: bool,
}

/// Why no request has come.
#[derive(Debug)]
pub(super) enum NoRequest {
    Malformed(Malformed),
    /// The caller has ended or broken off, or is not waited for any longer.
    Closed,
}

impl Wire {
    pub(in crate::proxy) fn new(stream: Stream, activity: Rc<Activity>) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(Inner {
                stream,
                inlet: Inlet::new(Buffer::Requests),
                out: Out::default(),
                ending: Ending::default(),
                body: Decoder::Done,
                number: 0,
                waits: false,
                answering: false,
                leaving: false,
            }),
            activity,
        })
    }

    /// Waits for bytes without taking them; none at the end of the connection.
    pub(in crate::proxy) fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.borrow().stream.poll_peek(cx, bytes)
    }

    /// The socket, and what has been read from it beyond the last request. Nobody else has the connection any more.
    pub(in crate::proxy) fn into_parts(self: Rc<Self>) -> (Stream, Bytes) {
        let wire =
            Rc::into_inner(self).expect("the bodies of requests end before their connection is taken apart");
        let Inner { stream, inlet, .. } = wire.inner.into_inner();
        (stream, inlet.into_bytes())
    }

    /// Whether nothing of a request has come.
    pub(in crate::proxy) fn is_quiet(&self) -> bool {
        let inner = self.inner.borrow();
        inner.inlet.bytes.is_empty() && inner.out.is_empty()
    }

    /// No further request is waited for.
    pub(in crate::proxy) fn leave(&self) {
        self.inner.borrow_mut().leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.inner.borrow().leaving
    }

    /// The head of the next request, into `parts`.
    pub(super) fn poll_head(
        &self,
        max: usize,
        parts: &mut Parts,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Said, NoRequest>> {
        let Inner { stream, inlet, ending, leaving, .. } = &mut *self.inner.borrow_mut();
        loop {
            if !inlet.bytes.is_empty() {
                let apart = inlet.is_large();
                match head::take_request(&mut inlet.bytes, ending, max, apart, parts) {
                    Ok(Some(said)) => {
                        inlet.put_back();
                        return Poll::Ready(Ok(said));
                    }
                    Err(malformed) => return Poll::Ready(Err(NoRequest::Malformed(malformed))),
                    Ok(None) => self.activity.received(!inlet.bytes.is_empty()),
                }
            }
            match inlet.poll_fill(stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(NoRequest::Closed)),
                // A request that is here already is answered also while the process drains.
                Poll::Pending if *leaving && inlet.bytes.is_empty() => {
                    return Poll::Ready(Err(NoRequest::Closed));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// A request has begun; its number, if it has a body.
    pub(super) fn begin(&self, headers: &HeaderMap, body: Decoder) -> Option<u64> {
        let mut inner = self.inner.borrow_mut();
        inner.number += 1;
        inner.answering = false;
        inner.body = body;
        if body.is_done() {
            return None;
        }
        inner.waits = headers.get(EXPECT).is_some_and(|expected| {
            expected.as_bytes().eq_ignore_ascii_case(b"100-continue") && inner.inlet.bytes.is_empty()
        });
        Some(inner.number)
    }

    /// What the body of a request comes on, while the request is the one that the connection carries.
    pub(super) fn during(&self, number: u64) -> Option<(RefMut<'_, Inner>, &Activity)> {
        let inner = self.inner.borrow_mut();
        (inner.number == number).then_some((inner, &*self.activity))
    }

    /// An answer begins: the caller is not asked for its body any more.
    pub(super) fn begin_answer(&self) {
        let mut inner = self.inner.borrow_mut();
        (inner.waits, inner.answering) = (false, true);
    }

    /// What is on its way out.
    pub(super) fn out<T>(&self, write: impl FnOnce(&mut Out) -> T) -> T {
        write(&mut self.inner.borrow_mut().out)
    }

    /// Writes what is on its way out.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().poll_flush(&self.activity, cx)
    }

    /// Whether the kernel can move bytes to this caller.
    pub(super) fn takes_pours(&self) -> bool {
        matches!(self.inner.borrow().stream, Stream::Tcp(_))
    }

    /// Moves what is on its way out into a pipe, behind which the kernel moves more; false when that is too much, or fails.
    pub(super) fn pour_out(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> bool {
        let out = &mut self.inner.borrow_mut().out;
        out.len() <= pipe::OWN && matches!(out.poll_flush(pipe, &mut 0, cx), Poll::Ready(Ok(())))
    }

    /// Moves bytes from a pipe to the caller.
    pub(super) fn poll_drain(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Stream::Tcp(stream) = &self.inner.borrow().stream else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let drained = pipe.poll_drain(stream, cx);
        match drained {
            Poll::Pending => self.activity.stalls(),
            Poll::Ready(Ok(_)) => self.activity.sent(),
            Poll::Ready(Err(_)) => {}
        }
        drained
    }

    /// Says that nothing more is written.
    pub(in crate::proxy) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        use tokio::io::AsyncWrite as _;
        Pin::new(&mut self.inner.borrow_mut().stream).poll_shutdown(cx)
    }
}

impl Inner {
    fn poll_flush(&mut self, activity: &Activity, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let flushed = self.out.poll_flush(&mut self.stream, &mut written, cx);
        if written > 0 {
            activity.sent();
        }
        if flushed.is_pending() {
            activity.stalls();
        }
        flushed
    }

    /// The next piece of the body of the request under way.
    pub(super) fn poll_body(
        &mut self,
        activity: &Activity,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if std::mem::take(&mut self.waits) {
            self.out.buffer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        loop {
            let taken = self.body.take(&mut self.inlet.bytes);
            self.inlet.put_back();
            match taken {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Err(_) => return Poll::Ready(Some(Err(BrokenOff(None)))),
                Ok(Piece::More) => {}
            }
            // The question for the body. Not an answer that has begun: towards HTTP/2 an upload has a task of its own, which
            // would be woken in place of the one that writes the answer.
            let asks = !self.answering && !self.out.is_empty();
            if asks && matches!(self.poll_flush(activity, cx), Poll::Ready(Err(_))) {
                return Poll::Ready(Some(Err(BrokenOff(None))));
            }
            match ready!(self.inlet.poll_fill(&mut self.stream, cx)) {
                Ok(1..) => {}
                Ok(0) => {
                    activity.left();
                    return Poll::Ready(Some(Err(BrokenOff(None))));
                }
                Err(_) => return Poll::Ready(Some(Err(BrokenOff(None)))),
            }
        }
    }
}

impl Look for Wire {
    fn presence(&self) -> Presence {
        presence::presence(self.inner.borrow().stream.as_fd())
    }

    fn keep_alive(&self) {
        presence::keep_alive(self.inner.borrow().stream.as_fd());
    }

    fn abort(&self) {
        presence::abort(self.inner.borrow().stream.as_fd());
    }
}

mod rest;
#[cfg(test)]
mod tests;
