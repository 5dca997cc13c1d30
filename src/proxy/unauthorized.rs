//! The upstream said 401: the one time that a request tells the token road something.

use http::{Response, header::WWW_AUTHENTICATE};

use super::route::{Injected, Route};
use crate::{
    telemetry::metrics::{RejectionOutcome, ReplayOutcome},
    token::{Current, Rejection},
};

/// Rejects the token that was refused; true when another one is there or on its way.
pub(super) fn reject<B>(route: &Route, response: &Response<B>, injected: &Injected) -> bool {
    // What the caller brought itself is the caller's affair.
    let (Some(token), Some(credential)) = (injected, &route.credential) else { return false };
    // RFC 6750 §3.1: a token with too little scope is a good token, and a new one would have no more.
    let wants_scope = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .any(|challenge| memchr::memmem::find(challenge.as_bytes(), b"insufficient_scope").is_some());
    if wants_scope {
        route.metrics.rejection(RejectionOutcome::InsufficientScope);
        return false;
    }
    let outcome = match credential.reject(token.generation()) {
        Rejection::Refreshing => RejectionOutcome::Refresh,
        Rejection::Superseded => RejectionOutcome::Superseded,
        Rejection::Suppressed => RejectionOutcome::Suppressed,
    };
    route.metrics.rejection(outcome);
    outcome != RejectionOutcome::Suppressed
}

/// Waits for the token that comes after the refused one, as long as the request can be sent again: one that cannot does not wait
/// for what it cannot use.
pub(super) async fn replacement(
    route: &Route,
    injected: &Injected,
    is_replayable: impl Fn() -> bool,
) -> Option<Current> {
    let (Some(token), Some(credential)) = (injected, &route.credential) else { return None };
    let why_not = if is_replayable() {
        let current = credential.wait().await.ok();
        match current.filter(|current| current.generation() != token.generation()) {
            None => ReplayOutcome::NoToken,
            // Towards HTTP/2 the upload goes on meanwhile, and may become more than is held.
            Some(another) if is_replayable() => return Some(another),
            Some(_) => ReplayOutcome::NotHeld,
        }
    } else {
        ReplayOutcome::NotHeld
    };
    route.metrics.replay(why_not);
    None
}

/// A request that has been sent once more. Counted when it is answered, or dropped without an answer.
pub(super) struct Replaying<'a> {
    route: &'a Route,
    outcome: ReplayOutcome,
}

impl<'a> Replaying<'a> {
    pub(super) fn begin(route: &'a Route) -> Self {
        Self { route, outcome: ReplayOutcome::Failed }
    }

    /// The upstream has answered it.
    pub(super) fn answered(mut self, refused: bool) {
        self.outcome = if refused { ReplayOutcome::Refused } else { ReplayOutcome::Accepted };
    }
}

impl Drop for Replaying<'_> {
    fn drop(&mut self) {
        self.route.metrics.replay(self.outcome);
    }
}
