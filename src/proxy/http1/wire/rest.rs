//! What is left of a request that has been answered, and is not needed any more.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use super::{Inner, Wire};
use crate::proxy::http1::Piece;

/// How many reads are spent on the rest of a request that has been answered.
const DISCARDED: usize = 8;

impl Wire {
    /// Whether all of the request has been read, as far as it has come: what is here of it is thrown away.
    pub(in crate::proxy::http1) fn has_whole_request(&self) -> bool {
        let Inner { stream, inlet, body, .. } = &mut *self.inner.borrow_mut();
        // As much as was under way when the answer was complete, and no more.
        for _ in 0..DISCARDED {
            while !inlet.bytes.is_empty() {
                match body.take(&mut inlet.bytes) {
                    Ok(Piece::Data(_)) => {}
                    Ok(Piece::Trailers(_) | Piece::End) => break,
                    Ok(Piece::More) => break,
                    Err(_) => return false,
                }
            }
            if body.is_done() {
                return true;
            }
            let mut nobody = Context::from_waker(Waker::noop());
            if !matches!(inlet.poll_fill(stream, &mut nobody), Poll::Ready(Ok(1..))) {
                return false;
            }
        }
        false
    }

    /// Reads on until the caller has ended its side.
    pub(in crate::proxy) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Inner { stream, inlet, .. } = &mut *self.inner.borrow_mut();
        inlet.bytes.clear();
        inlet.poll_fill(stream, cx)
    }
}
