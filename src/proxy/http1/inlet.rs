//! Bytes that have come from a socket.

use std::{
    cell::Cell,
    fmt, io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at once: more than most messages.
const ROOM: usize = 8 * 1024;

/// The same of bodies that are larger.
const LARGE: usize = 128 * 1024;

/// Less than this does not keep a large buffer, of which it may be all that is needed for long: it is copied.
const SMALL: usize = LARGE / 4;

/// What is read of a message whose body is expected to be moved by the kernel: more than most heads.
const HEAD: usize = 1024;

/// Less room than this is not worth a further read.
const WORTH: usize = 1024;

/// After so many small reads in a row, large ones are no longer expected.
const PATIENCE: u8 = 4;

/// A worker's buffers.
///
/// They are not each connection's: what a few hundred connections read into one after the other fits the processor's cache, and a
/// buffer for each of them does not. A request stays in its buffer until it is answered, and the next one follows behind it; an
/// answer is most often written before the next is read, which takes its place. So they have one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Buffer {
    Requests,
    Answers,
    /// For large bodies. One that is new each time costs more than the reads that it saves, because the kernel has to find and
    /// clear its pages.
    Large,
}

thread_local! {
    /// Those that nobody reads into just now.
    static SPARE: [Cell<Option<BytesMut>>; 3] = const { [const { Cell::new(None) }; 3] };
}

/// What has come and has not been taken yet.
pub(in crate::proxy) struct Inlet {
    pub(in crate::proxy) bytes: BytesMut,
    // Which buffer of the worker `bytes` are, unless they are one of their own.
    buffer: Option<Buffer>,
    // Which one it is when no large ones are expected.
    usual: Buffer,
    // How many reads more are to be large ones.
    expected: u8,
    // The next one is to be of a head alone.
    heads: bool,
}

