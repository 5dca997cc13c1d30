//! WebSocket over HTTP/1.1 (RFC 6455): the one upgrade that is forwarded, and the tunnel that it leads to.
//!
//! 1. [`is_wanted`]: a GET over HTTP/1.1 without a body that asks for `websocket`. Of every other request the `Upgrade`
//!    field is dropped, as of any hop.
//! 2. [`ask`] puts the two fields of the hop on, behind everything that was stripped.
//! 3. [`is_granted`]: only a 101 that names `websocket` makes a tunnel; any other answer is an ordinary one.
//! 4. A [`Tunnel`] holds the upstream's connection while the 101 is written to the caller; then it copies bytes, both
//!    ways, beginning with those that arrived behind the heads.

use std::{
    io,
    os::fd::AsFd as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{CONNECTION, UPGRADE},
    request::Parts,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::{
    caller::InFlight,
    hop, presence,
    upstream::{Permit, UpstreamStream},
};

/// What is copied at once, each way. A sidecar may hold many quiet tunnels.
const CHUNK: usize = 8 * 1024;

/// Whether a request asks for what may be granted: in every other form a tunnel would carry what nobody has looked at.
pub(super) fn is_wanted(parts: &Parts, has_body: bool) -> bool {
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && !has_body
        && names_websocket(&parts.headers)
        && hop::lists(&parts.headers, &CONNECTION, b"upgrade")
}

/// Whether the upstream has switched to what was asked for.
pub(super) fn is_granted(answer: &HeaderMap) -> bool {
    names_websocket(answer)
}

/// Whether `Upgrade` names `websocket` and nothing else: of a choice it would not be plain what was made.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(UPGRADE).iter();
    let first = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"websocket"));
    first && lines.next().is_none()
}

/// Asks for the upgrade, or tells of it.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The upstream's side of a connection that has switched.
#[derive(Debug)]
pub(super) struct Tunnel {
    upstream: Rewound<UpstreamStream>,
    // It counts among the upstream's connections as long as it lives.
    _permit: Permit,
    in_flight: Option<InFlight>,
}

impl Tunnel {
    /// `early` is what came behind the upstream's 101.
    pub(super) fn new(upstream: UpstreamStream, early: Bytes, permit: Permit) -> Box<Self> {
        let upstream = Rewound { early, stream: upstream };
        Box::new(Self { upstream, _permit: permit, in_flight: None })
    }

    /// The request is over when the tunnel is.
    pub(super) fn ends(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight;
    }

    /// Copies until both sides have ended, or one has broken off, which is an error. `early` is what came behind the
    /// caller's request. A tunnel may be quiet for as long as both sides live: the kernel asks whether they do.
    pub(super) async fn run(
        mut self,
        caller: impl AsyncRead + AsyncWrite + Unpin,
        early: Bytes,
    ) -> io::Result<()> {
        let mut caller = Rewound { early, stream: caller };
        // An end passes from one side to the other, and leaves the other direction open.
        let copied = copy_bidirectional_with_sizes(&mut caller, &mut self.upstream, CHUNK, CHUNK).await;
        if copied.is_err() {
            // What broke off on one side breaks off on the other.
            presence::abort(self.upstream.stream.as_fd());
        }
        copied.map(drop)
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
