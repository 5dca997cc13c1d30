//! One connection to an upstream over HTTP/1.1, driven by the task that forwards the request.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::{
    Pool, Upstream, UpstreamStream,
    line::{Line, SendError, Terms},
};
use crate::proxy::{
    caller::Caller,
    http1::{Decoder, Ending, Inlet, Out, encode_request},
    inflow::BrokenOff,
    outgoing::Outgoing,
    upgrade::Tunnel,
};

/// A connection between requests, or during one.
#[derive(Debug)]
pub(in crate::proxy) struct Connection {
    // Boxed: it moves between the pool and the requests.
    line: Box<Line>,
}

impl Connection {
    pub(super) fn new(stream: UpstreamStream, upstream: &Upstream, terms: Terms) -> Self {
        Self {
            line: Box::new(Line {
                stream,
                inlet: Inlet::new(),
                out: Out::default(),
                sending: None,
                answer: Decoder::Done,
                max_header_bytes: upstream.max_header_bytes,
                terms,
                used: false,
                last: false,
                broken: false,
            }),
        }
    }

    /// The tick of its opening.
    pub(super) fn born(&self) -> u32 {
        self.line.terms.born
    }

    /// How many requests wait for a connection like it.
    pub(super) fn waiting(&self) -> usize {
        self.line.terms.permit.waiting()
    }

    /// Whether it has carried a request before: only then can it be closing without anyone's fault.
    pub(in crate::proxy) fn is_used(&self) -> bool {
        self.line.used
    }

    /// Whether the upstream says that it ends.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        self.line.last
    }

    /// Whether it can take a request, looking at what the upstream did meanwhile.
    pub(super) fn is_usable(&mut self) -> bool {
        let Line { stream, inlet, .. } = &mut *self.line;
        // Nobody needs to be told what happens to a connection that nobody uses.
        let mut nobody = Context::from_waker(Waker::noop());
        // Neither its end nor an answer that nobody has asked for.
        inlet.poll_fill(stream, &mut nobody).is_pending() && self.is_at_rest()
    }

    /// Whether the last request and its answer are over, and the next may follow, as far as is known here.
    fn is_at_rest(&self) -> bool {
        let Line { inlet, out, sending, answer, terms, last, .. } = &*self.line;
        !*last
            && answer.is_done()
            && sending.is_none()
            && out.is_empty()
            && inlet.bytes.is_empty()
            && terms.is_current()
    }

    /// Sends a request and waits for the head of the answer; the body is still to come. Interim answers go to `early`.
    pub(in crate::proxy) async fn send(
        &mut self,
        outgoing: &Outgoing<'_>,
        caller: &Caller,
        early: &dyn Fn(Response<()>),
    ) -> Result<Response<()>, SendError> {
        let line = &mut *self.line;
        line.used = true;
        let body = outgoing.body();
        let length = body.framing();
        encode_request(outgoing.method, &outgoing.target, outgoing.headers, length, &mut line.out);
        line.sending = Some((body, length));
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
        let Line { stream, inlet, terms, .. } = *self.line;
        Tunnel::new(stream, inlet.into_bytes(), terms.permit)
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

    /// Goes on with the request while nobody takes the answer.
    pub(in crate::proxy) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.connection.line.poll_upload(cx);
    }

    /// Whether all of the body has been taken.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        self.connection.line.answer.is_done()
    }

    /// How much of the body is still to come.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.connection.line.answer.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The answer is complete. The connection is kept unless the upstream closes it, sent too much, or has not been
    /// sent all of the request.
    pub(in crate::proxy) fn finish(mut self) {
        self.connection.line.inlet.put_back();
        // What the upstream does meanwhile is looked at when the connection is taken.
        if self.connection.is_at_rest() {
            self.pool.put(self.slot, self.connection);
        }
    }
}
