//! A connection, by TCP or over a Unix socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connection of somebody who connected here.
#[derive(Debug)]
pub enum Stream {
    /// By TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A connection that belongs to no runtime: on its way from the one that accepted it to the one that serves it.
#[derive(Debug)]
pub enum Detached {
    /// By TCP.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    /// Takes it out of this runtime.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Self::Unix(stream) => Detached::Unix(stream.into_std()?),
        })
    }

    /// Takes it into the runtime of the calling task.
    pub fn adopt(detached: Detached) -> io::Result<Self> {
        match detached {
            Detached::Tcp(stream) => {
                let stream = TcpStream::from_std(stream)?;
                // Small answers must not wait for the acknowledgement of earlier ones.
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Detached::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    /// The user at the other end, as the kernel saw it when it connected (`SO_PEERCRED`, unix(7)). By TCP nobody knows.
    pub fn peer_uid(&self) -> io::Result<Option<u32>> {
        match self {
            Self::Tcp(_) => Ok(None),
            Self::Unix(stream) => stream.peer_cred().map(|peer| Some(peer.uid())),
        }
    }

    /// Waits until there are bytes, and shows the first ones without taking them; none at the end of the connection. A
    /// socket is reported readable before it is: only a look tells.
    pub fn poll_peek(&self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_peek(cx, &mut ReadBuf::new(bytes)),
            Self::Unix(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                let look = || Ok(recv(stream, &mut *bytes, RecvFlags::PEEK)?.1);
                match stream.try_io(Interest::READABLE, look) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    looked => return Poll::Ready(looked),
                }
            },
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_look_at_a_unix_socket_waits_for_a_byte_takes_none_and_tells_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::Unix(ours);
        assert!(poll_fn(|cx| Poll::Ready(ours.poll_peek(cx, &mut [0]).is_pending())).await);
        theirs.write_all(b"ab").await.unwrap();
        for _ in 0..2 {
            let mut seen = [0; 3];
            assert_eq!(poll_fn(|cx| ours.poll_peek(cx, &mut seen)).await.unwrap(), 2);
            assert_eq!(&seen, b"ab\0");
        }
        let mut both = [0; 2];
        ours.read_exact(&mut both).await.unwrap();
        assert_eq!(&both, b"ab");
        drop(theirs);
        assert_eq!(poll_fn(|cx| ours.poll_peek(cx, &mut [0])).await.unwrap(), 0);
    }
}
