//! One connection of a caller, from its first byte to its end.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    os::fd::AsFd as _,
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::{Rc, Weak},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt as _;
use http::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time,
};

use super::{
    activity::Activity,
    body::AnswerBody,
    caller::Caller,
    error::{self, Reason},
    handle::handle,
    http2::{self, Opening},
    inflow::Inflow,
    io::Watched,
    listener::Accepted,
    presence::{self, Look, Shared},
    worker::{Load, Worker},
};
use crate::listen::Stream;

/// How long a connection that attaché closes is still read from: a caller that is in the middle of a large upload reads
/// its answer only when it has written, or seen that it cannot.
const LINGER: Duration = Duration::from_secs(5);

/// How long it is read from when nothing comes: a caller that has nothing more to send need not be waited for.
const LINGER_QUIET: Duration = Duration::from_millis(500);

/// Serves a connection. The place and the load are given back when it ends.
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted, _load: Load) {
    let Accepted { stream, live, place: _place } = accepted;
    let stream = match Stream::adopt(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a caller's connection could not be used"),
    };
    let activity = Rc::new(Activity::new(Rc::clone(&worker.ticks)));
    worker.registry.add(&activity);
    let socket = Shared::new(stream);
    activity.watches(socket.looker());
    let (mut stream, scanner) = Watched::caller(socket, Rc::clone(&activity));
    let caller = Rc::new(Caller::new(worker, live, scanner, activity));
    // Without a request, a connection is nothing but this small future. hyper's buffers come with the first byte, and go
    // when it has been quiet for a while.
    let mut begun = first_bytes(stream.stream(), &caller.activity).await;
    if begun == Some(Opening::Unclear) {
        begun = Box::pin(http2::rest_of_preface(stream.stream(), &caller.activity)).await;
    }
    if begun == Some(Opening::Http2) {
        return Box::pin(http2::serve(&caller, stream.into_inner().into_inner())).await;
    }
    while begun.is_some() {
        match Box::pin(converse(&caller, stream)).await {
            Some(parked) => stream = parked,
            None => return,
        }
        // From here on it is HTTP/1, whatever it looks like.
        begun = first_bytes(stream.stream(), &caller.activity).await;
    }
}

/// Waits for the first byte; nothing when the caller leaves or the connection is closed without one.
async fn first_bytes(stream: &Shared<Stream>, activity: &Activity) -> Option<Opening> {
    poll_fn(|cx| {
        activity.driven_by(cx);
        if activity.must_close() {
            return Poll::Ready(None);
        }
        let mut bytes = [0; http2::PREFACE_LEN];
        match stream.socket().poll_peek(cx, &mut bytes) {
            Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Some(http2::opening(&bytes[..count]))),
            Poll::Ready(_) => Poll::Ready(None),
            // A request that is here already is answered also while the process drains.
            Poll::Pending if activity.is_draining() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Serves requests until the connection is quiet, which gives it back, or ends.
async fn converse(caller: &Rc<Caller>, stream: Watched<Shared<Stream>>) -> Option<Watched<Shared<Stream>>> {
    let activity = &caller.activity;
    let switched = Cell::new(None);
    let service = service_fn(|request| {
        let (caller, switched) = (Rc::clone(caller), &switched);
        async move {
            let mut response = survive(&caller, handle(&caller, request.map(Inflow::Http1))).await;
            if let Some(tunnel) = response.body_mut().take_tunnel() {
                switched.set(Some(tunnel));
            }
            Ok::<_, Infallible>(response)
        }
    });
    activity.in_hyper(true);
    let looker = stream.stream().looker();
    let mut connection = caller.worker.http.serve_connection(TokioIo::new(stream), service);
    // Dropped first, while the socket is still there.
    let _unfinished = Unfinished { caller, socket: looker };
    let mut leaving = false;
    let ended = poll_fn(|cx| {
        activity.driven_by(cx);
        if activity.must_close() {
            return Poll::Ready(Ended::Late);
        }
        if activity.should_park() {
            return Poll::Ready(Ended::Quiet);
        }
        if activity.is_draining() && !leaving {
            leaving = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx).map(Ended::Served)
    })
    .await;
    activity.in_hyper(false);
    match ended {
        // Too slow: there is nobody to be polite to.
        Ended::Late => return None,
        // Nothing of it is in hyper: no request has begun, and what was written is out. At most there are empty lines
        // before a request, which mean nothing (RFC 9112 §2.2).
        Ended::Quiet => return Some(connection.into_parts().io.into_inner()),
        Ended::Served(Ok(())) => caller.until_close.set(false),
        // hyper has answered already, 400 or 431, and will not read further.
        Ended::Served(Err(error)) if error.is_parse() => {
            let site = caller.site();
            site.unrouted.own_answer(Reason::MalformedRequest.word());
            site.unrouted.answered(Reason::MalformedRequest.status().as_u16());
        }
        // Either side broke off: the caller must see that at once.
        Ended::Served(Err(_)) => return None,
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match switched.take() {
        // hyper has sent the 101 and is out of the way.
        Some(tunnel) => {
            let mut stream = stream.into_inner().into_inner();
            presence::keep_alive(stream.as_fd());
            if Box::pin(tunnel.run(&mut stream, parts.read_buf)).await.is_err() {
                presence::abort(stream.as_fd());
            }
        }
        None => Box::pin(linger(stream)).await,
    }
    None
}

/// Nothing but the end of the connection tells an HTTP/1.0 caller that its answer is whole (RFC 9112 §6.3). One that breaks
/// off, for whatever reason, must not end like that: the connection is reset.
struct Unfinished<'a> {
    caller: &'a Caller,
    socket: Weak<dyn Look>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.caller.until_close.get()
            && let Some(socket) = self.socket.upgrade()
        {
            socket.abort();
        }
    }
}

/// Why hyper is done with a connection.
enum Ended {
    Late,
    Quiet,
    Served(hyper::Result<()>),
}

/// Reads on for a moment: closing a socket with unread bytes resets the connection, and an answer that is still on its
/// way is lost with it (RFC 9112 §9.6).
async fn linger(mut stream: Watched<Shared<Stream>>) {
    let rest = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(Ok(1..)) = time::timeout(LINGER_QUIET, stream.read(&mut buffer)).await {}
    };
    let _ = time::timeout(LINGER, rest).await;
}

/// A panic is a bug, and stays in its request.
pub(super) async fn survive(
    caller: &Caller,
    answering: impl Future<Output = Response<AnswerBody>>,
) -> Response<AnswerBody> {
    AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_panic| {
        let site = caller.site();
        site.unrouted.own_answer(Reason::Internal.word());
        site.unrouted.answered(Reason::Internal.status().as_u16());
        tracing::error!("a request met a bug in attaché; please report it with the lines above");
        error::answer(Reason::Internal.into())
    })
}
