//! The answer on its way: its head, and its body, read here or moved by the kernel.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;

use super::{Line, SendError};
use crate::proxy::{
    caller::Caller,
    http1::{Decoder, Ending, Piece, Said, body_length, take_answer},
    inflow::BrokenOff,
    outgoing::Outgoing,
    pipe::Pipe,
};

/// More interim answers (RFC 9110 §15.2) than this to one request come from an upstream that only wants to be read from.
const MAX_INTERIM: u32 = 100;

impl Line {
    /// The head of the answer.
    pub(in crate::proxy::upstream) fn poll_head(
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

    /// How much of the answer's body is still to come, if nothing but that happens on the connection, and the kernel can move it.
    pub(in crate::proxy::upstream) fn pours(&self) -> Option<u64> {
        let only_answers = self.sending.is_none() && self.out.is_empty() && self.inlet.bytes.is_empty();
        match self.answer {
            Decoder::Length(left) if only_answers && !self.broken => self.stream.plain().map(|_| left),
            _ => None,
        }
    }

    /// Moves some of the answer's body into a pipe, while it [`pours`](Self::pours); 0 when nothing comes this way, and it has to be
    /// read.
    pub(in crate::proxy::upstream) fn poll_pour(
        &mut self,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<usize> {
        let (Some(stream), Some(left)) = (self.stream.plain(), self.answer.left()) else {
            return Poll::Ready(0);
        };
        self.inlet.expect_heads();
        let count = ready!(pipe.poll_fill(stream, left, cx));
        self.answer.passed(count);
        Poll::Ready(count)
    }

    /// The next piece of the answer's body.
    pub(in crate::proxy::upstream) fn poll_frame(
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
