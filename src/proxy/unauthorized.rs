//! The upstream said 401: the one time that a request tells the token road something.

use http::{Response, header::WWW_AUTHENTICATE};
use hyper::body::Incoming;

use super::route::Route;
use crate::{
    telemetry::metrics::RejectionOutcome,
    token::{Current, Rejection},
};

/// Rejects the token that was refused; true when another one is there or on its way.
pub(super) fn reject(route: &Route, response: &Response<Incoming>, token: &Current) -> bool {
    // RFC 6750 §3.1: a token with too little scope is a good token, and a new one would have no more.
    let wants_scope = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .any(|challenge| memchr::memmem::find(challenge.as_bytes(), b"insufficient_scope").is_some());
    if wants_scope {
        return false;
    }
    let outcome = match route.credential.reject(token.generation()) {
        Rejection::Refreshing => RejectionOutcome::Refresh,
        Rejection::Superseded => RejectionOutcome::Superseded,
        Rejection::Suppressed => RejectionOutcome::Suppressed,
    };
    route.metrics.rejection(outcome);
    outcome != RejectionOutcome::Suppressed
}

/// Waits for the token that comes after the refused one.
pub(super) async fn replacement(route: &Route, token: &Current) -> Option<Current> {
    let current = route.credential.wait().await.ok()?;
    (current.generation() != token.generation()).then_some(current)
}
