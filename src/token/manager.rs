//! The credentials by name, and the tasks that keep them fresh.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    clock::Clock,
    config::CredentialConfig,
    credential::{Credential, Phase},
    error::FetchError,
    refresher::Refresher,
    source::Source,
    status::{CredentialStatus, Journal},
};
use crate::{invalid::Invalid, readiness::Readiness, telemetry::metrics::Metrics};

/// How long a refresher that panicked is left alone.
const RESTART: Duration = Duration::from_secs(1);

/// What the credentials share with the rest of the process.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Tells the time.
    pub clock: Clock,
    /// Waits for the first token of each required credential.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Metrics,
}

/// All credentials of the process. Cheap to clone; the refreshers end when the last clone is dropped.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    credentials: BTreeMap<String, Entry>,
    // Taken by `start`. Locks of the control plane: nothing on the road of a request takes them.
    waiting: Mutex<Vec<Refresher>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Entry {
    credential: Credential,
    journal: Arc<Journal>,
    kind: &'static str,
    required: bool,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.credentials.keys()).finish()
    }
}

impl Manager {
    /// Checks every section. Nothing is sent before [`Manager::start`].
    pub fn build(
        configs: &BTreeMap<String, CredentialConfig>,
        environment: &Environment,
    ) -> Result<Self, Invalid> {
        let mut credentials = BTreeMap::new();
        let mut waiting = Vec::new();
        for (name, config) in configs {
            let section = format!("credentials.{name}");
            let source = Source::build(&config.source, &environment.clock)
                .map_err(|invalid| invalid.under(&section))?;
            if config.common.default_lifetime.0 < Duration::from_secs(1) {
                return Err(Invalid::new("default_lifetime", "is less than a second").under(&section));
            }
            let (entry, refresher) = entry(name, config, source, environment);
            credentials.insert(name.clone(), entry);
            waiting.push(refresher);
        }
        Ok(Self(Arc::new(Inner { credentials, waiting: Mutex::new(waiting), tasks: Mutex::default() })))
    }

    /// Starts the refreshers on the runtime of the caller. Calling it again does nothing.
    pub fn start(&self) {
        let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for refresher in waiting {
            tasks.spawn(supervise(refresher));
        }
    }

    /// The credential of this name.
    pub fn credential(&self, name: &str) -> Option<Credential> {
        self.0.credentials.get(name).map(|entry| entry.credential.clone())
    }

    /// What can be told about each credential.
    pub fn statuses(&self) -> Vec<CredentialStatus> {
        let entries = self.0.credentials.values();
        entries.map(|entry| entry.journal.status(&entry.credential, entry.kind, entry.required)).collect()
    }
}

fn entry(
    name: &str,
    config: &CredentialConfig,
    source: Source,
    environment: &Environment,
) -> (Entry, Refresher) {
    let credential = Credential::new(name, config.common.token_wait.0, environment.clock.clone());
    let journal = Arc::new(Journal::default());
    let required = config.common.required;
    let latch =
        if required { environment.readiness.require(name) } else { environment.readiness.optional(name) };
    let refresher = Refresher {
        name: name.into(),
        source,
        shared: Arc::clone(credential.shared()),
        default_lifetime: config.common.default_lifetime.0,
        latch,
        metrics: environment.metrics.credential(name),
        journal: Arc::clone(&journal),
        last: None,
        failures: 0,
        told: None,
        skew_told: false,
    };
    let entry = Entry { credential, journal, kind: config.source.name(), required };
    (entry, refresher)
}

/// A panic is a bug, and costs one attempt.
async fn supervise(mut refresher: Refresher) {
    loop {
        let _panic = AssertUnwindSafe(refresher.run()).catch_unwind().await;
        tracing::error!(
            credential = &*refresher.name,
            "a token request met a bug in attaché; please report it with the lines above"
        );
        let next = Instant::now() + RESTART;
        refresher.failures = refresher.failures.saturating_add(1);
        refresher.journal.failed(&FetchError::Panicked, next);
        refresher.shared.stand_by();
        refresher.shared.enter(Phase::BackingOff(next));
        time::sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests;
