//! One connection to an upstream over HTTP/1.1, driven by the task that forwards the request.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{CONNECTION, TRANSFER_ENCODING},
};
use http_body::{Body as _, Frame, SizeHint};

use super::{Permit, Pool, Upstream, UpstreamStream};
use crate::{
    proxy::{
        body::BodyError,
        caller::Caller,
        exchange::Outgoing,
        hop,
        http1::{Decoder, Ending, Inlet, Length, Out, Piece, Said, encode_request, take_answer},
        inflow::BrokenOff,
        upgrade::Tunnel,
        upload::RequestBody,
    },
    tls::Edition,
};

/// More interim answers (RFC 9110 §15.2) than this to one request come from an upstream that only wants to be read from.
const MAX_INTERIM: u32 = 100;

/// A connection between requests, or during one.
#[derive(Debug)]
pub(in crate::proxy) struct Connection {
    // Boxed: it moves between the pool and the requests.
    parts: Box<Parts>,
}

#[derive(Debug)]
struct Parts {
    stream: UpstreamStream,
    inlet: Inlet,
    out: Out,
    // The request on its way.
    sending: Option<(RequestBody, Length)>,
    // The answer to it.
    answer: Decoder,
    max_header_bytes: usize,
    terms: Terms,
    used: bool,
    // It cannot carry another request.
    last: bool,
    // The request broke off after its answer had begun.
    broken: bool,
}

/// What a connection was opened under.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) permit: Permit,
    /// The TLS files that it was made with, if they can change.
    pub(super) edition: Option<Edition>,
    /// The tick of its opening.
    pub(super) born: u32,
}

impl Terms {
    /// Whether further requests may be sent under them.
    pub(super) fn is_current(&self) -> bool {
        self.edition.as_ref().is_none_or(Edition::is_current)
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum SendError {
    /// Not a byte was sent: the request can go elsewhere, with all that is held of its body.
    Unsent,
    /// The connection ended before the answer began.
    Closed,
    /// It ended within the head of the answer.
    Broken,
    /// What came is not an answer.
    Invalid,
    /// The answer did not begin in time.
    Timeout,
}

impl Connection {
    pub(super) fn new(stream: UpstreamStream, upstream: &Upstream, terms: Terms) -> Self {
        Self {
            parts: Box::new(Parts {
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
        self.parts.terms.born
    }

    /// How many requests wait for a connection like it.
    pub(super) fn waiting(&self) -> usize {
        self.parts.terms.permit.waiting()
    }

    /// Whether it has carried a request before: only then can it be closing without anyone's fault.
    pub(in crate::proxy) fn is_used(&self) -> bool {
        self.parts.used
    }

    /// Whether the upstream says that it ends.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        self.parts.last
    }

    /// Whether it can take a request, looking at what the upstream did meanwhile.
    pub(super) fn is_usable(&mut self) -> bool {
        let Parts { stream, inlet, .. } = &mut *self.parts;
        // Nobody needs to be told what happens to a connection that nobody uses.
        let mut nobody = Context::from_waker(Waker::noop());
        // Neither its end nor an answer that nobody has asked for.
        inlet.poll_fill(stream, &mut nobody).is_pending() && self.is_at_rest()
    }

    /// Whether the last request and its answer are over, and the next may follow, as far as is known here.
    fn is_at_rest(&self) -> bool {
        let Parts { inlet, out, sending, answer, terms, last, .. } = &*self.parts;
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
        let parts = &mut *self.parts;
        parts.used = true;
        let body = outgoing.body();
        let length = body.framing();
        encode_request(outgoing.method, &outgoing.target, outgoing.headers, length, &mut parts.out);
        parts.sending = Some((body, length));
        let mut sent = 0;
        let mut interim = 0;
        let mut ending = Ending::default();
        poll_fn(|cx| {
            let fresh = sent == 0;
            if parts.poll_send(&mut sent, cx).is_err() {
                return Poll::Ready(Err(if sent == 0 { SendError::Unsent } else { SendError::Closed }));
            }
            if fresh && sent > 0 {
                outgoing.has_begun();
            }
            if let Poll::Ready(answer) =
                parts.poll_head(outgoing, (caller, early), &mut ending, &mut interim, cx)
            {
                return Poll::Ready(answer);
            }
            if caller.activity.is_overdue() { Poll::Ready(Err(SendError::Timeout)) } else { Poll::Pending }
        })
        .await
    }

    /// Takes the stream out after a 101, with what came behind it.
    pub(in crate::proxy) fn into_tunnel(self) -> Box<Tunnel> {
        let Parts { stream, inlet, terms, .. } = *self.parts;
        Tunnel::new(stream, inlet.into_bytes(), terms.permit)
    }
}

impl Parts {
    /// Sends what can be sent of the request, as much at once as there is. An error when the caller broke off, or nothing at
    /// all could be sent.
    fn poll_send(&mut self, sent: &mut usize, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            let mut waits = self.sending.is_none();
            while let Some((body, length)) = &mut self.sending
                && !self.out.is_full()
            {
                if length.is_over() {
                    self.sending = None;
                    waits = true;
                    break;
                }
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Pending => {
                        waits = true;
                        break;
                    }
                    // Trailers do not cross to HTTP/1.1.
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(piece) = frame.into_data() {
                            length.piece(piece, &mut self.out).map_err(|_untrue| BodyError::Caller)?;
                        }
                    }
                    Poll::Ready(None) => {
                        length.end(&HeaderMap::new(), &mut self.out).map_err(|_untrue| BodyError::Caller)?;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.last = true;
                        return Err(error);
                    }
                }
            }
            if self.out.is_empty() {
                return Ok(());
            }
            match self.out.poll_flush(&mut self.stream, sent, cx) {
                Poll::Ready(Ok(())) if waits => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) if *sent == 0 => return Err(BodyError::Upstream(None)),
                // An upstream that has seen enough may have answered before it closed (RFC 9112 §9.5).
                Poll::Ready(Err(_)) => {
                    self.last = true;
                    self.sending = None;
                    self.out = Out::default();
                    return Ok(());
                }
            }
        }
    }

