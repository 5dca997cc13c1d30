//! The upstream said 401: the one time that a request tells the token road something.

use http::{Response, header::WWW_AUTHENTICATE};
use hyper::body::Incoming;

use super::route::Route;
use crate::{
    telemetry::metrics::RejectionOutcome,
    token::{Current, Rejection},
};

/// Rejects the token that was refused; returns another one when there is, after waiting for it if it is being fetched.
pub(super) async fn replacement(
    route: &Route,
    response: &Response<Incoming>,
    token: &Current,
) -> Option<Current> {
    // RFC 6750 §3.1: a token with too little scope is a good token, and a new one would have no more.
    let wants_scope = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .any(|challenge| memchr::memmem::find(challenge.as_bytes(), b"insufficient_scope").is_some());
    if wants_scope {
        return None;
    }
    let outcome = match route.credential.reject(token.generation()) {
        Rejection::Refreshing => RejectionOutcome::Refresh,
        Rejection::Superseded => RejectionOutcome::Superseded,
        Rejection::Suppressed => RejectionOutcome::Suppressed,
    };
    route.metrics.rejection(outcome);
    if outcome == RejectionOutcome::Suppressed {
        return None;
    }
    let current = route.credential.wait().await.ok()?;
    (current.generation() != token.generation()).then_some(current)
}