/// Credentials of callers and what upstreams answer pass here: no bytes of them are shown.
impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("waiting", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Inlet {
    /// Reads into this buffer.
    pub(in crate::proxy) fn new(usual: Buffer) -> Self {
        Self { bytes: BytesMut::new(), buffer: None, usual, expected: 0, heads: false }
    }

    /// Reads once; 0 at the end of the connection.
    pub(in crate::proxy) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            self.make_room();
        } else if self.bytes.capacity() - self.bytes.len() < WORTH {
            self.put_back();
            // It may become larger than any other message needs, so it goes with this one.
            self.bytes.reserve(ROOM);
            self.buffer = None;
        }
        let most = if self.heads { HEAD } else { usize::MAX };
        let room = (self.bytes.capacity() - self.bytes.len()).min(most);
        let count = match pin!(stream.read_buf(&mut (&mut self.bytes).limit(most))).poll(cx) {
            Poll::Ready(Ok(count @ 1..)) => {
                self.heads = false;
                count
            }
            other => {
                self.put_back();
                return other;
            }
        };
        if self.is_large() && self.bytes.len() < SMALL {
            self.expected = self.expected.saturating_sub(1);
            self.put_back();
        } else if self.is_large() || (count == room && room >= ROOM) {
            self.expected = PATIENCE;
        }
        Poll::Ready(Ok(count))
    }

    /// Whether it reads into the large buffer.
    pub(in crate::proxy) fn is_large(&self) -> bool {
        self.buffer == Some(Buffer::Large)
    }

    /// What is large does not come this way: of the next message, too, its head is expected.
    pub(in crate::proxy) fn expect_heads(&mut self) {
        (self.expected, self.heads) = (0, true);
        self.put_back();
    }

    /// Room to read into, while nothing waits.
    fn make_room(&mut self) {
        let (buffer, room) = if self.expected > 0 { (Buffer::Large, LARGE) } else { (self.usual, ROOM) };
        if self.buffer != Some(buffer) {
            self.put_back();
            self.bytes = SPARE.with(|spare| spare[buffer as usize].take()).unwrap_or_default();
            self.buffer = Some(buffer);
        }
        // From its beginning, unless somebody still has a piece of it. Then the next message goes behind that, if there is room
        // worth a read.
        if !self.bytes.try_reclaim(room) && self.bytes.capacity() < room / 2 {
            self.bytes.reserve(room);
        }
    }

    /// Gives back a buffer that holds nothing, as when a message has been taken, and a large one that holds little.
    pub(in crate::proxy) fn put_back(&mut self) {
        let is_little = self.is_large() && self.bytes.len() < SMALL;
        if self.bytes.is_empty() || is_little {
            let mut bytes = std::mem::take(&mut self.bytes);
            if is_little {
                self.bytes = BytesMut::from(&bytes[..]);
                bytes.clear();
            }
            if let Some(buffer) = self.buffer.take() {
                SPARE.with(|spare| spare[buffer as usize].set(Some(bytes)));
            }
        }
    }

    /// What has come, for whoever reads on from here.
    pub(in crate::proxy) fn into_bytes(self) -> Bytes {
        // Nothing is not a piece of a buffer.
        if self.bytes.is_empty() { Bytes::new() } else { self.bytes.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    // Each test has a thread of its own, and so its own buffers.
    async fn fill(inlet: &mut Inlet, ours: &mut tokio::io::DuplexStream) -> usize {
        poll_fn(|cx| inlet.poll_fill(ours, cx)).await.unwrap()
    }

    fn waits(inlet: &mut Inlet, ours: &mut tokio::io::DuplexStream) -> bool {
        inlet.poll_fill(ours, &mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn large_messages_are_read_at_once_and_share_a_buffer() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new(Buffer::Answers);
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

    #[tokio::test]
    async fn a_large_buffer_that_is_read_full_is_used_again() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new(Buffer::Answers);
        inlet.expected = PATIENCE;
        let mut places = Vec::new();
        for _ in 0..3 {
            theirs.write_all(&[b'x'; LARGE]).await.unwrap();
            assert_eq!(fill(&mut inlet, &mut ours).await, LARGE);
            places.push(inlet.bytes.split().as_ptr());
        }
        assert!(places[0] == places[1] && places[1] == places[2], "{places:?}");
        inlet.put_back();
        assert!(SPARE.with(|spare| spare[Buffer::Large as usize].take()).is_some());
    }

    #[tokio::test]
    async fn what_is_held_of_large_messages_shares_a_buffer_as_long_as_half_of_it_is_left() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut inlet = Inlet::new(Buffer::Requests);
            inlet.expected = PATIENCE;
            theirs.write_all(&[b'x'; LARGE / 2]).await.unwrap();
            fill(&mut inlet, &mut ours).await;
            held.push(inlet.bytes.split().freeze());
            inlet.put_back();
        }
        let [one, two, three] = [0, 1, 2].map(|number: usize| held[number].as_ptr() as usize);
        assert_eq!(two - one, LARGE / 2);
        assert!(!(one..one + LARGE).contains(&three));
    }

    #[test]
    fn nothing_of_what_waits_is_shown() {
        let mut inlet = Inlet::new(Buffer::Answers);
        inlet.bytes.extend_from_slice(b"secret");
        assert_eq!(format!("{inlet:?}"), "Inlet { waiting: 6, .. }");
    }

    #[tokio::test]
    async fn small_messages_share_a_buffer_and_what_is_held_of_one_stays() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlets = [Inlet::new(Buffer::Requests), Inlet::new(Buffer::Requests)];
        let mut at = Vec::new();
        for turn in [0, 1, 0] {
            let inlet = &mut inlets[turn];
            theirs.write_all(b"message").await.unwrap();
            fill(inlet, &mut ours).await;
            let message = inlet.bytes.split();
            at.push(message.as_ptr());
            inlet.put_back();
        }
        assert!(at[0] == at[1] && at[1] == at[2], "{at:?}");
        // Held, as by requests that wait for their answers: each has its own place, and all are as they came.
        let ([one, _], mut held) = (&mut inlets, Vec::new());
        for turn in 0..2000_u32 {
            theirs.write_all(&turn.to_be_bytes()).await.unwrap();
            fill(one, &mut ours).await;
            held.push(one.bytes.split().freeze());
            one.put_back();
        }
        assert!(held.iter().zip(0_u32..).all(|(message, turn)| message[..] == turn.to_be_bytes()));
        assert_eq!(held[1].as_ptr() as usize - held[0].as_ptr() as usize, 4, "one after the other");
    }

    #[tokio::test]
    async fn a_buffer_that_grew_with_a_message_goes_with_it() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new(Buffer::Requests);
        for _ in 0..16 {
            theirs.write_all(&[b'x'; ROOM]).await.unwrap();
            fill(&mut inlet, &mut ours).await;
        }
        assert_eq!(inlet.bytes.split().len(), 16 * ROOM);
        inlet.put_back();
        assert!(SPARE.with(|spare| spare.iter().all(|place| place.take().is_none())));
        assert_eq!(inlet.bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn little_never_keeps_a_large_buffer() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new(Buffer::Answers);
        theirs.write_all(&[b'x'; ROOM]).await.unwrap();
        fill(&mut inlet, &mut ours).await;
        inlet.bytes.clear();
        for _ in 0..=PATIENCE {
            theirs.write_all(b"head").await.unwrap();
            assert_eq!(fill(&mut inlet, &mut ours).await, 4);
            assert_eq!(inlet.bytes.split(), "head");
            assert!(inlet.bytes.capacity() <= ROOM);
        }
        assert_eq!(inlet.expected, 0);
        // Neither does what is left of much.
        for much in [SMALL, LARGE] {
            inlet = Inlet::new(Buffer::Answers);
            inlet.expected = PATIENCE;
            theirs.write_all(&vec![b'x'; much]).await.unwrap();
            fill(&mut inlet, &mut ours).await;
            let _held = inlet.bytes.split_to(much - 1);
            assert!(waits(&mut inlet, &mut ours));
            assert!(inlet.bytes == "x" && inlet.bytes.capacity() < 2 * ROOM);
            assert!(SPARE.with(|spare| spare[Buffer::Large as usize].take()).is_some());
        }
    }

    #[tokio::test]
    async fn where_bodies_go_another_way_a_head_is_read_and_nothing_is_missed() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut inlet = Inlet::new(Buffer::Answers);
        inlet.expected = PATIENCE;
        inlet.expect_heads();
        theirs.write_all(&[b'x'; 3 * ROOM]).await.unwrap();
        assert_eq!(fill(&mut inlet, &mut ours).await, HEAD);
        assert_eq!(fill(&mut inlet, &mut ours).await, ROOM - HEAD, "the body was small after all");
        inlet.bytes.clear();
        assert_eq!(fill(&mut inlet, &mut ours).await, ROOM);
    }

    #[tokio::test]
    async fn a_connection_that_ends_leaves_its_buffer_to_others() {
        let (mut ours, theirs) = tokio::io::duplex(100);
        drop(theirs);
        let mut inlet = Inlet::new(Buffer::Requests);
        assert_eq!(fill(&mut inlet, &mut ours).await, 0);
        assert!(SPARE.with(|spare| spare[Buffer::Requests as usize].take()).is_some());
    }
}
