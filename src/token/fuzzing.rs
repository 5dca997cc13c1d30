//! What `tests/fuzz` may call of the way of a token. Not part of any other build.

use std::time::Duration;

use http::HeaderValue;

use super::{
    access_token::Format,
    answer::{self, Lifetime},
};

/// Reads an answer: the header that its token makes, and its lifetime; or why there is no token.
pub fn read(body: &[u8]) -> Result<(HeaderValue, Option<Duration>), String> {
    // Of any other answer the error code is told in the log.
    let code = answer::error_code(body).map(|code| format!("{code:?}"));
    let issued = answer::success(body).map_err(|error| code.unwrap_or_else(|| error.to_string()))?;
    let lifetime = match issued.lifetime {
        Lifetime::Known(lifetime) => Some(lifetime),
        Lifetime::Unknown => None,
    };
    Ok((Format::default().render(&issued.token), lifetime))
}
