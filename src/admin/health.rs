//! What probes are told. A body names credentials and the process, and nothing else, so that `kubectl describe` shows what is missing.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{ReadinessRule, View};

/// The process runs and its control plane answers: that is all there is to know. A provider that is down must not get
/// the process restarted.
pub(super) async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

/// Every required credential has had a token.
pub(super) async fn started(State(view): State<View>) -> Response {
    let missing = view.readiness.missing();
    answer(missing.is_empty(), json!({ "started": missing.is_empty(), "missing": missing }))
}

/// Whether new work should come here.
pub(super) async fn ready(State(view): State<View>) -> Response {
    let missing = missing(&view);
    let draining = view.readiness.is_draining();
    let ready = missing.is_empty() && !draining;
    // While one process takes the ports over from another, only this tells which of them it is.
    let pid = std::process::id();
    answer(ready, json!({ "ready": ready, "draining": draining, "missing": missing, "pid": pid }))
}

/// The required credentials for which `/readyz` says no.
pub(super) fn missing(view: &View) -> Vec<String> {
    let mut missing = view.readiness.missing();
    if view.rule == ReadinessRule::Strict {
        missing.extend((view.look)().unusable);
        missing.sort();
        missing.dedup();
    }
    missing
}

fn answer(yes: bool, body: Value) -> Response {
    let status = if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
