//! One connection of a caller, from its first byte to its end.

use std::{
    future::{Future, poll_fn},
    os::fd::AsFd as _,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt as _;
use http::Response;
use tokio::time;

use super::{
    activity::Activity,
    body::AnswerBody,
    caller::Caller,
    error::{self, Reason},
    http1::{self, Wire},
    http2::{self, Opening},
    listener::Accepted,
    presence::{self, Look as _},
    upgrade::Tunnel,
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
    let wire = Wire::new(stream, Rc::clone(&activity));
    let weak: Weak<Wire> = Rc::downgrade(&wire);
    activity.watches(weak);
    let caller = Rc::new(Caller::new(worker, live, activity));
    // Without a request, a connection is nothing but this small future. Room for a request comes with the first byte, and
    // goes when it has been quiet for a while.
    let mut begun = first_bytes(&wire, &caller.activity).await;
    if begun == Some(Opening::Unclear) {
        begun = Box::pin(http2::rest_of_preface(&wire, &caller.activity)).await;
    }
    if begun == Some(Opening::Http2) {
        return Box::pin(http2::serve(&caller, wire.into_parts().0)).await;
    }
    while begun.is_some() {
        match Box::pin(converse(&caller, &wire)).await {
            Ended::Quiet => {}
            Ended::Closed => return,
            Ended::Switched(tunnel) => {
                let (mut stream, early) = wire.into_parts();
                presence::keep_alive(stream.as_fd());
                if Box::pin(tunnel.run(&mut stream, early)).await.is_err() {
                    presence::abort(stream.as_fd());
                }
                return;
            }
        }
        // From here on it is HTTP/1, whatever it looks like.
        begun = first_bytes(&wire, &caller.activity).await;
    }
}

/// Waits for the first byte; nothing when the caller leaves or the connection is closed without one.
async fn first_bytes(wire: &Wire, activity: &Activity) -> Option<Opening> {
    poll_fn(|cx| {
        activity.driven_by(cx);
        if activity.must_close() {
            return Poll::Ready(None);
        }
        let mut bytes = [0; http2::PREFACE_LEN];
        match wire.poll_peek(cx, &mut bytes) {
            Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Some(http2::opening(&bytes[..count]))),
            Poll::Ready(_) => Poll::Ready(None),
            // A request that is here already is answered also while the process drains.
            Poll::Pending if activity.is_draining() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Why requests are no longer served.
enum Ended {
    /// The connection is quiet: nothing of a request has come, and everything is written.
    Quiet,
    /// There is nothing more to do on it.
    Closed,
    /// It is a tunnel from here on.
    Switched(Box<Tunnel>),
}

/// Serves requests until the connection is quiet, or ends.
async fn converse(caller: &Rc<Caller>, wire: &Rc<Wire>) -> Ended {
    let activity = &caller.activity;
    activity.conversing(true);
    let ended = {
        let mut conversation = pin!(http1::converse(caller, wire));
        // Dropped first, while what it was about is still there.
        let _unfinished = Unfinished { caller, wire };
        poll_fn(|cx| {
            activity.driven_by(cx);
            if activity.must_close() {
                // Too slow: there is nobody to be polite to.
                return Poll::Ready(Some(http1::Ended::Gone));
            }
            if activity.should_park() && wire.is_quiet() {
                return Poll::Ready(None);
            }
            if activity.is_draining() {
                wire.leave();
            }
            conversation.as_mut().poll(cx).map(Some)
        })
        .await
    };
    activity.conversing(false);
    match ended {
        None => Ended::Quiet,
        Some(http1::Ended::Gone) => Ended::Closed,
        Some(http1::Ended::Switched(tunnel)) => Ended::Switched(tunnel),
        Some(http1::Ended::Over) => {
            Box::pin(linger(wire)).await;
            Ended::Closed
        }
    }
}

/// Nothing but the end of the connection tells an HTTP/1.0 caller that its answer is whole (RFC 9112 §6.3). One that breaks
/// off, for whatever reason, must not end like that: the connection is reset.
struct Unfinished<'a> {
    caller: &'a Caller,
    wire: &'a Wire,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.caller.until_close.get() {
            self.wire.abort();
        }
    }
}

/// Reads on for a moment: closing a socket with unread bytes resets the connection, and an answer that is still on its
/// way is lost with it (RFC 9112 §9.6).
async fn linger(wire: &Wire) {
    let rest = async {
        if poll_fn(|cx| wire.poll_shutdown(cx)).await.is_err() {
            return;
        }
        while let Ok(Ok(1..)) = time::timeout(LINGER_QUIET, poll_fn(|cx| wire.poll_discard(cx))).await {}
    };
    let _ = time::timeout(LINGER, rest).await;
}

/// A panic is a bug, and stays in its request. The future stays where it is: it is the largest of all.
pub(super) async fn survive(
    caller: &Caller,
    answering: Pin<&mut impl Future<Output = Response<AnswerBody>>>,
) -> Response<AnswerBody> {
    AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_panic| {
        let site = caller.site();
        site.unrouted.own_answer(Reason::Internal.word());
        site.unrouted.answered(Reason::Internal.status().as_u16());
        tracing::error!("a request met a bug in attaché; please report it with the lines above");
        error::answer(Reason::Internal.into())
    })
}
