//! An HTTP/2 connection to an upstream, which the requests of a worker share (RFC 9113).
//!
//! 1. [`Multiplexed::open`] starts it; a task of the worker drives it until it has neither streams nor owners.
//! 2. [`Multiplexed::seat`] is a place for one request, if the connection is alive and has room.
//! 3. [`Seat::send`] sends the request. Its body goes out while the head of the answer is awaited, and after that in a
//!    task of its own: who reads an answer slowly must not hold up what the upstream waits for.
//! 4. A [`Held`] lives as long as the answer. Dropping it before its end resets the stream.

use std::{
    cell::{Cell, RefCell},
    future::{Future as _, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{self, SendRequest},
};
use http::{Request, Response, StatusCode};
use tokio::task::AbortHandle;

use super::{UpstreamStream, connection::Terms};
use crate::proxy::{
    activity::Activity,
    http2::{Broken, Pump},
    inflow::Inflow,
    ticks::Ticks,
    upload::RequestBody,
};

/// Requests at once on one connection, however many more the upstream allows.
const MAX_STREAMS: usize = 64;

/// What the library takes for the upstream's limit until that has told its own (RFC 9113 §6.5.2): a number that nobody else
/// would choose.
const UNTOLD: usize = 7919;

/// What of one answer may be on its way to us.
const STREAM_WINDOW: u32 = 512 * 1024;

/// Bytes of one request that wait to be written.
const SEND_BUFFER: usize = 64 * 1024;

/// Interim answers (RFC 9110 §15.2) to one request. More come from an upstream that only wants to be read from.
const MAX_INTERIM: u32 = 100;

/// A connection that requests share.
#[derive(Debug)]
pub(in crate::proxy) struct Multiplexed {
    sender: SendRequest<Bytes>,
    driver: Rc<Driver>,
    terms: Terms,
    ticks: Rc<Ticks>,
    streams: Cell<usize>,
    used: Cell<bool>,
    // Since which tick it has had no streams.
    quiet: Cell<u32>,
}

/// Drives the connection, from a task of its own and from whoever wants to know whether it is alive.
#[derive(Debug)]
struct Driver {
    connection: RefCell<Option<client::Connection<UpstreamStream, Bytes>>>,
    task: RefCell<Option<Waker>>,
}

/// A place for one request.
#[derive(Debug)]
pub(in crate::proxy) struct Seat {
    connection: Rc<Multiplexed>,
    was_used: bool,
}

/// What an answer needs until its end.
#[derive(Debug)]
pub(in crate::proxy) struct Held {
    _upload: Option<Uploading>,
    _seat: Seat,
}

/// The task that sends what is left of a body; dropping it ends it, and resets the stream.
#[derive(Debug)]
struct Uploading(AbortHandle);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum StreamError {
    /// Nothing of the request was sent.
    Unsent,
    /// The upstream says that it has not looked at it (RFC 9113 §8.7).
    Unprocessed,
    /// The stream or the connection ended before the answer began.
    Closed,
    /// What came is not an answer.
    Invalid,
    /// The answer did not begin in time.
    Timeout,
}

impl Multiplexed {
    /// Begins HTTP/2 on a stream, and waits for the limits of the upstream: what is sent beyond them is refused, or waits behind
    /// others for no reason.
    pub(super) async fn open(
        stream: UpstreamStream,
        max_header_bytes: usize,
        ticks: Rc<Ticks>,
        terms: Terms,
    ) -> Result<Rc<Self>, h2::Error> {
        let (sender, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNTOLD)
            .initial_window_size(STREAM_WINDOW)
            // Every stream can fill its window: callers that read slowly hold up no other.
            .initial_connection_window_size(MAX_STREAMS as u32 * STREAM_WINDOW)
            .max_frame_size(16 * 1024)
            .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(MAX_STREAMS)
            // A reset that the upstream has not seen yet must not make what it still sends an error.
            .reset_stream_duration(Duration::from_secs(10))
            .handshake(stream)
            .await?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending if connection.max_concurrent_send_streams() == UNTOLD => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        let driver = Rc::new(Driver { connection: RefCell::new(Some(connection)), task: RefCell::default() });
        let driving = Rc::clone(&driver);
        tokio::task::spawn_local(poll_fn(move |cx| {
            *driving.task.borrow_mut() = Some(cx.waker().clone());
            driving.poll(cx)
        }));
        let quiet = Cell::new(ticks.now());
        Ok(Rc::new(Self {
            sender,
            driver,
            terms,
            ticks,
            streams: Cell::new(0),
            used: Cell::new(false),
            quiet,
        }))
    }

    /// How many requests wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.terms.permit.waiting()
    }

    /// The tick of its opening.
    pub(super) fn born(&self) -> u32 {
        self.terms.born
    }

    /// Since which tick it has been quiet, if it is.
    pub(super) fn quiet_since(&self) -> Option<u32> {
        (self.streams.get() == 0).then(|| self.quiet.get())
    }

    /// Whether it takes further requests at all, as far as anyone can tell.
    pub(super) fn is_usable(&self) -> bool {
        if self.streams.get() == 0 {
            // A close may have arrived that its task has not been told of.
            self.driver.look();
        }
        let mut sender = self.sender.clone();
        self.terms.is_current()
            && matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// Whether another request can begin at once, or wait with fewer than `crowd` others. The first one always can.
    pub(super) fn has_room(&self, crowd: usize) -> bool {
        let limit = self.sender.current_max_send_streams().clamp(1, MAX_STREAMS);
        self.streams.get() < limit.saturating_add(crowd)
    }

    /// A place for a request.
    pub(super) fn seat(self: &Rc<Self>) -> Seat {
        self.streams.set(self.streams.get() + 1);
        Seat { connection: Rc::clone(self), was_used: self.used.replace(true) }
    }
}

impl Driver {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.connection.borrow_mut();
        if let Some(connection) = slot.as_mut() {
            // Its end, with or without an error, is told to its streams.
            let _ended = ready!(Pin::new(connection).poll(cx));
            *slot = None;
        }
        Poll::Ready(())
    }

    /// Reads and writes what can be, on behalf of its task.
    fn look(&self) {
        let task = self.task.borrow().clone();
        let waker = task.as_ref().unwrap_or(Waker::noop());
        if self.poll(&mut Context::from_waker(waker)).is_ready() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        connection.quiet.set(connection.ticks.now());
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Seat {
    /// Whether the connection had carried a request before: only then can it be closing without anyone's fault.
    pub(in crate::proxy) fn was_used(&self) -> bool {
        self.was_used
    }

    /// Sends a request and waits for the head of the answer; the body is still to come. Interim answers go to `early`.
    pub(in crate::proxy) async fn send(
        self,
        request: Request<()>,
        body: RequestBody,
        activity: &Activity,
        early: &dyn Fn(Response<()>),
    ) -> Result<Response<(Inflow, Held)>, StreamError> {
        let mut sender = self.connection.sender.clone();
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|_gone| StreamError::Unsent)?;
        let bodiless = matches!(body, RequestBody::Empty);
        let (mut response, stream) =
            sender.send_request(request, bodiless).map_err(|error| classify(&error))?;
        drop(sender);
        let mut upload = (!bodiless).then(|| Pump::new(body, stream));
        let mut interim = 0;
        let head = poll_fn(|cx| {
            if let Some(pump) = &mut upload
                && let Poll::Ready(sent) = pump.poll(cx)
            {
                upload = None;
                if sent == Err(Broken::Body) {
                    return Poll::Ready(Err(StreamError::Closed));
                }
                // If the upstream wants no more of it, the answer tells why.
            }
            while let Poll::Ready(Some(Ok(answer))) = response.poll_informational(cx) {
                interim += 1;
                // HTTP/2 has no 101 (RFC 9113 §8.6).
                if interim > MAX_INTERIM || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Err(StreamError::Invalid));
                }
                early(answer);
            }
            if let Poll::Ready(head) = Pin::new(&mut response).poll(cx) {
                return Poll::Ready(head.map_err(|error| classify(&error)));
            }
            if activity.is_overdue() { Poll::Ready(Err(StreamError::Timeout)) } else { Poll::Pending }
        })
        .await?;
        let upload = upload.map(|mut pump| {
            let task = tokio::task::spawn_local(async move {
                // Whatever ends it early, the answer tells.
                let _ = poll_fn(|cx| pump.poll(cx)).await;
            });
            Uploading(task.abort_handle())
        });
        let (head, recv) = head.into_parts();
        let inflow = Inflow::http2(recv, &head.headers);
        Ok(Response::from_parts(head, (inflow, Held { _upload: upload, _seat: self })))
    }
}

/// What an error before the head of the answer means.
fn classify(error: &h2::Error) -> StreamError {
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        // Of a GOAWAY, the library tells those streams only that come after the last one that was looked at.
        StreamError::Unprocessed
    } else if error.is_library() {
        StreamError::Invalid
    } else {
        StreamError::Closed
    }
}
