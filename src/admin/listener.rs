//! What a connection to the admin port may cost. The server behind it has no limits of its own, and this port may face a
//! whole network: scrapes that never read and heads that never end must not pile up.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{self as tokio_io, AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{self, Instant, Sleep},
};

use super::{
    Port,
    seats::{Seat, Seats},
};
use crate::listen::{Listen, Stream};

/// Connections at once; a further one takes the place of one that is silent.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may stand still.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// How long it may live, however busy it looks. Whoever scrapes connects again.
const MAX_AGE: Duration = Duration::from_secs(60);
/// How many bytes may be read from it: hundreds of requests of a probe.
const MAX_BYTES: usize = 128 * 1024;
/// After an accept that failed, for want of file descriptors for example.
const PAUSE: Duration = Duration::from_millis(50);

/// The answer to somebody whose user id is not allowed.
const PEER_REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 39\r\n\
    connection: close\r\n\r\nthis user may not connect to this port\n";

/// A listener whose connections are bounded.
pub(super) struct Bounded {
    port: Port,
    seats: Seats,
}

impl Bounded {
    pub(super) fn new(port: Port) -> Self {
        Self { port, seats: Seats::new(MAX_CONNECTIONS) }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection<Stream>;
    // Where it came to: of whom it came from, only the user of a Unix socket is known.
    type Addr = Listen;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let stream = match self.port.listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "the admin port could not accept");
                    time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Only now: nobody has to make room for somebody who is not there.
            let seat = self.seats.take().await;
            let is_allowed = stream.peer_uid().is_ok_and(|uid| self.port.rules.allow(uid));
            let connection = Connection::new(stream, seat);
            if is_allowed {
                return (connection, self.port.address.clone());
            }
            tokio::spawn(refuse(connection));
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.port.address.clone())
    }
}

/// Tells somebody who must not be here, and waits until that is read: closing with unread bytes would reset the connection,
/// and the answer with it. The limits of the connection end this.
async fn refuse(mut connection: Connection<Stream>) -> io::Result<()> {
    connection.write_all(PEER_REFUSED).await?;
    connection.shutdown().await?;
    tokio_io::copy(&mut connection, &mut tokio_io::sink()).await.map(drop)
}

/// A connection that ends by itself.
pub(super) struct Connection<S> {
    stream: S,
    seat: Arc<Seat>,
    bytes_left: usize,
    end: Instant,
    // Boxed, because a `Sleep` must not move once polled and the server wants streams that can.
    silence: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    fn new(stream: S, seat: Arc<Seat>) -> Self {
        let silence = Box::pin(time::sleep(MAX_SILENCE));
        Self { stream, seat, bytes_left: MAX_BYTES, end: Instant::now() + MAX_AGE, silence }
    }

    /// Something moved: the connection may stand still again, but not live longer.
    fn moved(&mut self) {
        let until = (Instant::now() + MAX_SILENCE).min(self.end);
        self.silence.as_mut().reset(until);
    }

    fn stood_still<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.silence.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // An end without an error: between two requests that is an ordinary close.
        if this.bytes_left == 0 || Instant::now() >= this.end || this.seat.poll_must_go(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                // The last read may go beyond the limit, by no more than the server's buffer.
                this.bytes_left = this.bytes_left.saturating_sub(buffer.filled().len() - before);
                this.seat.read();
                this.moved();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.stood_still(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.seat.poll_must_go(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                this.moved();
                this.seat.written();
                Poll::Ready(written)
            }
            Poll::Pending => {
                this.seat.is_not_read();
                this.stood_still(cx)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair(size: usize) -> (Connection<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(size);
        let seat = Seats::new(1).try_take().unwrap();
        (Connection::new(ours, seat), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_sends_nothing_is_let_go_after_ten_seconds() {
        let (mut ours, _theirs) = pair(64);
        let start = Instant::now();
        let error = ours.read_u8().await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_read_is_let_go_after_ten_seconds() {
        let (mut ours, _theirs) = pair(64);
        let start = Instant::now();
        let error = ours.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_after_a_minute() {
        let (mut ours, mut theirs) = pair(64);
        let trickle = tokio::spawn(async move {
            while theirs.write_u8(b'x').await.is_ok() {
                time::sleep(Duration::from_secs(9)).await;
            }
        });
        let start = Instant::now();
        while ours.read_u8().await.is_ok() {}
        assert!((54..=60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        drop(ours);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_sends_without_end_is_cut_off() {
        let (mut ours, mut theirs) = pair(MAX_BYTES * 2);
        theirs.write_all(&vec![b'x'; MAX_BYTES * 2]).await.unwrap();
        let mut part = [0; 1024];
        let mut read = 0;
        while let Ok(some @ 1..) = ours.read(&mut part).await {
            read += some;
        }
        assert_eq!(read, MAX_BYTES);
    }
}
