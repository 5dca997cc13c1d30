//! Both sides of a connection that has switched.

use std::{
    io,
    os::fd::AsFd as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use h2::SendStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::carry;
use crate::proxy::{
    caller::InFlight,
    inflow::Inflow,
    presence,
    upstream::{Permit, Seat, UpstreamStream},
};

/// What is copied at once, each way. A sidecar may hold many quiet tunnels.
pub(super) const CHUNK: usize = 8 * 1024;

/// The upstream's side of a connection that has switched, and what waits for the caller's.
#[derive(Debug)]
pub(in crate::proxy) struct Tunnel {
    upstream: Upstream,
    // What a caller of HTTP/2 sends.
    caller: Option<Inflow>,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Upstream {
    /// It counts among the upstream's connections as long as it lives.
    Connection(Rewound<UpstreamStream>, Permit),
    /// It counts among the streams of its connection as long as it lives.
    Stream(Inflow, SendStream<Bytes>, Seat),
}

impl Tunnel {
    /// `early` is what came behind the upstream's 101.
    pub(in crate::proxy) fn new(upstream: UpstreamStream, early: Bytes, permit: Permit) -> Box<Self> {
        Self::to(Upstream::Connection(Rewound { early, stream: upstream }, permit))
    }

    /// Over a stream of HTTP/2.
    pub(super) fn stream(inflow: Inflow, send: SendStream<Bytes>, seat: Seat) -> Box<Self> {
        Self::to(Upstream::Stream(inflow, send, seat))
    }

    fn to(upstream: Upstream) -> Box<Self> {
        Box::new(Self { upstream, caller: None, in_flight: None })
    }

    /// The caller speaks HTTP/2, and this is what it sends.
    pub(super) fn hears(&mut self, caller: Inflow) {
        self.caller = Some(caller);
    }

    /// The request is over when the tunnel is.
    pub(in crate::proxy) fn ends(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight;
    }

    /// Copies until both sides have ended, or one has broken off, which is an error. `early` is what came behind the
    /// caller's request. A tunnel may be quiet for as long as both sides live: the kernel asks whether they do.
    pub(in crate::proxy) async fn run(
        self,
        caller: impl AsyncRead + AsyncWrite + Unpin,
        early: Bytes,
    ) -> io::Result<()> {
        let Self { upstream, in_flight: _in_flight, .. } = self;
        let mut caller = Rewound { early, stream: caller };
        match upstream {
            Upstream::Connection(mut upstream, _permit) => {
                // An end passes from one side to the other, and leaves the other direction open.
                let copied = copy_bidirectional_with_sizes(&mut caller, &mut upstream, CHUNK, CHUNK).await;
                if copied.is_err() {
                    // What broke off on one side breaks off on the other.
                    presence::abort(upstream.stream.as_fd());
                }
                copied.map(drop)
            }
            Upstream::Stream(inflow, send, _seat) => carry::bridge(caller, inflow, send).await,
        }
    }

    /// The same with a caller that speaks HTTP/2.
    pub(in crate::proxy) async fn run_on_stream(self, send: SendStream<Bytes>) -> io::Result<()> {
        let Self { upstream, caller, in_flight: _in_flight } = self;
        let caller = caller.ok_or_else(carry::broken)?;
        match upstream {
            Upstream::Connection(mut upstream, _permit) => {
                let carried = carry::bridge(&mut upstream, caller, send).await;
                if carried.is_err() {
                    presence::abort(upstream.stream.as_fd());
                }
                carried
            }
            Upstream::Stream(inflow, upstream, _seat) => carry::join(caller, send, inflow, upstream).await,
        }
    }
}

/// A stream, some of which has been read already.
#[derive(Debug)]
struct Rewound<S> {
    early: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..count]);
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
