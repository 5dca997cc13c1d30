//! A caller's connection: its streams, what they share, and its end.

use std::{
    cell::{Cell, RefCell},
    future::{Future as _, poll_fn},
    io,
    os::fd::AsFd as _,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Sleep},
};

use super::{
    frames::{Frames, Seen},
    refused::{self, Unseen},
    stream,
};
use crate::{
    listen::Stream,
    proxy::{caller::Caller, error::Reason, presence},
};

/// How long a connection without a stream is kept once it has been told to end, for the caller to read that.
const LINGER: Duration = Duration::from_secs(1);

/// Stream states that are kept for the next requests of a connection.
const SPARE: usize = 8;

/// Rooms that are kept for them.
const ROOMS: usize = 16;

/// What the streams of one connection have in common.
struct Conversation {
    /// Its activity is that of the connection: idle without a stream.
    caller: Rc<Caller>,
    frames: RefCell<Frames>,
    unseen: RefCell<Unseen>,
    open: Cell<u32>,
    spare: RefCell<Vec<Rc<Caller>>>,
}

/// One stream of a conversation.
pub(super) struct Turn {
    conversation: Rc<Conversation>,
    caller: Rc<Caller>,
}

impl Turn {
    fn begin(conversation: &Rc<Conversation>) -> Self {
        conversation.open.set(conversation.open.get() + 1);
        conversation.caller.activity.serving();
        let spare = conversation.spare.borrow_mut().pop();
        let caller = spare.unwrap_or_else(|| conversation.caller.stream());
        caller.activity.serving();
        Self { conversation: Rc::clone(conversation), caller }
    }

    /// The connection as this request sees it.
    pub(super) fn caller(&self) -> &Rc<Caller> {
        &self.caller
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let conversation = &self.conversation;
        conversation.open.set(conversation.open.get() - 1);
        if conversation.open.get() == 0 {
            conversation.rest();
        }
        let mut spare = conversation.spare.borrow_mut();
        if spare.len() < SPARE && !self.caller.activity.must_close() {
            spare.push(Rc::clone(&self.caller));
        }
    }
}

impl Conversation {
    /// No stream is open.
    fn rest(&self) {
        let activity = &self.caller.activity;
        activity.idle();
        activity.flushed();
        // The next head may have begun to arrive.
        activity.received(self.frames.borrow().is_within());
        if activity.is_draining() {
            activity.wake();
        }
    }

    fn received(&self, bytes: &[u8]) {
        let mut frames = self.frames.borrow_mut();
        frames.scan(bytes, |seen| {
            if let Seen::Head(stream) = seen {
                self.unseen.borrow_mut().arrived(stream);
            }
        });
        if self.open.get() == 0 {
            match frames.is_within() {
                true => self.caller.activity.received(true),
                false => self.caller.activity.head_ended(),
            }
        }
    }

    /// The library says something about a stream.
    fn said(&self, seen: Seen) {
        let why = self.unseen.borrow_mut().why(seen);
        if let Some(reason) = why {
            refused::count(&self.caller, reason);
        }
    }
}

/// Serves a connection to its end.
pub(in crate::proxy) async fn serve(caller: &Rc<Caller>, stream: Stream) {
    let conversation = Rc::new(Conversation {
        caller: Rc::clone(caller),
        frames: RefCell::new(Frames::of_caller()),
        unseen: RefCell::default(),
        open: Cell::new(0),
        spare: RefCell::default(),
    });
    let activity = &caller.activity;
    // Whoever closes is seen at once, because this always reads; whoever vanishes must be asked.
    presence::keep_alive(stream.as_fd());
    let stream = Followed { stream, conversation: Rc::clone(&conversation), outgoing: Frames::of_server() };
    let mut handshake = pin!(caller.worker.http2.handshake::<_, Bytes>(stream));
    let connection = poll_fn(|cx| {
        activity.driven_by(cx);
        if activity.must_close() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    })
    .await;
    let Some(Ok(mut connection)) = connection else { return };
    let mut end = End::default();
    // Where streams are served, one after the other. Boxed, because tokio moves what it runs more than once, and there is room
    // for a whole request in it; kept, because glibc is slow with pieces of more than 1 kB, and then with all others.
    let rooms = Rc::new(RefCell::new(Vec::new()));
    loop {
        match poll_fn(|cx| next(&conversation, &mut connection, &mut end, cx)).await {
            Some(Ok((request, respond))) => {
                if !conversation.unseen.borrow_mut().accepted(respond.stream_id().as_u32()) {
                    continue;
                }
                // A task of its own: a stream that fails takes no other with it.
                let turn = Turn::begin(&conversation);
                let mut room = rooms.borrow_mut().pop().unwrap_or_else(|| Box::pin(None));
                room.set(Some(stream::answer(turn, request, respond)));
                let rooms = Rc::clone(&rooms);
                tokio::task::spawn_local(async move {
                    if let Some(answer) = room.as_mut().as_pin_mut() {
                        answer.await;
                    }
                    room.set(None);
                    let mut rooms = rooms.borrow_mut();
                    if rooms.len() < ROOMS {
                        rooms.push(room);
                    }
                });
            }
            Some(Err(error)) => {
                if error.is_library() {
                    refused::count(caller, Reason::MalformedRequest);
                }
                return;
            }
            None => return,
        }
    }
}

/// How far a connection is on its way to its end.
#[derive(Default)]
struct End {
    told: bool,
    over: Option<Pin<Box<Sleep>>>,
}

type Accepted = Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>;

/// The next stream, or the end.
fn next(
    conversation: &Conversation,
    connection: &mut Connection<Followed, Bytes>,
    end: &mut End,
    cx: &mut Context<'_>,
) -> Poll<Option<Accepted>> {
    let activity = &conversation.caller.activity;
    activity.driven_by(cx);
    let late = activity.must_close();
    if late && conversation.frames.borrow().is_within() {
        // A head that is too slow: there is nobody to be polite to.
        return Poll::Ready(None);
    }
    if (late || activity.is_draining()) && !end.told {
        // GOAWAY (RFC 9113 §6.8): first for what comes later, and once that is acknowledged, for what did come.
        end.told = true;
        connection.graceful_shutdown();
    }
    let accepted = connection.poll_accept(cx);
    if accepted.is_pending() && end.told {
        if conversation.open.get() > 0 {
            end.over = None;
        } else if end.over.get_or_insert_with(|| Box::pin(time::sleep(LINGER))).as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
    }
    accepted
}

/// A connection whose frames are followed.
struct Followed {
    stream: Stream,
    conversation: Rc<Conversation>,
    outgoing: Frames,
}

impl AsyncRead for Followed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.conversation.received(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Followed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, conversation, outgoing } = &mut *self;
        let written = Pin::new(stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            outgoing.scan(&bytes[..count], |seen| conversation.said(seen));
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, conversation, outgoing } = &mut *self;
        let written = Pin::new(stream).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(mut count)) = written {
            for buffer in buffers {
                let part = count.min(buffer.len());
                outgoing.scan(&buffer[..part], |seen| conversation.said(seen));
                count -= part;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
