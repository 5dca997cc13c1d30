//! The way to an upstream over HTTP/1.1 and back: a request is written here, and the answer to it read in `answer`.

mod answer;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::{UpstreamStream, terms::Terms};
use crate::proxy::{
    body::BodyError,
    http1::{Buffer, Decoder, Inlet, Length, Out, encode_request},
    outgoing::Outgoing,
    upload::RequestBody,
};

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

    /// Goes on with the request after its answer has begun.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if !self.broken && self.poll_send(&mut 1, cx).is_err() {
            (self.broken, self.sending) = (true, None);
        }
    }
}
