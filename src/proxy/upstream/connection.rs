//! One connection to an upstream over HTTP/1.1, driven by the task that forwards the request.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::{
    Pool, Upstream, UpstreamStream,
    line::{Line, SendError},
    terms::Terms,
};
use crate::proxy::{
    caller::Caller, http1::Ending, inflow::BrokenOff, outgoing::Outgoing, pipe::Pipe, upgrade::Tunnel,
};

/// A connection between requests, or during one.
#[derive(Debug)]
pub(in crate::proxy) struct Connection {
    // Boxed: it moves between the pool and the requests.
    line: Box<Line>,
}

impl Connection {
    pub(super) fn new(stream: UpstreamStream, upstream: &Upstream, terms: Terms) -> Self {
        Self { line: Box::new(Line::new(stream, upstream.max_header_bytes, terms)) }
    }

    /// The tick of its opening.
    pub(super) fn born(&self) -> u32 {
        self.line.terms().born
    }

    /// How many requests wait for a connection like it.
    pub(super) fn waiting(&self) -> usize {
        self.line.terms().permit.waiting()
    }

    /// It is kept, whether or not it has carried a request.
    pub(super) fn rests(&mut self) {
        self.line.rests();
    }

    /// Whether the connection is new to whoever counts them: true once.
    pub(in crate::proxy) fn count_once(&mut self) -> bool {
        self.line.count_once()
    }

    /// Whether it has carried a request, or been kept: only then can it be closing without anyone's fault.
    pub(in crate::proxy) fn is_used(&self) -> bool {
        self.line.is_used()
    }

    /// Whether the upstream says that it ends.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        self.line.is_last()
    }

    /// Whether it can take a request, looking at what the upstream did meanwhile.
    pub(super) fn is_usable(&mut self) -> bool {
        self.line.is_quiet()
    }

    /// Sends a request and waits for the head of the answer; the body is still to come. Interim answers go to `early`.
    pub(in crate::proxy) async fn send(
        &mut self,
        outgoing: &Outgoing<'_>,
        caller: &Caller,
        early: &dyn Fn(Response<()>),
    ) -> Result<Response<()>, SendError> {
        let line = &mut *self.line;
        line.begin(outgoing);
        let mut sent = 0;
        let mut interim = 0;
        let mut ending = Ending::default();
        poll_fn(|cx| {
            let fresh = sent == 0;
            if line.poll_send(&mut sent, cx).is_err() {
                return Poll::Ready(Err(if sent == 0 { SendError::Unsent } else { SendError::Closed }));
            }
            if fresh && sent > 0 {
                outgoing.has_begun();
            }
            if let Poll::Ready(answer) =
                line.poll_head(outgoing, (caller, early), &mut ending, &mut interim, cx)
            {
                return Poll::Ready(answer);
            }
            if caller.activity.is_overdue() { Poll::Ready(Err(SendError::Timeout)) } else { Poll::Pending }
        })
        .await
    }

    /// Takes the stream out after a 101, with what came behind it.
    pub(in crate::proxy) fn into_tunnel(self) -> Box<Tunnel> {
        let (stream, early, terms) = self.line.into_parts();
        Tunnel::new(stream, early, terms.permit)
    }
}

/// A connection that an answer comes on. Dropping it closes the connection: an answer that was not read to its end
/// leaves bytes behind.
#[derive(Debug)]
pub(in crate::proxy) struct Lease {
    connection: Connection,
    slot: usize,
    pool: Rc<Pool>,
}

impl Lease {
    pub(in crate::proxy) fn new(connection: Connection, slot: usize, pool: Rc<Pool>) -> Self {
        Self { connection, slot, pool }
    }

    /// The next piece of the answer's body.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.connection.line.poll_frame(cx)
    }

    /// How much of the answer's body the kernel can move, if it can.
    pub(in crate::proxy) fn pours(&self) -> Option<u64> {
        self.connection.line.pours()
    }

    /// Moves some of it into a pipe; 0 when it has to be read.
    pub(in crate::proxy) fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<usize> {
        self.connection.line.poll_pour(pipe, cx)
    }

    /// Goes on with the request while nobody takes the answer.
    pub(in crate::proxy) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.connection.line.poll_upload(cx);
    }

    /// Whether all of the body has been taken.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        self.connection.line.is_complete()
    }

    /// How much of the body is still to come.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.connection.line.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The answer is complete. The connection is kept unless the upstream closes it, sent too much, or has not been
    /// sent all of the request.
    pub(in crate::proxy) fn finish(mut self) {
        self.connection.line.rest();
        // What the upstream does meanwhile is looked at when the connection is taken.
        if self.connection.line.is_at_rest() {
            self.pool.put(self.slot, self.connection);
        }
    }
}
