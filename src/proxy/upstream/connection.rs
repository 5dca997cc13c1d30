//! One connection to an upstream, driven by the task that forwards the request.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{Permit, Pool, Upstream, bell::Bell};
use crate::proxy::{
    activity::Activity,
    io::{SharedScanner, UpstreamStream, Watched},
    scan::Facts,
    upgrade::Tunnel,
    upload::RequestBody,
};
use crate::tls::Edition;

type Driver = http1::Connection<TokioIo<Watched<UpstreamStream>>, RequestBody>;

/// A connection between requests, or during one.
#[derive(Debug)]
pub(in crate::proxy) struct Connection {
    // Boxed: it moves between the pool and the requests.
    parts: Box<Parts>,
}

#[derive(Debug)]
struct Parts {
    sender: SendRequest<RequestBody>,
    driver: Driver,
    // A driver that has ended must not be polled again.
    ended: bool,
    bell: Bell,
    scanner: SharedScanner,
    terms: Terms,
    used: bool,
    // It cannot carry another request.
    last: bool,
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
#[derive(Debug)]
pub(in crate::proxy) enum SendError {
    /// Not a byte was sent: the request can go elsewhere.
    Unsent(Box<Request<RequestBody>>),
    /// The connection ended before the answer began.
    Closed,
    /// What came is not an answer.
    Invalid,
    /// The answer did not begin in time.
    Timeout,
}

impl Connection {
    /// Makes hyper's client on a stream.
    pub(super) async fn open(stream: UpstreamStream, upstream: &Upstream, terms: Terms) -> io::Result<Self> {
        let (stream, scanner) = Watched::upstream(stream);
        let (sender, driver) = http1::Builder::new()
            .writev(false)
            .max_buf_size(upstream.max_header_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            parts: Box::new(Parts {
                sender,
                driver,
                ended: false,
                bell: Bell::new(),
                scanner,
                terms,
                used: false,
                last: false,
            }),
        })
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

    /// Whether it can take a request, looking at what the upstream did meanwhile.
    pub(super) fn is_usable(&mut self) -> bool {
        let Parts { sender, driver, ended, bell, scanner, terms, last, .. } = &mut *self.parts;
        bell.look(|cx| {
            // First the driver: it sees a close that the sender has not been told of.
            drive(driver, ended, cx);
            let current = terms.is_current();
            !*ended
                && current
                && !*last
                && !scanner.borrow().has_excess()
                && matches!(sender.poll_ready(cx), Poll::Ready(Ok(())))
        })
    }

    /// Sends a request and waits for the head of the answer; the body is still to come.
    pub(in crate::proxy) async fn send(
        &mut self,
        request: Request<RequestBody>,
        activity: &Activity,
    ) -> Result<(Response<Incoming>, Facts), SendError> {
        let bodiless = request.method() == http::Method::HEAD;
        self.parts.used = true;
        self.parts.scanner.borrow_mut().expect_answer(bodiless);
        let mut sending = pin!(self.parts.sender.try_send_request(request));
        let sent = poll_fn(|cx| {
            let Parts { driver, ended, bell, .. } = &mut *self.parts;
            bell.poll(cx, |cx| {
                drive(driver, ended, cx);
                if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                    return Poll::Ready(Ok(sent));
                }
                if *ended {
                    return Poll::Ready(Err(SendError::Closed));
                }
                if activity.is_overdue() {
                    return Poll::Ready(Err(SendError::Timeout));
                }
                Poll::Pending
            })
        })
        .await?;
        match sent {
            Ok(response) => {
                // hyper takes the peer's version over: to HTTP/1.0 it would send no chunks, and drop such a body.
                self.parts.last = response.version() != http::Version::HTTP_11;
                let mut scanner = self.parts.scanner.borrow_mut();
                let facts = scanner.next().ok_or(SendError::Invalid)?;
                if scanner.has_excess() { Err(SendError::Invalid) } else { Ok((response, facts)) }
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Err(SendError::Unsent(Box::new(request))),
                None if error.error().is_parse() || self.parts.scanner.borrow().fault().is_some() => {
                    Err(SendError::Invalid)
                }
                None => Err(SendError::Closed),
            },
        }
    }
}

/// Reads and writes what can be.
fn drive(driver: &mut Driver, ended: &mut bool, cx: &mut Context<'_>) {
    *ended = *ended || Pin::new(driver).poll(cx).is_ready();
}

impl Connection {
    /// Takes the stream out after a 101, with what came behind it.
    pub(in crate::proxy) fn into_tunnel(self) -> Box<Tunnel> {
        let Parts { driver, terms, .. } = *self.parts;
        let parts = driver.into_parts();
        Tunnel::new(parts.io.into_inner().into_inner(), parts.read_buf, terms.permit)
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
        incoming: &mut Incoming,
        cx: &Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Parts { driver, ended, bell, .. } = &mut *self.connection.parts;
        bell.poll(cx, |cx| {
            // What has been read already, or a word to the driver that more is wanted.
            let frame = Pin::new(&mut *incoming).poll_frame(cx);
            if frame.is_ready() {
                return frame;
            }
            drive(driver, ended, cx);
            Pin::new(&mut *incoming).poll_frame(cx)
        })
    }

    /// The answer is complete. The connection is kept unless the upstream closes it, sent too much, or has not been
    /// sent all of the request.
    pub(in crate::proxy) fn finish(mut self) {
        if self.connection.is_usable() {
            self.pool.put(self.slot, self.connection);
        }
    }
}
