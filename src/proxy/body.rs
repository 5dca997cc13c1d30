//! The bodies of a request and of its answer, streamed; and what of a request is held so that it can be sent again.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    activity::Activity,
    caller::InFlight,
    inflow::{BrokenOff, Inflow},
    route::{Injected, Route},
    trailers,
    upgrade::Tunnel,
    upstream::{Held, Lease},
};
use crate::token::Current;

/// Most of one request's body that is held.
const HELD_PER_REQUEST: usize = 64 * 1024;

/// Most that is held for all requests together.
const HELD_IN_ALL: usize = 16 * 1024 * 1024;

// A counter of the process, because the promise is one about the process.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Why a body broke off. hyper closes the connection, and a stream is reset, so that what is truncated looks truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the caller's body broke off")]
    Caller,
    /// With the code that an HTTP/2 upstream gave.
    #[error("the upstream's body broke off")]
    Upstream(Option<h2::Reason>),
}

/// The body of a request as it comes from the caller, with what is held of it.
#[derive(Debug)]
pub(super) struct Upload {
    incoming: RefCell<Inflow>,
    // What has been sent already, as long as all of it is here.
    tape: RefCell<Tape>,
    failed: Cell<bool>,
    // Whether anything of it has been taken out.
    begun: Cell<bool>,
    activity: Rc<Activity>,
    // Whose rules its trailers meet; without one they are dropped.
    passes_trailers: Option<Arc<Route>>,
}

/// What a piece of a tape costs beside its bytes, about.
const PIECE: usize = 64;

/// Into how many pieces what is held of a body may be cut.
const PIECES: usize = 1024;

#[derive(Debug, Default)]
struct Tape {
    chunks: Vec<Bytes>,
    // Of the bytes, and of everything together.
    len: usize,
    held: usize,
    torn: bool,
}

impl Tape {
    fn record(&mut self, chunk: &Bytes) {
        if self.torn {
            return;
        }
        let cost = chunk.len() + PIECE;
        let fits = self.len + chunk.len() <= HELD_PER_REQUEST
            && self.chunks.len() < PIECES
            && HELD
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                    Some(held + cost).filter(|held| *held <= HELD_IN_ALL)
                })
                .is_ok();
        if fits {
            self.len += chunk.len();
            self.held += cost;
            self.chunks.push(chunk.clone());
        } else {
            self.tear();
        }
    }

    /// Holds nothing any more: the request can no longer be sent again.
    fn tear(&mut self) {
        self.torn = true;
        self.chunks = Vec::new();
        HELD.fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        HELD.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl Upload {
    /// `repeatable` says whether the request may be sent again at all.
    pub(super) fn new(
        incoming: Inflow,
        repeatable: bool,
        activity: Rc<Activity>,
        passes_trailers: Option<Arc<Route>>,
    ) -> Rc<Self> {
        let mut tape = Tape::default();
        tape.torn = !repeatable;
        Rc::new(Self {
            incoming: RefCell::new(incoming),
            tape: RefCell::new(tape),
            failed: Cell::new(false),
            begun: Cell::new(false),
            activity,
            passes_trailers,
        })
    }

    /// Holds it from its beginning on, although the request is not one to be repeated at will.
    pub(super) fn hold(&self) {
        if !self.begun.get() {
            self.tape.borrow_mut().torn = false;
        }
    }

    /// Whether all that was sent is still held.
    pub(super) fn is_held(&self) -> bool {
        !self.tape.borrow().torn && !self.failed.get()
    }

    /// Whether the caller has sent all of it.
    pub(super) fn has_ended(&self) -> bool {
        self.incoming.borrow().is_end_stream()
    }

    /// Whether the caller broke off.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Nobody will send it once more: nothing is held from here on.
    pub(super) fn release(&self) {
        self.tape.borrow_mut().tear();
    }
}

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// There is none.
    Empty,
    /// What is held of it, from the beginning, and then what comes.
    Upload {
        /// Shared with whoever may send it again.
        upload: Rc<Upload>,
        /// What was sent before, and is to be sent once more. Its own: the tape may end before it does.
        again: Option<Box<std::vec::IntoIter<Bytes>>>,
        /// Its length, if the caller told it.
        length: Option<u64>,
    },
}

