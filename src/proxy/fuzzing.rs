//! What `tests/fuzz` may call of the way of a request. Not part of any other build.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{hop, inject::Injection, path};

/// A request's headers as they go on: stripped, every spelling of the injected name removed, the credential set.
pub fn forward(headers: &mut HeaderMap, injected: HeaderName, credential: &HeaderValue) {
    hop::strip_request(headers);
    let injection = Injection::new(injected);
    injection.remove_spellings(headers);
    injection.set(headers, credential);
}

/// Whether a path is taken by a route with a prefix.
pub fn is_accepted(path: &str) -> bool {
    path::check_within_prefix(path).is_ok()
}
