//! What the keys of a section must agree on: its `type`, the store and the limit.

use crate::{
    invalid::Invalid,
    token::{config::CredentialConfig, source::SourceConfig},
};

/// Checks it.
pub(super) fn check(config: &CredentialConfig) -> Result<(), Invalid> {
    let common = &config.common;
    match &config.source {
        SourceConfig::RefreshToken(source) if common.store.is_none() && !source.unsafe_no_store => {
            return Err(Invalid::new("store", "is missing: a provider may replace the refresh token at any time")
                .hint(
                    "name a file on a volume that outlives the process, such as `store = \"/var/lib/attache/orders\"`, \
                     or set `unsafe_no_store = true` if the provider never rotates refresh tokens",
                ));
        }
        SourceConfig::RefreshToken(source) if common.store.is_some() && source.unsafe_no_store => {
            return Err(
                Invalid::new("unsafe_no_store", "is given, and `store` too").hint("remove one of them")
            );
        }
        SourceConfig::RefreshToken(_) => {}
        SourceConfig::File(_) | SourceConfig::Basic(_)
            if common.max_requests_per_hour.is_some() || common.store.is_some() =>
        {
            let key = if common.store.is_some() { "store" } else { "max_requests_per_hour" };
            return Err(
                Invalid::new(key, "is given, but this `type` makes no token request").hint("remove it")
            );
        }
        _ if common.store.is_some() && common.store_key.is_none() => {
            return Err(Invalid::new("store_key", "is missing: access tokens are kept encrypted only").hint(
                "make a key with `openssl rand -base64 32`, put it into a file and name that file here",
            ));
        }
        _ => {}
    }
    if common.store.is_none() && common.store_key.is_some() {
        return Err(Invalid::new("store_key", "is given, but there is no `store`").hint("add `store`"));
    }
    if common.max_requests_per_hour == Some(0) {
        return Err(Invalid::new("max_requests_per_hour", "is 0, which allows no token at all"));
    }
    Ok(())
}
