//! A tunnel of which at least one side is a stream of HTTP/2 (RFC 8441 §5): the end of a direction is END_STREAM, whatever breaks off
//! is RST_STREAM with CANCEL.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::{Reason, SendStream};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::CHUNK;
use crate::proxy::{
    body::{Alongside, BodyError},
    http2::{Broken, Pump},
    inflow::Inflow,
};

/// One side of the tunnel has broken off.
pub(super) fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "a tunnel broke off")
}

/// Carries bytes between a connection and a stream until both directions have ended.
pub(super) async fn bridge(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    inflow: Inflow,
    send: SendStream<Bytes>,
) -> io::Result<()> {
    let (read, write) = tokio::io::split(connection);
    let mut out = Direction::new(Pump::new(Reading(read), send));
    let mut into = Writing { inflow, write, rest: Bytes::new(), done: false };
    poll_fn(|cx| {
        let carried = into.poll(cx);
        if !matches!(carried, Poll::Ready(Err(_))) {
            match (out.poll(cx), carried) {
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
                (Poll::Ready(Err(_)), _) => {}
                _ => return Poll::Pending,
            }
        }
        out.pump.reset(Reason::CANCEL);
        Poll::Ready(Err(broken()))
    })
    .await
}

/// Carries bytes between two streams until both directions have ended.
pub(super) async fn join(
    caller: Inflow,
    to_caller: SendStream<Bytes>,
    upstream: Inflow,
    to_upstream: SendStream<Bytes>,
) -> io::Result<()> {
    let mut up = Direction::new(Pump::new(Hearing(caller), to_upstream));
    let mut down = Direction::new(Pump::new(Hearing(upstream), to_caller));
    poll_fn(|cx| {
        match (up.poll(cx), down.poll(cx)) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            // What the upstream said before it broke off is still told: its direction ends by itself, and soon.
            (Poll::Ready(_), Poll::Ready(_)) | (_, Poll::Ready(Err(_))) => {}
            (Poll::Ready(Err(Broken::Body)), Poll::Pending) => {}
            _ => return Poll::Pending,
        }
        for direction in [&mut up, &mut down] {
            direction.pump.reset(Reason::CANCEL);
        }
        Poll::Ready(Err(broken()))
    })
    .await
}

/// A pump that may be polled after its end.
struct Direction<B> {
    pump: Pump<B>,
    ended: Option<Result<(), Broken>>,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Alongside + Unpin> Direction<B> {
    fn new(pump: Pump<B>) -> Self {
        Self { pump, ended: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.ended.is_none() {
            self.ended = Some(ready!(self.pump.poll(cx)));
        }
        self.ended.map_or(Poll::Pending, Poll::Ready)
    }
}

/// What is read from a connection, as a body.
struct Reading<R>(R);

impl<R: AsyncRead + Unpin> Body for Reading<R> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // On the stack, and copied: a quiet tunnel holds no buffer.
        let mut room = [MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut room);
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer));
        Poll::Ready(match (read, buffer.filled()) {
            (Err(_), _) => Some(Err(BodyError::Caller)),
            (Ok(()), []) => None,
            (Ok(()), bytes) => Some(Ok(Frame::data(Bytes::copy_from_slice(bytes)))),
        })
    }
}

impl<R> Alongside for Reading<R> {}

/// What comes on a stream, as a body without trailers: a tunnel has none.
struct Hearing(Inflow);

impl Alongside for Hearing {}

impl Body for Hearing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => frame.into_data().ok().map(|data| Ok(Frame::data(data))),
            Some(Err(_)) => Some(Err(BodyError::Caller)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// What comes on a stream, on its way into a connection.
struct Writing<W> {
    inflow: Inflow,
    write: W,
    rest: Bytes,
    done: bool,
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.done {
            while !self.rest.is_empty() {
                let count = ready!(Pin::new(&mut self.write).poll_write(cx, &self.rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.rest.advance(count);
            }
            match Pin::new(&mut self.inflow).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(broken())),
                Poll::Ready(None) => {
                    ready!(Pin::new(&mut self.write).poll_shutdown(cx))?;
                    self.done = true;
                }
                Poll::Pending => {
                    // TLS keeps what it has been given until it is told to send it.
                    let _ = Pin::new(&mut self.write).poll_flush(cx)?;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
