//! What happens on a route: requests, answers of attaché's own, 401 rejections, upstream connections.

use std::{sync::Arc, time::Duration};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::time::Instant;

use super::{
    own::{Own, OwnAnswers, OwnHandle},
    register,
    traffic::{Traffic, Traffics},
};

pub(super) struct Families {
    traffic: Traffics,
    own: Own,
    rejections: IntCounterVec,
    retries: IntCounterVec,
    replays: IntCounterVec,
    upstream_connections: IntCounterVec,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let counter = |name, help, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Self {
            traffic: register(registry, Traffics::new()),
            own: Own::new(counter(
                "attache_own_answers_total",
                "Requests that attaché itself answered, by reason.",
                &["route", "reason"],
            )),
            rejections: counter(
                "attache_token_rejections_total",
                "Answers 401 from the upstream, by what they led to.",
                &["route", "outcome"],
            ),
            retries: counter(
                "attache_upstream_retries_total",
                "Requests sent again because a kept connection was closing.",
                &["route"],
            ),
            replays: counter(
                "attache_token_replays_total",
                "Requests that got 401 although another token was there or coming, by what became of sending them again.",
                &["route", "outcome"],
            ),
            upstream_connections: counter(
                "attache_upstream_connections_total",
                "Connections to the upstream, by outcome.",
                &["route", "outcome"],
            ),
        }
    }

    pub(super) fn own_answers(&self) -> Vec<OwnAnswers> {
        self.own.seen()
    }

    pub(super) fn handles(&self, route: &str) -> RouteMetrics {
        let rare = Rare {
            own: self.own.route(route),
            rejections: RejectionOutcome::ALL
                .map(|outcome| self.rejections.with_label_values(&[route, outcome.word()])),
            retries: self.retries.with_label_values(&[route]),
            replays: ReplayOutcome::ALL
                .map(|outcome| self.replays.with_label_values(&[route, outcome.word()])),
            upstream_connections: UpstreamConnection::ALL
                .map(|outcome| self.upstream_connections.with_label_values(&[route, outcome.word()])),
        };
        RouteMetrics { traffic: self.traffic.route(route), rare: Arc::new(rare) }
    }
}

/// What a 401 from the upstream led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionOutcome {
    /// A refresh was started.
    Refresh,
    /// The refused token had been replaced already.
    Superseded,
    /// A refresh for an earlier 401 was less than 30 s ago.
    Suppressed,
    /// The token is good and has too little scope: another one would have no more.
    InsufficientScope,
}

impl RejectionOutcome {
    const ALL: [Self; 4] = [Self::Refresh, Self::Superseded, Self::Suppressed, Self::InsufficientScope];

    fn word(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Superseded => "superseded",
            Self::Suppressed => "suppressed",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// What became of sending a request again with a new token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The upstream took the new token.
    Accepted,
    /// The upstream answered 401 again.
    Refused,
    /// There was no answer.
    Failed,
    /// It was not sent again: its method, its length or its kind forbids that.
    NotHeld,
    /// It was not sent again: no new token came.
    NoToken,
}

impl ReplayOutcome {
    const ALL: [Self; 5] = [Self::Accepted, Self::Refused, Self::Failed, Self::NotHeld, Self::NoToken];

    fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::NotHeld => "not_held",
            Self::NoToken => "no_token",
        }
    }
}

/// How a connection to the upstream came to be, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamConnection {
    /// A new one was opened.
    Opened,
    /// It could not be opened.
    Failed,
}

impl UpstreamConnection {
    const ALL: [Self; 2] = [Self::Opened, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Failed => "failed",
        }
    }
}

/// The handles of one route: counting is an atomic addition each.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    traffic: Arc<Traffic>,
    rare: Arc<Rare>,
}

/// What a usual request does not count.
#[derive(Debug)]
struct Rare {
    own: OwnHandle,
    rejections: [IntCounter; 4],
    retries: IntCounter,
    replays: [IntCounter; 5],
    upstream_connections: [IntCounter; 2],
}

impl RouteMetrics {
    /// A request begins.
    pub fn begin(&self) -> Timer {
        self.traffic.begin();
        Timer { traffic: Arc::clone(&self.traffic), begun: Instant::now() }
    }

    /// A request has an answer with this status code.
    pub fn answered(&self, status: u16) {
        self.traffic.answered(status);
    }

    /// attaché itself answered.
    pub fn own_answer(&self, reason: &'static str) {
        self.rare.own.count(reason);
    }

    /// The upstream said 401.
    pub fn rejection(&self, outcome: RejectionOutcome) {
        self.rare.rejections[outcome as usize].inc();
    }

    /// A request was sent again, because a kept connection was closing or the upstream had not looked at it.
    pub fn retry(&self) {
        self.rare.retries.inc();
    }

    /// A request was refused with 401 while another token was there or coming.
    pub fn replay(&self, outcome: ReplayOutcome) {
        self.rare.replays[outcome as usize].inc();
    }

    /// A connection to the upstream was tried.
    pub fn upstream_connection(&self, outcome: UpstreamConnection) {
        self.rare.upstream_connections[outcome as usize].inc();
    }
}

/// A request in flight; counts its duration when it is dropped, however it ends.
#[derive(Debug)]
pub struct Timer {
    traffic: Arc<Traffic>,
    begun: Instant,
}

impl Timer {
    /// Time since the request began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// When the request began.
    pub fn begun(&self) -> Instant {
        self.begun
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.traffic.end(self.begun.elapsed());
    }
}
