//! A section that is changed in what cannot matter to its token goes on with it: otherwise a harmless change, made while the
//! provider is down, would leave every request without one.

use std::sync::Arc;

use super::entry::Entry;
use crate::token::{
    config::{CommonConfig, CredentialConfig},
    refresher::Refresher,
    source::SourceConfig,
};

/// Whether the token of `before` is as good under `now`: the same is asked for, of the same, with the same, and only keys differ
/// of which no token depends.
pub(super) fn goes_on(before: &CredentialConfig, now: &CredentialConfig) -> bool {
    // What is read from a file costs nothing, and may be another one by now.
    let asks = !matches!(now.source, SourceConfig::File(_) | SourceConfig::Basic(_));
    // Named one by one, so that a new key is thought about. `default_lifetime` may be shorter because tokens were used too long.
    let CommonConfig {
        token_wait: _,
        required: _,
        max_requests_per_hour: _,
        default_lifetime,
        store,
        store_key,
    } = &before.common;
    asks && before.source == now.source
        && *default_lifetime == now.common.default_lifetime
        && *store == now.common.store
        && *store_key == now.common.store_key
}

/// Makes `entry`, whose refresher is about to be started, go on from the one before. Not when it is built: the one before goes
/// on until then.
pub(super) fn go_on(entry: &Entry, refresher: &mut Refresher) {
    let Some(before) = entry.before.upgrade() else { return };
    if let (Some(sent), Some(supplier)) = (&before.sent, Arc::get_mut(&mut refresher.supplier)) {
        supplier.get_mut().go_on_from(sent);
    }
    let Some(plan) = before.journal.plan() else { return };
    let Some(expires) = entry.credential.shared().go_on_from(before.credential.shared()) else { return };
    entry.names.published(expires.wall);
    entry.journal.go_on(&plan);
    refresher.progress.inherited = Some(plan);
    tracing::info!(
        credential = &*refresher.name,
        "the section has changed in nothing that its token depends on, which stays in use"
    );
}
