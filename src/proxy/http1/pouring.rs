//! A large answer, moved from the upstream's socket to the caller's by the kernel.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::{Length, Wire};
use crate::proxy::{
    body::AnswerBody,
    pipe::{self, Pipe, Pipes},
};

/// Less than this is copied: two calls more for each time that some of it comes cost as much.
const LARGE: u64 = 128 * 1024;

/// How far the kernel is with an answer.
pub(super) struct Pouring<'a> {
    pipes: &'a Rc<Pipes>,
    pipe: Option<Pipe>,
    // It has begun, and goes on however little is left.
    begun: bool,
}

/// What has become of a body.
pub(super) enum Poured {
    /// It is not moved by the kernel, or not yet.
    Nothing,
    /// All of it has been given to the caller's socket.
    All,
    /// It broke off.
    Broken,
}

impl<'a> Pouring<'a> {
    pub(super) fn new(pipes: &'a Rc<Pipes>) -> Self {
        Self { pipes, pipe: None, begun: false }
    }

    /// Goes on with it, if the body is one that the kernel can move.
    pub(super) fn poll(
        &mut self,
        length: &mut Length,
        body: &mut AnswerBody,
        wire: &Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Poured> {
        if self.pipe.is_none() {
            let is_large = matches!(length, Length::Exact(left) if *left >= LARGE || self.begun);
            if !is_large || body.pours().is_none() || !wire.takes_pours() {
                return Poll::Ready(Poured::Nothing);
            }
            let Some(pipe) = self.pipes.take() else { return Poll::Ready(Poured::Nothing) };
            (self.pipe, self.begun) = (Some(pipe), true);
        }
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Poured::Nothing) };
        loop {
            while pipe.holds() {
                match ready!(wire.poll_drain(pipe, cx)) {
                    Ok(count) => length.passed(count),
                    Err(_) => return Poll::Ready(Poured::Broken),
                }
            }
            if length.is_over() {
                self.pipe = None;
                return Poll::Ready(Poured::All);
            }
            match body.poll_pour(pipe, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Err(error)) if pipe::is_unknown(&error) => {
                    self.pipe = None;
                    return Poll::Ready(Poured::Nothing);
                }
                Poll::Ready(_) => return Poll::Ready(Poured::Broken),
                Poll::Pending => {
                    // Others need it more.
                    self.pipe = None;
                    return Poll::Pending;
                }
            }
        }
    }
}
