//! The bytes of a connection on their way to hyper: passed through unchanged, watched by a [`Scanner`].

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    activity::Activity,
    scan::{Scanner, Side},
};

/// A scanner that the connection feeds and whoever handles its messages asks. Both live on one worker.
pub(super) type SharedScanner = Rc<RefCell<Scanner>>;

/// A connection whose incoming bytes are looked at.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    scanner: SharedScanner,
    // Only the connections of callers are timed by what arrives on them.
    activity: Option<Rc<Activity>>,
}

impl<S> Watched<S> {
    /// The connection of a caller.
    pub(super) fn caller(stream: S, activity: Rc<Activity>) -> (Self, SharedScanner) {
        let scanner = Rc::new(RefCell::new(Scanner::new(Side::Requests)));
        (Self { stream, scanner: Rc::clone(&scanner), activity: Some(activity) }, scanner)
    }

    /// A connection to an upstream.
    pub(super) fn upstream(stream: S) -> (Self, SharedScanner) {
        let scanner = Rc::new(RefCell::new(Scanner::new(Side::Answers)));
        (Self { stream, scanner: Rc::clone(&scanner), activity: None }, scanner)
    }
}

impl<S> Watched<S> {
    /// The connection itself.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, no longer watched: what it carries from here on is not HTTP.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

fn faulty() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what comes must not be read any further")
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.scanner.borrow().fault().is_some() {
            return Poll::Ready(Err(faulty()));
        }
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if read.is_empty() {
            if let (Poll::Ready(Ok(())), true, Some(activity)) = (&polled, room > 0, &self.activity) {
                activity.left();
            }
        } else {
            let mut scanner = self.scanner.borrow_mut();
            let good = scanner.scan(read);
            if let Some(activity) = &self.activity {
                activity.received(scanner.is_within_head());
            }
            if scanner.fault().is_some() {
                // What came before the fault is still good. Nothing at all would look like the end of the connection.
                buffer.set_filled(before + good);
                return Poll::Ready(if good == 0 { Err(faulty()) } else { Ok(()) });
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let (Some(activity), Poll::Ready(Ok(_))) = (&self.activity, &polled) {
            activity.sent();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        // hyper flushes once its own buffer is empty.
        if let (Some(activity), true) = (&self.activity, polled.is_ready()) {
            activity.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection to an upstream.
#[derive(Debug)]
pub(super) enum UpstreamStream {
    /// Plain, to a loopback address unless the operator says otherwise.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsFd for UpstreamStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    // HTTP/2 writes the header of a frame and its payload together.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
