//! Bytes that have come from a socket.

use std::{
    cell::Cell,
    fmt, io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at once: more than most messages.
const ROOM: usize = 8 * 1024;

/// The same of bodies that are larger.
const LARGE: usize = 128 * 1024;

/// Less than this does not keep a large buffer, of which it may be all that is needed for long: it is copied.
const SMALL: usize = LARGE / 4;

/// Less room than this is not worth a read.
const WORTH: usize = 1024;

/// After so many small reads in a row, large ones are no longer expected.
const PATIENCE: u8 = 4;

thread_local! {
    /// A worker's large buffer, whoever uses it next. One that is new each time costs more than the reads that it saves, because
    /// the kernel has to find and clear its pages.
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// What has come and has not been taken yet.
pub(in crate::proxy) struct Inlet {
    pub(in crate::proxy) bytes: BytesMut,
    // `bytes` is a large buffer.
    is_large: bool,
    // How many reads more are to be large ones.
    large: u8,
}

/// Credentials of callers and what upstreams answer pass here: no bytes of them are shown.
impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("waiting", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Inlet {
    pub(in crate::proxy) fn new() -> Self {
        Self { bytes: BytesMut::new(), is_large: false, large: 0 }
    }

    /// Reads once; 0 at the end of the connection.
    pub(in crate::proxy) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() && self.large > 0 {
            if !self.is_large {
                self.bytes = SPARE.take().unwrap_or_default();
                self.is_large = true;
            }
            // In the same place, unless somebody still has a piece of it.
            self.bytes.reserve(LARGE);
        } else if self.bytes.capacity() - self.bytes.len() < WORTH {
            self.bytes.reserve(ROOM);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let count = match pin!(stream.read_buf(&mut self.bytes)).poll(cx) {
            Poll::Ready(Ok(count)) => count,
            other => {
                self.put_back();
                return other;
            }
        };
        if self.is_large && self.bytes.len() < SMALL {
            self.large = self.large.saturating_sub(1);
            let copy = BytesMut::from(&self.bytes[..]);
            self.bytes.clear();
            self.put_back();
            self.bytes = copy;
        } else if self.is_large || count == room {
            self.large = PATIENCE;
        }
        Poll::Ready(Ok(count))
    }

    /// Gives a large buffer back that holds nothing, as when a message is over. The next one is likely to be as large.
    pub(in crate::proxy) fn put_back(&mut self) {
        if self.is_large && self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            self.is_large = false;
            // A head that came slowly may have made it larger than any other message needs.
            if bytes.capacity() <= LARGE {
                SPARE.set(Some(bytes));
            }
        }
    }

    /// What has come, for whoever reads on from here.
    pub(in crate::proxy) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn fill(inlet: &mut Inlet, ours: &mut tokio::io::DuplexStream) -> usize {
        poll_fn(|cx| inlet.poll_fill(ours, cx)).await.unwrap()
    }

    fn waits(inlet: &mut Inlet, ours: &mut tokio::io::DuplexStream) -> bool {
        inlet.poll_fill(ours, &mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn large_messages_are_read_at_once_and_share_a_buffer() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new();
        let mut places = Vec::new();
        for turn in 0..3 {
            theirs.write_all(&vec![b'x'; 60_000]).await.unwrap();
            let mut reads = Vec::new();
            while reads.iter().sum::<usize>() < 60_000 {
                reads.push(fill(&mut inlet, &mut ours).await);
                let piece = inlet.bytes.split().freeze();
                places.push(piece.as_ptr());
            }
            assert_eq!(reads, if turn == 0 { vec![ROOM, 60_000 - ROOM] } else { vec![60_000] });
            assert!(waits(&mut inlet, &mut ours));
            assert_eq!(inlet.bytes.capacity(), 0, "one that waits has none");
        }
        assert!(places[1] == places[2] && places[2] == places[3], "{places:?}");
    }

    #[test]
    fn nothing_of_what_waits_is_shown() {
        let mut inlet = Inlet::new();
        inlet.bytes.extend_from_slice(b"secret");
        assert_eq!(format!("{inlet:?}"), "Inlet { waiting: 6, .. }");
    }

    #[tokio::test]
    async fn little_never_keeps_a_large_buffer() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new();
        theirs.write_all(&[b'x'; ROOM]).await.unwrap();
        fill(&mut inlet, &mut ours).await;
        inlet.bytes.clear();
        for _ in 0..=PATIENCE {
            theirs.write_all(b"head").await.unwrap();
            assert_eq!(fill(&mut inlet, &mut ours).await, 4);
            assert_eq!(inlet.bytes.split(), "head");
            assert!(inlet.bytes.capacity() <= ROOM);
        }
        assert_eq!(inlet.large, 0);
    }
}
