//! Looks at the TLS files of all upstreams every few seconds. Connections that were made with older ones are closed as
//! soon as nothing is being sent on them.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{task, time};

use super::Upstream;
use crate::tls::Look;

/// A changed file is in use within 10 s (F13).
const INTERVAL: Duration = Duration::from_secs(5);

/// The upstreams that have files. All clones are the same.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Watch(
    // Weak, because a reload may take an upstream away. Locked by reloads and by the task that looks.
    Arc<Mutex<Vec<Weak<Upstream>>>>,
);

impl Watch {
    /// Looks at the files of this one too.
    pub(in crate::proxy) fn add(&self, upstream: &Arc<Upstream>) {
        if upstream.tls.as_ref().is_some_and(|(tls, _)| tls.can_change()) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(upstream));
        }
    }

    /// Looks for ever. Never on a worker.
    pub(in crate::proxy) async fn run(self) {
        loop {
            time::sleep(INTERVAL).await;
            let watch = self.clone();
            // A file may be on a disk that hangs: nothing else waits for it.
            let _ = task::spawn_blocking(move || watch.look()).await;
        }
    }

    fn look(&self) {
        let upstreams: Vec<_> = {
            let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            watched.retain(|upstream| upstream.strong_count() > 0);
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        for upstream in upstreams {
            let Some((tls, _)) = &upstream.tls else { continue };
            match tls.look() {
                Look::Same => {}
                Look::Replaced => {
                    tracing::info!(upstream = %upstream.name, "TLS files have changed; new connections use them");
                    upstream.metrics.tls_replaced();
                }
                Look::Refused(mistake) => {
                    tracing::warn!(
                        upstream = %upstream.name,
                        key = mistake.key(),
                        error = mistake.message(),
                        "TLS files have changed and cannot be used; the last good ones stay"
                    );
                    upstream.metrics.tls_rejected();
                }
            }
        }
    }
}
