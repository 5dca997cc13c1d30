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

/// As JSON, or as a page for whoever prefers one: browsers do, curl does not.
pub(super) async fn show(State(view): State<View>, headers: HeaderMap) -> Response {
    let mut response = if prefers_page(&headers) {
        page::answer(&status(&view))
    } else {
        Json(status(&view)).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether a page is named, and not JSON as much (RFC 9110 §12.5.1). Of what is not named, the next wider range holds.
fn prefers_page(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = accept.flat_map(|accept| accept.split(',')).map(range).collect();
    let weight = |wanted: &str| ranges.iter().find(|(name, _)| name == wanted).map(|(_, weight)| *weight);
    let Some(page) = weight("text/html").filter(|page| *page > 0.0) else { return false };
    match weight("application/json") {
        Some(json) => page > json,
        None => page >= weight("application/*").or_else(|| weight("*/*")).unwrap_or(0.0),
    }
}

/// The name of a media range and how much it is wanted. A weight that cannot be read is none.
fn range(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_for_who_prefers_it_to_json() {
        for (accept, page) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("TEXT/HTML; Q=0.5 , */*;q=0.1", true),
            ("text/html, */*", true),
            ("text/html", true),
            ("application/json;q=0.5, text/html", true),
            ("application/json, text/html", false),
            ("application/json, text/html;q=0.9", false),
            ("application/*, text/html;q=0.9", false),
            ("text/html;q=0, */*", false),
            ("text/html;q=soon", false),
            ("application/json;profile=text/html", false),
            ("*/*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(prefers_page(&headers), page, "{accept}");
        }
        assert!(!prefers_page(&HeaderMap::new()));
    }
}
