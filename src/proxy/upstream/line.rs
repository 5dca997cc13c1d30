//! The way to an upstream over HTTP/1.1 and back: a request is written, and the answer to it read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};

use super::{UpstreamStream, terms::Terms};
use crate::proxy::{
    body::BodyError,
    caller::Caller,
    http1::{
        Buffer, Decoder, Ending, Inlet, Length, Out, Piece, Said, body_length, encode_request, take_answer,
    },
    inflow::BrokenOff,
    outgoing::Outgoing,
    upload::RequestBody,
};

/// More interim answers (RFC 9110 §15.2) than this to one request come from an upstream that only wants to be read from.
const MAX_INTERIM: u32 = 100;

/// What is on its way on a connection.
#[derive(Debug)]
pub(super) struct Line {
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
    counted: bool,
    // It cannot carry another request.
    last: bool,
    // The request broke off after its answer had begun.
    broken: bool,
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

impl Line {
    pub(super) fn new(stream: UpstreamStream, max_header_bytes: usize, terms: Terms) -> Self {
        Self {
            stream,
            inlet: Inlet::new(Buffer::Answers),
            out: Out::default(),
            sending: None,
            answer: Decoder::Done,
            max_header_bytes,
            terms,
            used: false,
            counted: false,
            last: false,
            broken: false,
        }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// It is kept, and may end at any time from here on.
    pub(super) fn rests(&mut self) {
        self.used = true;
    }

    /// Whether nobody has asked this before: true once.
    pub(super) fn count_once(&mut self) -> bool {
        !std::mem::replace(&mut self.counted, true)
    }

    /// Whether it has carried a request, or been kept.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Whether the upstream says that it ends.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// Whether the last request and its answer are over, and the next may follow, as far as is known here.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.last
            && self.answer.is_done()
            && self.sending.is_none()
            && self.out.is_empty()
            && self.inlet.bytes.is_empty()
            && self.terms.is_current()
    }

    /// The same, looking at what the upstream did meanwhile.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.is_at_rest() && self.stream.is_silent()
    }

    /// A request is to be sent.
    pub(super) fn begin(&mut self, outgoing: &Outgoing<'_>) {
        self.used = true;
        let body = outgoing.body();
        let length = body.framing();
        encode_request(outgoing.method, &outgoing.target, outgoing.headers, length, &mut self.out);
        self.sending = Some((body, length));
    }

    /// Whether all of the answer's body has been taken.
    pub(super) fn is_complete(&self) -> bool {
        self.answer.is_done()
    }

    /// How much of the answer's body is still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.answer.left()
    }

    /// The answer is complete. Gives back what is not needed between requests.
    pub(super) fn rest(&mut self) {
        self.inlet.put_back();
    }

    /// The stream, what has come on it, and what it was opened under.
    pub(super) fn into_parts(self) -> (UpstreamStream, Bytes, Terms) {
        (self.stream, self.inlet.into_bytes(), self.terms)
    }

    /// Sends what can be sent of the request, as much at once as there is. An error when the caller broke off, or nothing at
    /// all could be sent.
    pub(super) fn poll_send(&mut self, sent: &mut usize, cx: &mut Context<'_>) -> Result<(), BodyError> {
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
    pub(super) fn poll_head(
        &mut self,
        outgoing: &Outgoing<'_>,
        (caller, early): (&Caller, &dyn Fn(Response<()>)),
        ending: &mut Ending,
        interim: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, SendError>> {
        loop {
            if !self.inlet.bytes.is_empty() {
                // HTTP/2 remembers fields for as long as the caller's connection lives (RFC 7541 §2.3.2), and a body that is
                // written slowly would otherwise keep a large buffer for a small head.
                let apart = !caller.is_http_1 || self.inlet.is_large();
                let max = self.max_header_bytes;
                let spare = &caller.worker.spare;
                let taken = take_answer(&mut self.inlet.bytes, ending, max, apart, &mut spare.borrow_mut());
                match taken {
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

    /// Finds out where the body ends.
    fn begin_answer(
        &mut self,
        answer: Response<()>,
        said: Said,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response<()>, SendError> {
        let (decoder, ends) =
            body_length::of_answer(outgoing.method, &answer, said).ok_or(SendError::Invalid)?;
        self.answer = decoder;
        self.last |= ends;
        // What follows a 101 is not HTTP any more.
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !switches && self.answer.is_exceeded_by(&self.inlet.bytes) {
            return Err(SendError::Invalid);
        }
        Ok(answer)
    }

    /// Goes on with the request after its answer has begun.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if !self.broken && self.poll_send(&mut 1, cx).is_err() {
            (self.broken, self.sending) = (true, None);
        }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
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
