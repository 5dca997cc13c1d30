//! What a refresher does about files: it looks at those that the source depends on, writes what its store could not, and
//! tells of both.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{task, time};

use super::{PATIENCE, Refresher};
use crate::{
    tls::{Standing, Validity},
    token::{client_auth::ClientAuthMethod, error::FetchError, source::SourceConfig, supplier::Supplier},
};

/// A file that has changed is read again after so long, until it is the same twice: somebody may be writing it.
const SETTLE: Duration = Duration::from_millis(250);

/// Whether the file that this source asks with shows who the client is by a token that somebody else renews all the time, such as
/// a JWT-SVID every few minutes. A new one then says nothing of the token that is held. One that says for whom a token is asked may
/// be another subject's, which must not be spoken for any longer.
pub(in crate::token) fn is_fed(source: &SourceConfig) -> bool {
    match source {
        SourceConfig::ClientCredentials(config) => {
            config.oauth.client_auth == ClientAuthMethod::ClientAssertion
        }
        _ => false,
    }
}

impl Refresher {
    /// Whether something new is a reason to ask: always, but for what is new all the time, which the next request takes anyhow.
    pub(super) fn is_worth_asking(&self) -> bool {
        !self.fed || self.progress.failures > 0
    }

    /// Whether a new secret may be tried now. Once before a `Retry-After` is over: what the provider complained of may have
    /// been the old secret. If it says so again, the next change waits like everything else.
    pub(super) fn may_hurry(&mut self) -> bool {
        let asked_to_wait = self.progress.told.as_ref().and_then(FetchError::retry_after).is_some();
        if asked_to_wait && std::mem::replace(&mut self.progress.hurried, true) {
            tracing::info!(
                credential = &*self.name,
                "the new secret is tried when the provider's Retry-After is over"
            );
            return false;
        }
        true
    }

    /// Whether a file that the source depends on holds something new. Read on a thread for blocking work, and read until
    /// it is the same twice.
    pub(super) async fn look(&mut self) -> bool {
        let mut changed = false;
        // Whoever writes all the time does not keep us from asking.
        for _ in 0..4 {
            if !self.look_once().await {
                break;
            }
            changed = true;
            time::sleep(SETTLE).await;
        }
        if changed {
            self.tell_of_renewal();
        }
        changed
    }

    pub(super) fn tell_of_renewal(&mut self) {
        self.progress.renewed = true;
        tracing::info!(
            credential = &*self.name,
            "a secret has been replaced; the next token request uses it"
        );
    }

    /// Whether a look has found something new since this was asked last.
    pub(super) fn has_found(&self) -> bool {
        self.progress.found.swap(false, Ordering::AcqRel)
    }

    async fn look_once(&self) -> bool {
        // Taken already: an earlier look hangs.
        let Ok(mut supplier) = Arc::clone(&self.supplier).try_lock_owned() else { return false };
        let found = Arc::clone(&self.progress.found);
        let look = task::spawn_blocking(move || {
            if supplier.look() {
                found.store(true, Ordering::Release);
            }
        });
        // One that takes longer goes on; what it finds is told by the next one, because the source tells it only once.
        let _ = time::timeout(PATIENCE, look).await;
        self.has_found()
    }

    /// Tries again to open the store, or to write what is not on the disk yet. Whether the store was all that was missing for
    /// a token request.
    pub(super) async fn tend(&mut self) -> bool {
        let Ok(mut supplier) = Arc::clone(&self.supplier).try_lock_owned() else { return false };
        let opened = supplier.reopen(self.shared.clock().now()).await;
        supplier.tend().await;
        self.tell(&supplier);
        opened
    }

    /// Tells what there is beside the token: one line a change of the store, and of how the client's certificate stands.
    pub(super) fn tell(&mut self, supplier: &Supplier) {
        let status = supplier.status();
        self.names.supplied(&status);
        self.journal.supplied(status);
        if let Some(validity) = supplier.certificate() {
            self.tell_of_certificate(validity);
        }
        let problem = supplier.problem();
        if problem != self.progress.told_of_store {
            match problem {
                Some(error) => tracing::warn!(
                    credential = &*self.name,
                    reason = error.word(),
                    %error,
                    cure = error.cure(),
                    "the store fails; what is new is kept in memory"
                ),
                None => tracing::info!(credential = &*self.name, "the store works again"),
            }
            self.progress.told_of_store = problem;
        }
    }

    fn tell_of_certificate(&mut self, validity: Validity) {
        let now = self.shared.clock().now().wall;
        let Some(standing) = self.progress.certificate.news(validity, now) else { return };
        let left_s = validity.ends.duration_since(now).unwrap_or_default().as_secs();
        match standing {
            Standing::Invalid => tracing::warn!(
                credential = &*self.name,
                "the client's certificate is not valid now: replace its files; they are read at once"
            ),
            _ => tracing::warn!(
                credential = &*self.name,
                left_s,
                "the client's certificate ends soon: replace its files; they are read at once"
            ),
        }
    }
}
