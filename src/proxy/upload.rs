//! The body of a request, streamed, and what of it is held so that it can be sent again.

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

use super::{
    activity::Activity,
    body::{Alongside, BodyError},
    http1::Length,
    inflow::{BrokenOff, Inflow},
    route::Route,
    trailers,
};

/// Most of one request's body that is held.
const HELD_PER_REQUEST: usize = 64 * 1024;

/// Most that is held for all requests together.
const HELD_IN_ALL: usize = 16 * 1024 * 1024;

// A counter of the process, because the promise is one about the process.
static HELD: AtomicUsize = AtomicUsize::new(0);

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

/// Shorter pieces than a quarter of what is read into are copied.
const COPIED: usize = 32 * 1024;

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
            // A small piece is copied: it may be a slice of a buffer that is much larger, and would keep all of it.
            let small = chunk.len() < COPIED;
            self.chunks.push(if small { Bytes::copy_from_slice(chunk) } else { chunk.clone() });
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

impl Alongside for RequestBody {}

impl RequestBody {
    /// How the upstream learns where it ends, over HTTP/1.1.
    pub(super) fn framing(&self) -> Length {
        match self {
            Self::Empty => Length::None,
            Self::Upload { length: Some(length), .. } => Length::Exact(*length),
            Self::Upload { length: None, .. } => Length::Chunked,
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
    fn a_small_piece_does_not_keep_the_buffer_that_it_came_in() {
        let buffer = Bytes::from(vec![7; COPIED]);
        let mut tape = Tape::default();
        tape.record(&buffer.slice(..1));
        assert!(buffer.is_unique() && tape.chunks[0] == buffer[..1]);
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
