//! The embedded upstream: it verifies the token and shows what it received, except the token itself.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header},
};
use serde_json::{Map, Value, json};

use super::provider::Verifier;

pub(super) fn router(verifier: Option<Verifier>) -> Router {
    Router::new().fallback(echo).with_state(verifier)
}

async fn echo(
    State(verifier): State<Option<Verifier>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let token =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let claims = token.and_then(|token| verifier?.claims(token));
    let status = if claims.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    let shown: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::String(show(name, value.as_bytes()))))
        .collect();
    let received = json!({
        "method": method.as_str(),
        "target": uri.to_string(),
        "headers": shown,
        "body_bytes": body.len(),
        "token": claims.map_or(json!("missing or not valid"), |claims| json!({ "verified": true, "claims": claims })),
    });
    (status, Json(received))
}

/// What can be shown of a header: the token is as good as a password for as long as it lasts.
fn show(name: &HeaderName, value: &[u8]) -> String {
    if *name != header::AUTHORIZATION {
        return String::from_utf8_lossy(value).into_owned();
    }
    let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
    let length = value.len().saturating_sub(scheme.len() + 1);
    format!("{} <{length} characters>", String::from_utf8_lossy(scheme))
}
