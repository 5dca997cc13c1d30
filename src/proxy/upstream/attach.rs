//! Puts header fields into the heads of requests that the HTTP/2 library has written, on their way to the socket.
//!
//! Of a request's head, the library writes the pseudo-header fields only. It would look every field up in its table, and code every
//! value by Huffman (RFC 7541 §5.2) bit by bit: of a token of 900 bytes that was a third of what a request cost. Here they are copied
//! instead, as literals that are not indexed (§6.2.2, §6.2.3). These may stand at the end of any header block, because they change no
//! table. So the library never meets a token.

use std::{
    fmt,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::{Heads, KEPT};
use crate::proxy::http2::{CONTINUATION, END_HEADERS, FRAME_HEADER_LEN, HEADERS};

/// No peer takes less in a frame (RFC 9113 §4.2).
const MAX_FRAME: usize = 16 * 1024;

/// Payloads that are longer are not copied.
const COPIED: usize = 4 * 1024;

/// No more is taken from the library while so much is on its way. A buffer that has become twice as large is not kept.
const MAX_OUT: usize = 256 * 1024;

/// A stream to an upstream whose frames are completed on their way.
pub(super) struct Attaching<S> {
    stream: S,
    heads: Rc<Heads>,
    // What has come of the header of a frame, and how much is still to come of its payload.
    header: [u8; FRAME_HEADER_LEN],
    header_len: usize,
    payload: usize,
    // The last stream that was begun.
    last: u32,
    // What is added to the header block that is passing, and where.
    literals: Vec<u8>,
    place: Place,
    // What is on its way, and how much of it is written.
    out: Vec<u8>,
    at: usize,
}

/// Tokens pass here: no bytes of them are shown.
impl<S: fmt::Debug> fmt::Debug for Attaching<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, out, at, .. } = self;
        let waiting = out.len() - at;
        f.debug_struct("Attaching").field("stream", stream).field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// Where the literals go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not behind this frame.
    Elsewhere,
    /// Into it.
    Within,
    /// Into frames of its own behind it.
    Behind,
}

impl<S> Attaching<S> {
    pub(super) fn new(stream: S, heads: Rc<Heads>) -> Self {
        Self {
            stream,
            heads,
            header: [0; FRAME_HEADER_LEN],
            // The preface (§3.4) is passed like a payload.
            header_len: 0,
            payload: crate::proxy::http2::PREFACE_LEN,
            last: 0,
            literals: Vec::new(),
            place: Place::Elsewhere,
            out: Vec::new(),
            at: 0,
        }
    }

    /// Takes bytes from the library, up to a long payload or until much is on its way, and tells how many.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() && self.out.len() < MAX_OUT {
            let rest = &bytes[taken..];
            if self.payload > 0 {
                let here = rest.len().min(self.payload);
                if here >= COPIED {
                    break;
                }
                self.out.extend_from_slice(&rest[..here]);
                self.passed(here);
                taken += here;
            } else {
                let here = rest.len().min(FRAME_HEADER_LEN - self.header_len);
                self.header[self.header_len..][..here].copy_from_slice(&rest[..here]);
                self.header_len += here;
                taken += here;
                if self.header_len == FRAME_HEADER_LEN {
                    self.frame()?;
                }
            }
        }
        Ok(taken)
    }

    /// The header of a frame is whole.
    fn frame(&mut self) -> io::Result<()> {
        self.header_len = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == HEADERS {
            let stream = u32::from_be_bytes(stream);
            let has_fields = self.heads.take(stream, &mut self.literals);
            // Every request was given a block, if only an empty one: this one would go out without its fields and its credential.
            if stream > self.last && !has_fields {
                return Err(io::Error::other("the head of a request has no fields"));
            }
            self.last = self.last.max(stream);
        }
        // The library neither pads a header block nor gives it a priority: what ends its last frame ends the block.
        let ends = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
        let whole = length + self.literals.len();
        self.place = if !ends || self.literals.is_empty() {
            Place::Elsewhere
        } else if whole <= MAX_FRAME {
            self.header[..3].copy_from_slice(&(whole as u32).to_be_bytes()[1..]);
            Place::Within
        } else {
            self.header[4] &= !END_HEADERS;
            Place::Behind
        };
        self.out.extend_from_slice(&self.header);
        self.payload = length;
        self.passed(0);
        Ok(())
    }

    /// So much of a payload has gone by.
    fn passed(&mut self, count: usize) {
        self.payload -= count;
        if self.payload > 0 {
            return;
        }
        match mem::replace(&mut self.place, Place::Elsewhere) {
            Place::Elsewhere => return,
            Place::Within => self.out.extend_from_slice(&self.literals),
            Place::Behind => {
                let mut left = self.literals.chunks(MAX_FRAME);
                while let Some(piece) = left.next() {
                    let flags = if left.len() == 0 { END_HEADERS } else { 0 };
                    self.out.extend_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
                    self.out.extend_from_slice(&[CONTINUATION, flags]);
                    self.out.extend_from_slice(&self.header[5..]);
                    self.out.extend_from_slice(piece);
                }
            }
        }
        self.literals.clear();
        self.literals.shrink_to(KEPT);
    }

    /// So much of what is on its way has been written; what is left of the count.
    fn written(&mut self, count: usize) -> usize {
        let ours = count.min(self.out.len() - self.at);
        self.at += ours;
        if self.at == self.out.len() {
            self.at = 0;
            self.out.clear();
            if self.out.capacity() > 2 * MAX_OUT {
                self.out = Vec::new();
            }
        }
        count - ours
    }
}

impl<S: AsyncWrite + Unpin> Attaching<S> {
    /// Writes what is on its way.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.at..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(count);
        }
        Poll::Ready(Ok(()))
    }

    /// The same together with some of a long payload; how much of that was written.
    fn poll_long(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(self.payload)];
        let slices = [IoSlice::new(&self.out[self.at..]), IoSlice::new(bytes)];
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
        let count = self.written(count);
        self.passed(count);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attaching<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        let mut taken = 0;
        for bytes in buffers {
            let here = this.take(bytes)?;
            taken += here;
            if here < bytes.len() {
                return match this.poll_long(&bytes[here..], cx) {
                    Poll::Ready(count) => Poll::Ready(Ok(taken + count?)),
                    Poll::Pending if taken == 0 => Poll::Pending,
                    Poll::Pending => Poll::Ready(Ok(taken)),
                };
            }
        }
        // What cannot be written now is written when the library flushes.
        match this.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attaching<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests;
