//! A large answer, moved from the upstream's socket to the caller's by the kernel.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::{Length, Wire};
use crate::proxy::{
    body::AnswerBody,
    pipe::{Pipe, Pipes},
};

/// Less to come than this is copied: two calls more for each time that some of it comes cost as much. It is 64 KiB without the 8 KiB
/// that are read with the head of the first such answer. (Of the next one the head is read alone; and what was read whole because
/// answers like it were expected does not come here.)
const LARGE: u64 = 56 * 1024;

/// More misses in a row than this are no chance: what comes has to be read.
const MISSES: u8 = 8;

/// How far the kernel is with an answer.
pub(super) struct Pouring<'a> {
    pipes: &'a Rc<Pipes>,
    pipe: Option<Pipe>,
    // It has begun, and goes on however little is left.
    begun: bool,
    // The rest is copied.
    given_up: bool,
    broken: bool,
    // How often in a row nothing came this way, although something seemed to be there.
    missed: u8,
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
        Self { pipes, pipe: None, begun: false, given_up: false, broken: false, missed: 0 }
    }

    /// Goes on with it, if the body is one that the kernel can move.
    pub(super) fn poll(
        &mut self,
        length: &mut Length,
        body: &mut AnswerBody,
        wire: &Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Poured> {
        if self.pipe.is_none() && !self.begin(*length, body, wire, cx) {
            return Poll::Ready(if self.broken { Poured::Broken } else { Poured::Nothing });
        }
        loop {
            let Some(pipe) = &mut self.pipe else { return Poll::Ready(Poured::Nothing) };
            let (mut waits, mut missed) = (false, false);
            // Before what was written goes out: all of it is one segment then.
            if pipe.has_room() && body.pours().is_some() {
                match body.poll_pour(pipe, cx) {
                    Poll::Pending => waits = true,
                    Poll::Ready(0) => missed = true,
                    Poll::Ready(_) => self.missed = 0,
                }
            }
            if pipe.holds() {
                match ready!(wire.poll_drain(pipe, cx)) {
                    Ok(count) => length.passed(count),
                    // It had come: it is written.
                    Err(_) if !self.pipes.are_proven() && wire.out(|out| out.is_empty()) => {
                        let taken = pipe.take_back().map(|bytes| wire.out(|out| length.piece(bytes, out)));
                        (self.pipe, self.given_up) = (None, true);
                        let is_whole = matches!(taken, Ok(Ok(())));
                        return Poll::Ready(if is_whole { Poured::Nothing } else { Poured::Broken });
                    }
                    Err(_) => return Poll::Ready(Poured::Broken),
                }
            } else if length.is_over() {
                self.pipe = None;
                return Poll::Ready(Poured::All);
            } else if missed {
                // A read says why, or waits.
                self.missed += 1;
                self.given_up = self.missed > MISSES;
                self.pipe = None;
                return Poll::Ready(Poured::Nothing);
            } else if waits {
                // Others need it more.
                self.pipe = None;
                return Poll::Pending;
            } else {
                return Poll::Ready(Poured::Broken);
            }
        }
    }

    /// Takes a pipe, and puts into it what is on its way to the caller.
    fn begin(&mut self, length: Length, body: &AnswerBody, wire: &Wire, cx: &mut Context<'_>) -> bool {
        let is_large = matches!(length, Length::Exact(left) if left >= LARGE || self.begun);
        if !is_large || self.given_up || body.pours().is_none() || !wire.takes_pours() {
            return false;
        }
        // Where it is not known that the kernel does it, nothing must be in the pipe when it is found out.
        if !self.pipes.are_proven() && !matches!(wire.poll_flush(cx), Poll::Ready(Ok(()))) {
            return false;
        }
        let Some(mut pipe) = self.pipes.take() else {
            self.given_up = true;
            return false;
        };
        if !wire.pour_out(&mut pipe, cx) {
            // What is in the pipe already would be missing.
            self.broken = pipe.holds();
            return false;
        }
        (self.pipe, self.begun) = (Some(pipe), true);
        true
    }
}
