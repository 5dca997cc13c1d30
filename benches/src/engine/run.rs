//! What is sent, until when, and what came of it.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

/// What each caller of a load sends, in turn, and what it expects.
pub struct Plan {
    pub requests: Vec<Rc<[u8]>>,
    pub expected: usize,
    /// Requests at a time on one connection with HTTP/2; 0 stands for HTTP/1.1.
    pub streams: usize,
}

/// Callers of one target, connected once.
pub struct Load {
    pub callers: Vec<usize>,
    pub plan: Rc<Plan>,
}

impl Load {
    /// Nobody asks.
    pub fn none() -> Self {
        let plan = Plan { requests: Vec::new(), expected: 0, streams: 0 };
        Self { callers: Vec::new(), plan: Rc::new(plan) }
    }
}

/// What a slice did.
#[derive(Default)]
pub struct Tally {
    pub completed: u64,
    pub errors: u64,
    pub example: Option<String>,
    pub elapsed: Duration,
    pub latencies: Vec<Duration>,
}

/// When a load stops sending.
#[derive(Clone, Copy)]
pub enum Limit {
    Until(Instant),
    Requests(u64),
}

/// A load that is being run.
pub(super) struct Run<'a> {
    pub(super) load: &'a Load,
    pub(super) limit: Limit,
    pub(super) sent: u64,
    pub(super) in_flight: usize,
    pub(super) tally: Tally,
    /// Kept for its memory.
    pub(super) done: Vec<Duration>,
}

impl<'a> Run<'a> {
    pub(super) fn new(load: &'a Load, limit: Limit) -> Self {
        Self { load, limit, sent: 0, in_flight: 0, tally: Tally::default(), done: Vec::new() }
    }
}