impl RequestBody {
    /// All of a body: what is held of it, and then what comes.
    pub(super) fn again(upload: &Rc<Upload>, length: Option<u64>) -> Self {
        let held = upload.tape.borrow().chunks.clone();
        let again = (!held.is_empty()).then(|| Box::new(held.into_iter()));
        Self::Upload { upload: Rc::clone(upload), again, length }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Upload { upload, again, .. } = self.get_mut() else { return Poll::Ready(None) };
        if let Some(chunk) = again.as_mut().and_then(|again| again.next()) {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        loop {
            let frame = ready!(Pin::new(&mut *upload.incoming.borrow_mut()).poll_frame(cx));
            return Poll::Ready(match frame {
                None => None,
                Some(Err(BrokenOff(_))) => {
                    upload.failed.set(true);
                    Some(Err(BodyError::Caller))
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Err(frame) => {
                        let (Some(route), Ok(mut trailers)) =
                            (&upload.passes_trailers, frame.into_trailers())
                        else {
                            continue;
                        };
                        // They are not held, so neither is what they belong to.
                        upload.release();
                        trailers::clean_request(&mut trailers, route);
                        Some(Ok(Frame::trailers(trailers)))
                    }
                    Ok(chunk) => {
                        upload.begun.set(true);
                        // An upload that goes on is not an upstream that is late.
                        upload.activity.progressed();
                        upload.tape.borrow_mut().record(&chunk);
                        Some(Ok(Frame::data(chunk)))
                    }
                },
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload { upload, again, .. } => {
                again.as_ref().is_none_or(|again| again.len() == 0)
                    && upload.incoming.borrow().is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload { length: Some(length), .. } => SizeHint::with_exact(*length),
            Self::Upload { length: None, .. } => SizeHint::default(),
        }
    }
}

/// The body of an answer on its way to the caller.
#[derive(Debug)]
pub(super) struct AnswerBody {
    content: Content,
    // The token that must not come back in one.
    passes_trailers: Option<Injected>,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Upstream {
        incoming: Incoming,
        lease: Option<Lease>,
    },
    /// The upstream's on a stream, until its end.
    Stream(Option<Box<(Inflow, Held)>>),
    /// There is none: the connection has switched. Waits here until the caller's side is free.
    Tunnel(Option<Box<Tunnel>>),
    /// The upstream broke off, and the caller is yet to be told.
    Broken(Option<h2::Reason>),
}

impl AnswerBody {
    /// attaché's own.
    pub(super) fn own(bytes: Bytes) -> Self {
        Self::of(Content::Own(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// The upstream's, with the connection that it comes on.
    pub(super) fn upstream(incoming: Incoming, lease: Lease) -> Self {
        Self::of(Content::Upstream { incoming, lease: Some(lease) })
    }

    /// The upstream's, with the stream that it comes on.
    pub(super) fn stream(arrived: Box<(Inflow, Held)>) -> Self {
        Self::of(Content::Stream(Some(arrived)))
    }

    /// The upstream's 101, with the connection that it came on.
    pub(super) fn switched(tunnel: Box<Tunnel>) -> Self {
        Self::of(Content::Tunnel(Some(tunnel)))
    }

    fn of(content: Content) -> Self {
        Self { content, passes_trailers: None, in_flight: None }
    }

    /// Lets trailers through, unless they show this token.
    pub(super) fn pass_trailers(&mut self, token: Injected) {
        self.passes_trailers = Some(token);
    }

    /// Takes out the tunnel, and the end of the request with it.
    pub(super) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        let Content::Tunnel(tunnel) = &mut self.content else { return None };
        let mut tunnel = tunnel.take()?;
        tunnel.ends(self.in_flight.take());
        Some(tunnel)
    }

    /// Ties the end of the request to the end of this body.
    pub(super) fn ends(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    /// Gives the connection back if the body is complete already.
    pub(super) fn finish_if_complete(&mut self) {
        self.content.finish_if_complete();
    }
}

impl Content {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (incoming, lease) = match self {
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tunnel(_) | Self::Stream(None) => return Poll::Ready(None),
            Self::Stream(Some(stream)) => return Pin::new(&mut stream.0).poll_frame(cx),
            Self::Broken(code) => return Poll::Ready(Some(Err(BrokenOff(*code)))),
            Self::Upstream { incoming, lease } => (incoming, lease),
        };
        let frame = ready!(match lease {
            Some(lease) => lease.poll_frame(incoming, cx),
            None => Pin::new(incoming).poll_frame(cx),
        });
        Poll::Ready(frame.map(|frame| frame.map_err(|_broken| BrokenOff(None))))
    }

    fn finish_if_complete(&mut self) {
        let complete = match self {
            Self::Upstream { incoming, .. } => incoming.is_end_stream(),
            Self::Stream(Some(stream)) => stream.0.is_end_stream(),
            _ => false,
        };
        if complete {
            self.finish();
        }
    }

    /// Gives back what the body came on.
    fn finish(&mut self) {
        match self {
            Self::Upstream { lease, .. } => {
                if let Some(lease) = lease.take() {
                    lease.finish();
                }
            }
            Self::Stream(stream) => *stream = None,
            _ => {}
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Content::Broken(code) = self.content {
            return Poll::Ready(Some(Err(BodyError::Upstream(code))));
        }
        let frame = match ready!(self.content.poll(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(BrokenOff(code))) => {
                // hyper drops what it has not written when a body fails: a turn later, what came has been sent on.
                self.content = Content::Broken(code);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                self.content.finish();
                return Poll::Ready(None);
            }
        };
        match frame.into_trailers() {
            Err(frame) => {
                self.content.finish_if_complete();
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(mut trailers) => {
                // Nothing comes behind them.
                self.content.finish();
                let Some(token) = &self.passes_trailers else { return Poll::Ready(None) };
                trailers::clean_answer(&mut trailers, token.as_ref().map(Current::token));
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Tunnel(_) => true,
            Content::Broken(_) => false,
            Content::Stream(stream) => stream.is_none(),
            Content::Upstream { incoming, lease, .. } => lease.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Upstream { incoming, .. } => incoming.size_hint(),
            Content::Tunnel(_) => SizeHint::with_exact(0),
            Content::Stream(Some(stream)) => stream.0.size_hint(),
            Content::Stream(None) => SizeHint::with_exact(0),
            Content::Broken(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_many_small_pieces_is_not_held() {
        let mut tape = Tape::default();
        for _ in 0..PIECES {
            tape.record(&Bytes::from_static(b"x"));
        }
        assert_eq!((tape.chunks.len(), tape.held), (PIECES, PIECES * (1 + PIECE)));
        tape.record(&Bytes::from_static(b"x"));
        assert!(tape.torn && tape.chunks.is_empty() && tape.held == 0);
    }

    #[test]
    fn promise_6_not_more_than_16_mib_are_held_for_all_requests() {
        let body = Bytes::from(vec![0; HELD_PER_REQUEST]);
        let tapes: Vec<Tape> = std::iter::repeat_with(|| {
            let mut tape = Tape::default();
            tape.record(&body);
            tape
        })
        .take(300)
        .collect();
        let held = tapes.iter().filter(|tape| !tape.torn).count();
        assert!((200..=HELD_IN_ALL / HELD_PER_REQUEST).contains(&held), "{held}");
        drop(tapes);
        let mut tape = Tape::default();
        tape.record(&body);
        assert!(!tape.torn);
    }

    #[test]
    fn a_body_of_just_64_kib_is_held() {
        let mut tape = Tape::default();
        let half = Bytes::from(vec![0; HELD_PER_REQUEST / 2]);
        tape.record(&half);
        tape.record(&half);
        assert!(!tape.torn);
        tape.record(&Bytes::from_static(b"x"));
        assert!(tape.torn);
    }
}
