//! A place on an HTTP/2 connection, and what is sent from there.
//!
//! 1. [`Seat::send`] sends a request. Its body goes out while the head of the answer is awaited, and after that in a
//!    task of its own: who reads an answer slowly must not hold up what the upstream waits for.
//! 2. A [`Held`] lives as long as the answer. Dropping it before its end resets the stream.
//! 3. [`Seat::connect`] asks for a tunnel instead: both directions of the stream are its own.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{Request, Response, StatusCode};
use tokio::task::AbortHandle;

use super::{fields::Fields, http2::Multiplexed};
use crate::proxy::{
    activity::Activity,
    http2::{Broken, Pump},
    inflow::Stream,
    upload::RequestBody,
};

/// Interim answers (RFC 9110 §15.2) to one request. More come from an upstream that only wants to be read from.
const MAX_INTERIM: u32 = 100;

/// A place for one request.
#[derive(Debug)]
pub(in crate::proxy) struct Seat {
    connection: Rc<Multiplexed>,
}

/// What an answer needs until its end.
#[derive(Debug)]
pub(in crate::proxy) struct Held {
    _upload: Option<Uploading>,
    _seat: Seat,
}

/// What comes on a stream after the head of an answer, and what it needs.
pub(in crate::proxy) type Arrived = Box<(Stream, Held)>;

/// The answer to a request for a tunnel: what comes on the stream, and what can be sent on it.
pub(in crate::proxy) type Connected = (Stream, SendStream<Bytes>, Seat);

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
    /// The connection ended before the answer began.
    Closed,
    /// The upstream reset the stream, or what it had begun to answer ended.
    Broken,
    /// What came is not an answer.
    Invalid,
    /// The answer did not begin in time.
    Timeout,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connection.left();
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Seat {
    pub(super) fn new(connection: Rc<Multiplexed>) -> Self {
        Self { connection }
    }

    /// Whether the connection has carried a request, or been at rest: only then can it be closing without anyone's fault.
    pub(in crate::proxy) fn is_used(&self) -> bool {
        self.connection.is_used()
    }

    /// Whether the connection is new to whoever counts them: true once.
    pub(in crate::proxy) fn count_once(&self) -> bool {
        self.connection.count_once()
    }

    /// Whether the upstream takes requests for tunnels (RFC 8441 §3).
    pub(in crate::proxy) fn may_connect(&self) -> bool {
        self.connection.takes_tunnels()
    }

    /// Sends a request and waits for the head of the answer; the body is still to come. Interim answers go to `early`.
    pub(in crate::proxy) async fn send(
        self,
        request: Request<()>,
        fields: Fields<'_>,
        body: RequestBody,
        activity: &Activity,
        early: &dyn Fn(Response<()>),
    ) -> Result<Response<Arrived>, StreamError> {
        let bodiless = matches!(body, RequestBody::Empty);
        let (response, stream) = self.begin(request, fields, bodiless).await?;
        let mut upload = (!bodiless).then(|| Pump::new(body, stream));
        let (head, recv) = head(response, &mut upload, activity, early).await?.into_parts();
        let upload = upload.map(|mut pump| {
            let task = tokio::task::spawn_local(async move {
                // Whatever ends it early, the answer tells.
                let _ = poll_fn(|cx| pump.poll(cx)).await;
            });
            Uploading(task.abort_handle())
        });
        let arrived = Box::new((Stream::new(recv, &head.headers), Held { _upload: upload, _seat: self }));
        Ok(Response::from_parts(head, arrived))
    }

    /// Sends a request for a tunnel, and waits for the head of the answer.
    pub(in crate::proxy) async fn connect(
        self,
        request: Request<()>,
        fields: Fields<'_>,
        activity: &Activity,
        early: &dyn Fn(Response<()>),
    ) -> Result<Response<Connected>, StreamError> {
        let (response, stream) = self.begin(request, fields, false).await?;
        let (head, recv) = head(response, &mut None, activity, early).await?.into_parts();
        let recv = Stream::new(recv, &head.headers);
        Ok(Response::from_parts(head, (recv, stream, self)))
    }

    /// Begins a request as soon as the connection takes one.
    async fn begin(
        &self,
        request: Request<()>,
        fields: Fields<'_>,
        bodiless: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), StreamError> {
        let mut sender = self.connection.sender();
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|_gone| StreamError::Unsent)?;
        let (response, stream) = sender.send_request(request, bodiless).map_err(|error| classify(&error))?;
        self.connection.begun();
        // Before anything can be written: that is done by another task of this thread.
        self.connection.heads().add(stream.stream_id().as_u32(), &fields);
        Ok((response, stream))
    }
}

impl Held {
    /// Of an answer whose request has been sent.
    pub(in crate::proxy) fn of(seat: Seat) -> Self {
        Self { _upload: None, _seat: seat }
    }
}

/// Waits for the head of an answer, and sends of the body what can be sent meanwhile.
async fn head(
    mut response: ResponseFuture,
    upload: &mut Option<Pump<RequestBody>>,
    activity: &Activity,
    early: &dyn Fn(Response<()>),
) -> Result<Response<RecvStream>, StreamError> {
    let mut interim = 0;
    poll_fn(|cx| {
        if let Some(pump) = upload
            && let Poll::Ready(sent) = pump.poll(cx)
        {
            *upload = None;
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
            return Poll::Ready(head.map_err(|error| match classify(&error) {
                // Who has begun to answer has looked at the request.
                StreamError::Unprocessed | StreamError::Closed if interim > 0 => StreamError::Broken,
                why => why,
            }));
        }
        if activity.is_overdue() { Poll::Ready(Err(StreamError::Timeout)) } else { Poll::Pending }
    })
    .await
}

/// What an error before the head of the answer means.
fn classify(error: &h2::Error) -> StreamError {
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        // Of a GOAWAY, the library tells those streams only that come after the last one that was looked at.
        StreamError::Unprocessed
    } else if error.is_library() {
        StreamError::Invalid
    } else if error.is_reset() {
        StreamError::Broken
    } else {
        StreamError::Closed
    }
}
