//! The body of an answer, streamed; it ties what it comes on to the answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    caller::InFlight,
    inflow::BrokenOff,
    pipe::Pipe,
    route::Injected,
    trailers,
    upgrade::Tunnel,
    upstream::{Arrived, Lease},
};
use crate::token::Current;

/// Why a body broke off. The connection is closed, or the stream reset, so that what is truncated looks truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the caller's body broke off")]
    Caller,
    /// With the code that an HTTP/2 upstream gave.
    #[error("the upstream's body broke off")]
    Upstream(Option<h2::Reason>),
}

/// A body whose other side may need something meanwhile.
pub(super) trait Alongside {
    /// Goes on with what the upstream is still being sent, while the caller takes nothing of the answer: it may do so only
    /// when it has sent everything.
    fn poll_upload(&mut self, _cx: &mut Context<'_>) {}
}

impl Alongside for AnswerBody {
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Content::Upstream(Some(lease)) = &mut self.content {
            lease.poll_upload(cx);
        }
    }
}

/// The body of an answer on its way to the caller.
#[derive(Debug)]
pub(super) struct AnswerBody {
    content: Content,
    // The token that must not come back in one.
    passes_trailers: Option<Injected>,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Upstream(Option<Lease>),
    /// The upstream's on a stream, until its end.
    Stream(Option<Arrived>),
    /// There is none: the connection has switched. Waits here until the caller's side is free.
    Tunnel(Option<Box<Tunnel>>),
    /// The upstream broke off, and the caller is yet to be told.
    Broken(Option<h2::Reason>),
}

impl AnswerBody {
    /// attaché's own.
    pub(super) fn own(bytes: Bytes) -> Self {
        Self::of(Content::Own(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// The upstream's, with the connection that it comes on.
    pub(super) fn upstream(lease: Lease) -> Self {
        Self::of(Content::Upstream(Some(lease)))
    }

    /// The upstream's, with the stream that it comes on.
    pub(super) fn stream(arrived: Arrived) -> Self {
        Self::of(Content::Stream(Some(arrived)))
    }

    /// The upstream's 101, with the connection that it came on.
    pub(super) fn switched(tunnel: Box<Tunnel>) -> Self {
        Self::of(Content::Tunnel(Some(tunnel)))
    }

    fn of(content: Content) -> Self {
        Self { content, passes_trailers: None, in_flight: None }
    }

    /// Lets trailers through, unless they show this token.
    pub(super) fn pass_trailers(&mut self, token: Injected) {
        self.passes_trailers = Some(token);
    }

    /// Takes out the tunnel, and the end of the request with it.
    pub(super) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        let Content::Tunnel(tunnel) = &mut self.content else { return None };
        let mut tunnel = tunnel.take()?;
        tunnel.ends(self.in_flight.take());
        Some(tunnel)
    }

    /// Ties the end of the request to the end of this body.
    pub(super) fn ends(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    /// Whether nothing of it is awaited any more.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.content, Content::Own(_) | Content::Upstream(None) | Content::Stream(None))
    }

    /// How much is still to come that the kernel can move, if it can.
    pub(super) fn pours(&self) -> Option<u64> {
        match &self.content {
            Content::Upstream(Some(lease)) => lease.pours(),
            _ => None,
        }
    }

    /// Moves some of it into a pipe; 0 when it has to be read.
    pub(super) fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<usize> {
        let Content::Upstream(Some(lease)) = &mut self.content else { return Poll::Ready(0) };
        let count = ready!(lease.poll_pour(pipe, cx));
        self.content.finish_if_complete();
        Poll::Ready(count)
    }

    /// Gives the connection back if the body is complete already.
    pub(super) fn finish_if_complete(&mut self) {
        self.content.finish_if_complete();
    }
}

impl Content {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tunnel(_) | Self::Stream(None) | Self::Upstream(None) => Poll::Ready(None),
            Self::Stream(Some(stream)) => stream.0.poll_frame(cx),
            Self::Broken(code) => Poll::Ready(Some(Err(BrokenOff(*code)))),
            Self::Upstream(Some(lease)) => lease.poll_frame(cx),
        }
    }

    fn finish_if_complete(&mut self) {
        let complete = match self {
            Self::Upstream(Some(lease)) => lease.is_complete(),
            Self::Stream(Some(stream)) => stream.0.is_end_stream(),
            _ => false,
        };
        if complete {
            self.finish();
        }
    }

    /// Gives back what the body came on.
    fn finish(&mut self) {
        match self {
            Self::Upstream(lease) => {
                if let Some(lease) = lease.take() {
                    lease.finish();
                }
            }
            Self::Stream(stream) => *stream = None,
            _ => {}
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Content::Broken(code) = self.content {
            return Poll::Ready(Some(Err(BodyError::Upstream(code))));
        }
        let frame = match ready!(self.content.poll(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(BrokenOff(code))) => {
                // A reset drops what a stream has not sent yet: a turn later, what came has been sent on.
                self.content = Content::Broken(code);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                self.content.finish();
                return Poll::Ready(None);
            }
        };
        match frame.into_trailers() {
            Err(frame) => {
                self.content.finish_if_complete();
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(mut trailers) => {
                // Nothing comes behind them.
                self.content.finish();
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.ended(&trailers);
                }
                let Some(token) = &self.passes_trailers else { return Poll::Ready(None) };
                trailers::clean_answer(&mut trailers, token.as_ref().map(Current::token));
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Tunnel(_) => true,
            Content::Broken(_) => false,
            Content::Stream(stream) => stream.is_none(),
            Content::Upstream(lease) => lease.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Upstream(Some(lease)) => lease.size_hint(),
            Content::Upstream(None) => SizeHint::with_exact(0),
            Content::Tunnel(_) => SizeHint::with_exact(0),
            Content::Stream(Some(stream)) => stream.0.size_hint(),
            Content::Stream(None) => SizeHint::with_exact(0),
            Content::Broken(_) => SizeHint::default(),
        }
    }
}
