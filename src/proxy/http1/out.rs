//! Bytes on their way to a socket.

use std::{
    cell::Cell,
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Smaller pieces than this are copied behind what waits already: that costs less than a second slice for the kernel.
const COPIED: usize = 4 * 1024;

/// More than this is written before more is taken.
const ENOUGH: usize = 32 * 1024;

/// A buffer that once held more than this is not kept.
const KEPT: usize = 16 * 1024;

thread_local! {
    /// A worker's buffer, whoever writes next: most often all of a message is written at once, and then one buffer, which stays
    /// in the processor's cache, is enough for all connections.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What waits to be written, in order: copied bytes, one large piece that is not copied, and what ends it.
#[derive(Default)]
pub(in crate::proxy) struct Out {
    copied: Vec<u8>,
    // How much of `copied` is written.
    at: usize,
    large: Bytes,
    tail: &'static [u8],
    // What was written may still be in a buffer of the stream's own: TLS has one.
    unflushed: bool,
}

/// Tokens pass here: no bytes of them are shown.
impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

impl Out {
    /// Whether everything is written, and has left the stream too.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        !self.unflushed && self.is_taken()
    }

    /// Whether the stream has taken everything.
    fn is_taken(&self) -> bool {
        self.at == self.copied.len() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Whether it should be written before more is taken.
    pub(in crate::proxy) fn is_full(&self) -> bool {
        !self.large.is_empty() || !self.tail.is_empty() || self.copied.len() - self.at > ENOUGH
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.copied.len() - self.at + self.large.len() + self.tail.len()
    }

    /// Where heads and the like are written. Only as long as there is no large piece, which would come before it.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.large.is_empty() && self.tail.is_empty(), "written before what comes first");
        if self.copied.capacity() == 0 {
            self.copied = SPARE.take();
        }
        &mut self.copied
    }

    /// A piece of a body, and what ends it.
    pub(super) fn piece(&mut self, piece: Bytes, tail: &'static [u8]) {
        if piece.len() < COPIED {
            let buffer = self.buffer();
            buffer.extend_from_slice(&piece);
            buffer.extend_from_slice(tail);
        } else {
            self.large = piece;
            self.tail = tail;
        }
    }

    /// Moves what waits to a place in memory.
    #[cfg(fuzzing)]
    pub(in crate::proxy) fn drain(&mut self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.copied[self.at..]);
        into.extend_from_slice(&self.large);
        into.extend_from_slice(self.tail);
        *self = Self::default();
    }

    /// Writes as much as can be, and tells how much that was. Ready when nothing is left.
    pub(in crate::proxy) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        written: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_taken() {
            let copied = &self.copied[self.at..];
            let count = if self.large.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, copied))?
            } else {
                let slices = [IoSlice::new(copied), IoSlice::new(&self.large), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
            self.unflushed = true;
            self.advance(count);
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        let step = count.min(self.copied.len() - self.at);
        self.at += step;
        count -= step;
        if self.at == self.copied.len() {
            self.at = 0;
            let mut buffer = std::mem::take(&mut self.copied);
            if (1..=KEPT).contains(&buffer.capacity()) {
                buffer.clear();
                SPARE.set(buffer);
            }
        }
        let step = count.min(self.large.len());
        self.large.advance(step);
        count -= step;
        self.tail = &self.tail[count..];
        if self.large.is_empty() {
            // Not even an empty slice of what it was a part of, which would keep it.
            self.large = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::proxy::http1::Length;

    #[tokio::test]
    async fn what_waits_is_written_in_order_however_little_is_taken_at_once() {
        for room in [1, 7, 100, 1 << 20] {
            let (mut ours, mut theirs) = tokio::io::duplex(room);
            let reading = tokio::spawn(async move {
                let mut all = Vec::new();
                theirs.read_to_end(&mut all).await.unwrap();
                all
            });
            let (mut out, mut length, mut written) = (Out::default(), Length::Chunked, 0);
            out.buffer().extend_from_slice(b"head\r\n\r\n");
            for size in [3, COPIED, 1] {
                let piece = Bytes::from(vec![b'x'; size]);
                length.piece(piece, &mut out).unwrap();
                std::future::poll_fn(|cx| out.poll_flush(&mut ours, &mut written, cx)).await.unwrap();
            }
            length.end(&http::HeaderMap::new(), &mut out).unwrap();
            std::future::poll_fn(|cx| out.poll_flush(&mut ours, &mut written, cx)).await.unwrap();
            assert!(out.is_empty() && length.is_over());
            drop(ours);
            let expected = format!(
                "head\r\n\r\n3\r\nxxx\r\n{COPIED:x}\r\n{}\r\n1\r\nx\r\n0\r\n\r\n",
                "x".repeat(COPIED)
            );
            let all = reading.await.unwrap();
            assert_eq!((String::from_utf8(all).unwrap(), written), (expected.clone(), expected.len()));
        }
    }

    /// Takes everything, and keeps it for a while, as TLS does.
    struct Keeping {
        kept: bool,
    }

    impl AsyncWrite for Keeping {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if std::mem::take(&mut self.kept) { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_stream_keeps_for_a_while_is_not_written_yet() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut out, mut stream, mut written) = (Out::default(), Keeping { kept: true }, 0);
        out.piece(Bytes::from_static(b"the end"), b"");
        assert!(out.poll_flush(&mut stream, &mut written, &mut cx).is_pending());
        assert!(written == 7 && !out.is_empty());
        assert!(out.poll_flush(&mut stream, &mut written, &mut cx).is_ready());
        assert!(written == 7 && out.is_empty());
    }

    #[test]
    fn nothing_of_what_waits_is_shown() {
        let mut out = Out::default();
        out.buffer().extend_from_slice(b"secret");
        assert_eq!(format!("{out:?}"), "Out { waiting: 6, .. }");
    }

    #[test]
    fn a_body_that_is_not_as_long_as_it_was_said_is_not_written() {
        let mut out = Out::default();
        let mut length = Length::Exact(3);
        length.piece(Bytes::from_static(b"ab"), &mut out).unwrap();
        assert!(length.piece(Bytes::from_static(b"cd"), &mut out).is_err());
        assert!(Length::Exact(1).end(&http::HeaderMap::new(), &mut out).is_err());
        assert!(Length::None.piece(Bytes::from_static(b"a"), &mut out).is_err());
        assert_eq!(out.buffer(), b"ab");
    }
}
