//! Writes an answer.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{
    HeaderMap, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRAILER},
    response::Parts,
};
use http_body::Body as _;

use super::{
    Length, Wire,
    converse::clear,
    encode,
    pouring::{Poured, Pouring},
};
use crate::proxy::{
    body::{Alongside as _, AnswerBody},
    caller::Caller,
    hop,
    upgrade::Tunnel,
};

/// What a request says about how it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// The connection may carry another request.
    pub(super) keep: bool,
}

/// What an answer leaves behind.
pub(super) enum Told {
    /// A connection for the next request.
    Kept,
    /// One that is to be closed.
    Over,
    /// One that must be closed at once: the answer is not whole.
    Broken,
    /// A tunnel.
    Switched(Box<Tunnel>),
}

/// Writes all of an answer.
pub(super) async fn reply(
    caller: &Caller,
    wire: &Wire,
    response: Response<AnswerBody>,
    manner: Manner,
) -> Told {
    let (mut head, mut body) = response.into_parts();
    let switched = body.take_tunnel();
    let length = length(&mut head, &body, manner);
    let keep = manner.keep && !wire.is_leaving() && length != Length::UntilClose;
    wire.begin_answer();
    // Where nothing is awaited any more, the head can say whether the connection ends.
    let keep = keep && (!body.is_here() || wire.has_whole_request());
    let keep = wire.out(|out| encode::answer(&head, manner.version, length, keep, out));
    if let Some(tunnel) = switched {
        return match poll_fn(|cx| wire.poll_flush(cx)).await {
            Ok(()) => Told::Switched(tunnel),
            Err(_) => Told::Broken,
        };
    }
    // Of what is said of an answer to HEAD, nothing is sent (RFC 9110 §9.3.2); and what has no body is not waited for.
    let length = if manner.is_head { Length::None } else { length };
    let body = Some(body).filter(|_| length != Length::None);
    let mut writing = Writing { length, body, whole: true, pouring: Pouring::new(&caller.worker.pipes) };
    let written = poll_fn(|cx| writing.poll(&head.headers, wire, cx)).await;
    if written.is_err() || !writing.whole {
        return Told::Broken;
    }
    caller.activity.flushed();
    // Its end may look like one.
    caller.until_close.set(false);
    clear(&mut head.headers);
    caller.worker.spare.replace(head.headers);
    if keep && wire.has_whole_request() { Told::Kept } else { Told::Over }
}

/// Writes an interim answer, to a caller that knows of them (RFC 9110 §15.2). Whoever does not read gets none.
pub(super) fn tell_early(wire: &Wire, early: Response<()>, manner: Manner, cx: &mut Context<'_>) {
    if manner.version != Version::HTTP_10 {
        let (head, ()) = early.into_parts();
        wire.out(|out| {
            if !out.is_full() {
                encode::interim(&head, out);
            }
        });
        // What breaks off is seen when the answer is written.
        let _ = wire.poll_flush(cx);
    }
}

/// What is said of the length of the body.
fn length(head: &mut Parts, body: &AnswerBody, manner: Manner) -> Length {
    let exact = body.size_hint().exact();
    let length = match head.status {
        // RFC 9110 §8.6, §15.4.5: a 304 may say the length of what it does not send.
        StatusCode::NOT_MODIFIED => return Length::None,
        StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS => {
            head.headers.remove(CONTENT_LENGTH);
            return Length::None;
        }
        // The upstream's length stands in its header fields, if it told one.
        _ if manner.is_head && body.is_end_stream() => return Length::None,
        _ => match exact {
            Some(length) => Length::Exact(length),
            None if manner.version == Version::HTTP_10 => Length::UntilClose,
            None => Length::Chunked,
        },
    };
    if exact.is_none() {
        head.headers.remove(CONTENT_LENGTH);
    }
    length
}

/// The body of an answer on its way.
struct Writing<'a> {
    length: Length,
    // Dropped as soon as all of it is taken: the request ends with it.
    body: Option<AnswerBody>,
    // Whether the answer will be what its head says.
    whole: bool,
    pouring: Pouring<'a>,
}

impl Writing<'_> {
    fn poll(&mut self, headers: &HeaderMap, wire: &Wire, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some(body) = &mut self.body {
            match self.pouring.poll(&mut self.length, body, wire, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Poured::All) => continue,
                Poll::Ready(Poured::Broken) => {
                    // Nothing goes out behind what is missing.
                    (self.whole, self.body) = (false, None);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Poured::Nothing) => {}
            }
            if wire.out(|out| out.is_full()) && wire.poll_flush(cx)?.is_pending() {
                body.poll_upload(cx);
                return Poll::Pending;
            }
            if self.length.is_over() && body.is_end_stream() {
                self.body = None;
                break;
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => {
                    // What is here goes out while the rest is waited for.
                    ready!(wire.poll_flush(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => self.whole = wire.out(|out| self.length.piece(piece, out)).is_ok(),
                    Err(frame) => {
                        let trailers = frame.into_trailers().map(|trailers| announced(trailers, headers));
                        self.end(&trailers.unwrap_or_default(), wire);
                    }
                },
                Poll::Ready(None) => self.end(&HeaderMap::new(), wire),
                Poll::Ready(Some(Err(_))) => self.whole = false,
            }
            if !self.whole {
                self.body = None;
            }
        }
        wire.poll_flush(cx)
    }

    fn end(&mut self, trailers: &HeaderMap, wire: &Wire) {
        self.whole = wire.out(|out| self.length.end(trailers, out)).is_ok();
        self.body = None;
    }
}

/// Over HTTP/1.1, those trailers only that were announced (RFC 9110 §6.6.2).
fn announced(mut trailers: HeaderMap, headers: &HeaderMap) -> HeaderMap {
    let others: Vec<_> = trailers
        .keys()
        .filter(|name| !hop::lists(headers, &TRAILER, name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in &others {
        trailers.remove(name);
    }
    trailers
}
