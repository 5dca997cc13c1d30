//! `/status`: what is configured and how it is, for people and scripts.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{View, health, page};

/// Routes and credentials as they are at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// The routes.
    pub routes: Vec<RouteView>,
    /// The credentials: name, type, state, expiry, last error and next attempt.
    pub credentials: Value,
    /// Required credentials without a usable token.
    #[serde(skip)]
    pub unusable: Vec<String>,
    /// Where the configuration came from and what became of its last change.
    pub configuration: Value,
}

/// A route, as it was configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteView {
    /// Its name.
    pub name: String,
    /// The host it matches, if not every one.
    pub host: Option<String>,
    /// The path it matches.
    pub path: String,
    /// Where its requests go.
    pub upstream: String,
    /// The credential that is injected.
    pub credential: String,
}

/// As JSON, or as a page for whoever says to want one (RFC 9110 §12.5.1): browsers do, curl does not.
pub(super) async fn show(State(view): State<View>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = if accept.into_iter().any(|accept| accept.contains("text/html")) {
        page::answer(&status(&view))
    } else {
        Json(status(&view)).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn status(view: &View) -> Value {
    let missing = health::missing(view);
    let draining = view.readiness.is_draining();
    let Snapshot { routes, credentials, configuration, .. } = (view.look)();
    let own_answers: Vec<_> = view
        .metrics
        .own_answers()
        .into_iter()
        .map(|answers| {
            json!({
                "route": answers.route,
                "reason": answers.reason,
                "count": answers.count,
                "recent": answers.recent(),
                "by_minute": answers.by_minute,
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": missing.is_empty() && !draining,
        "draining": draining,
        "missing": missing,
        "routes": routes,
        "credentials": credentials,
        "own_answers": own_answers,
        "configuration": configuration,
    })
}
