//! Looks at the TLS files of all upstreams every few seconds. Connections that were made with older ones are closed as
//! soon as nothing is being sent on them. Tells when a client certificate is about to end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tokio::{task, time};

use super::Upstream;
use crate::{
    telemetry::metrics::UpstreamMetrics,
    tls::{Look, Standing, Validity},
};

/// A changed file is in use within 10 s (F13).
const INTERVAL: Duration = Duration::from_secs(5);

/// The upstreams that have files. All clones are the same.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Watch(
    // Locked by reloads and by the task that looks.
    Arc<Mutex<Watched>>,
);

#[derive(Debug, Default)]
struct Watched {
    // Weak, because a reload may take an upstream away.
    upstreams: Vec<Weak<Upstream>>,
    // Those whose client certificate the metrics show.
    certified: BTreeMap<Box<str>, UpstreamMetrics>,
}

impl Watch {
    /// Looks at the files of this one too.
    pub(in crate::proxy) fn add(&self, upstream: &Arc<Upstream>) {
        if upstream.tls.as_ref().is_some_and(|(tls, _)| tls.can_change()) {
            self.watched().upstreams.push(Arc::downgrade(upstream));
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
            let mut watched = self.watched();
            watched.upstreams.retain(|upstream| upstream.strong_count() > 0);
            watched.upstreams.iter().filter_map(Weak::upgrade).collect()
        };
        for upstream in &upstreams {
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
        self.tell_of_certificates(&upstreams);
    }

    /// In the log once a change; in the metrics that of the first to end, where several lead to the same host and port.
    fn tell_of_certificates(&self, upstreams: &[Arc<Upstream>]) {
        let now = SystemTime::now();
        let mut first: BTreeMap<&str, (&UpstreamMetrics, Validity)> = BTreeMap::new();
        for upstream in upstreams {
            let Some((validity, news)) = upstream.tls.as_ref().and_then(|(tls, _)| tls.certificate(now))
            else {
                continue;
            };
            let left_s = validity.ends.duration_since(now).unwrap_or_default().as_secs();
            match news {
                Some(Standing::Invalid) => tracing::warn!(
                    upstream = %upstream.name,
                    "the client certificate for this upstream is not valid now: replace its files; they are read within seconds"
                ),
                Some(_) => tracing::warn!(
                    upstream = %upstream.name,
                    left_s,
                    "the client certificate for this upstream ends soon: replace its files; they are read within seconds"
                ),
                None => {}
            }
            let known = first.entry(&upstream.name).or_insert((&upstream.metrics, validity));
            if validity.ends < known.1.ends {
                known.1 = validity;
            }
        }
        let mut watched = self.watched();
        watched.certified.retain(|name, metrics| {
            let stays = first.contains_key(&**name);
            if !stays {
                metrics.forget_client_certificate();
            }
            stays
        });
        for (name, (metrics, validity)) in first {
            metrics.client_certificate(validity.begins, validity.ends);
            watched.certified.insert(name.into(), metrics.clone());
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