    /// The head of the answer.
    fn poll_head(
        &mut self,
        outgoing: &Outgoing<'_>,
        (caller, early): (&Caller, &dyn Fn(Response<()>)),
        ending: &mut Ending,
        interim: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, SendError>> {
        loop {
            if !self.inlet.bytes.is_empty() {
                let spare = &mut *caller.spare.borrow_mut();
                match take_answer(&mut self.inlet.bytes, ending, self.max_header_bytes, spare) {
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Err(SendError::Invalid)),
                    Ok(Some((answer, said))) => {
                        let status = answer.status();
                        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                            return Poll::Ready(self.begin_answer(answer, said, outgoing));
                        }
                        *interim += 1;
                        if *interim > MAX_INTERIM || said.facts.is_ambiguous() {
                            return Poll::Ready(Err(SendError::Invalid));
                        }
                        early(answer);
                        continue;
                    }
                }
            }
            match ready!(self.inlet.poll_fill(&mut self.stream, cx)) {
                Ok(1..) => {}
                // Its answer had begun: the request has had its effect.
                Ok(0) | Err(_) if *interim > 0 || !self.inlet.bytes.is_empty() => {
                    return Poll::Ready(Err(SendError::Broken));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(SendError::Closed)),
            }
        }
    }

    /// Finds out how the body is framed (RFC 9112 §6.3).
    fn begin_answer(
        &mut self,
        answer: Response<()>,
        said: Said,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response<()>, SendError> {
        let Said { facts, length, connection } = said;
        let (status, version, headers) = (answer.status(), answer.version(), answer.headers());
        // Of HTTP/1.0, chunks are not to be trusted (§6.1).
        let is_old = version != Version::HTTP_11;
        let is_odd_coding = facts.encodings > 0
            && (is_old || !headers[TRANSFER_ENCODING].as_bytes().eq_ignore_ascii_case(b"chunked"));
        if facts.is_ambiguous() || is_odd_coding {
            return Err(SendError::Invalid);
        }
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let bodiless = *outgoing.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || switches;
        self.answer = if bodiless {
            Decoder::Done
        } else if facts.encodings > 0 {
            Decoder::chunked()
        } else if facts.lengths > 0 {
            Decoder::length(length)
        } else {
            Decoder::UntilClose
        };
        self.last |= is_old
            || matches!(self.answer, Decoder::UntilClose)
            || (connection && hop::lists(headers, &CONNECTION, b"close"));
        // What follows a 101 is not HTTP any more.
        if !switches && self.answer.is_exceeded_by(&self.inlet.bytes) {
            return Err(SendError::Invalid);
        }
        Ok(answer)
    }

    /// Goes on with the request after its answer has begun.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if !self.broken && self.poll_send(&mut 1, cx).is_err() {
            (self.broken, self.sending) = (true, None);
        }
    }

    /// The next piece of the answer's body.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let broken = Poll::Ready(Some(Err(BrokenOff(None))));
        // An answer may begin before its request has ended.
        self.poll_upload(cx);
        if self.broken {
            return broken;
        }
        loop {
            match self.answer.take(&mut self.inlet.bytes) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(_) => return broken,
            }
            match ready!(self.inlet.poll_fill(&mut self.stream, cx)) {
                Ok(1..) => {}
                Ok(0) if matches!(self.answer, Decoder::UntilClose) => {
                    self.answer = Decoder::Done;
                    return Poll::Ready(None);
                }
                Ok(0) | Err(_) => return broken,
            }
        }
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
        self.connection.parts.poll_frame(cx)
    }

    /// Goes on with the request while nobody takes the answer.
    pub(in crate::proxy) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.connection.parts.poll_upload(cx);
    }

    /// Whether all of the body has been taken.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        self.connection.parts.answer.is_done()
    }

    /// How much of the body is still to come.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.connection.parts.answer.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The answer is complete. The connection is kept unless the upstream closes it, sent too much, or has not been
    /// sent all of the request.
    pub(in crate::proxy) fn finish(mut self) {
        self.connection.parts.inlet.put_back();
        // What the upstream does meanwhile is looked at when the connection is taken.
        if self.connection.is_at_rest() {
            self.pool.put(self.slot, self.connection);
        }
    }
}
