//! The credentials by name, and the tasks that keep them fresh.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    task::AbortHandle,
    time::{self, Instant},
};

use super::{
    clock::Clock,
    config::CredentialConfig,
    credential::{Credential, Phase},
    error::FetchError,
    introspector::{Inquiry, Introspector},
    refresher::Refresher,
    source::Source,
    status::{CredentialStatus, Journal},
    verify::Verifier,
};
use crate::{
    invalid::Invalid,
    readiness::Readiness,
    telemetry::{metrics::Metrics, traces::Tracer},
};

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
    /// Traces token requests.
    pub traces: Tracer,
}

/// All credentials of the process. Cheap to clone; the refreshers end when the last clone is dropped.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    // Shared with the manager of the configuration before, where a credential has not changed.
    credentials: BTreeMap<String, Arc<Entry>>,
}

struct Entry {
    credential: Credential,
    journal: Arc<Journal>,
    config: CredentialConfig,
    // A lock of the control plane: nothing on the road of a request takes it.
    refresher: Mutex<Task>,
    inquiry: Inquiry,
}

/// The refresher of a credential.
enum Task {
    /// Until `start`.
    Waiting(Box<Refresher>),
    Running(AbortHandle),
    /// In between.
    Starting,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Task::Running(task) = self.refresher.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
        // Whoever still holds the credential need not wait for a token that nobody fetches any more.
        self.credential.shared().enter(Phase::Stopped);
    }
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
        Self::build_after(None, configs, environment)
    }

    /// The same after a change of the configuration: a credential that has not changed keeps its token and its refresher.
    pub fn build_after(
        previous: Option<&Self>,
        configs: &BTreeMap<String, CredentialConfig>,
        environment: &Environment,
    ) -> Result<Self, Invalid> {
        let mut credentials = BTreeMap::new();
        for (name, config) in configs {
            let kept = previous.and_then(|previous| previous.0.credentials.get(name));
            if let Some(kept) = kept.filter(|kept| kept.config == *config) {
                credentials.insert(name.clone(), Arc::clone(kept));
                continue;
            }
            let section = format!("credentials.{name}");
            let source = Source::build(&config.source, &environment.clock)
                .map_err(|invalid| invalid.under(&section))?;
            if config.common.default_lifetime.0 < Duration::from_secs(1) {
                return Err(Invalid::new("default_lifetime", "is less than a second").under(&section));
            }
            // A process that is ready stays ready when a credential is added.
            let waited_for = previous.is_none() || !environment.readiness.is_started();
            let entry = entry(name, config, source, environment, waited_for)
                .map_err(|invalid| invalid.under(&section))?;
            credentials.insert(name.clone(), Arc::new(entry));
        }
        Ok(Self(Arc::new(Inner { credentials })))
    }

    /// Starts the refreshers that do not run yet, on the runtime of the caller.
    pub fn start(&self) {
        for entry in self.0.credentials.values() {
            let mut task = entry.refresher.lock().unwrap_or_else(PoisonError::into_inner);
            *task = match std::mem::replace(&mut *task, Task::Starting) {
                Task::Waiting(refresher) => Task::Running(tokio::spawn(supervise(*refresher)).abort_handle()),
                running => running,
            };
            entry.inquiry.start();
        }
    }

    /// The credential of this name.
    pub fn credential(&self, name: &str) -> Option<Credential> {
        self.0.credentials.get(name).map(|entry| entry.credential.clone())
    }

    /// What can be told about each credential.
    pub fn statuses(&self) -> Vec<CredentialStatus> {
        let entries = self.0.credentials.values();
        let status = |entry: &Arc<Entry>| {
            let config = &entry.config;
            entry.journal.status(&entry.credential, config.source.name(), config.common.required)
        };
        entries.map(status).collect()
    }
}

fn entry(
    name: &str,
    config: &CredentialConfig,
    source: Source,
    environment: &Environment,
    waited_for: bool,
) -> Result<Entry, Invalid> {
    let clock = &environment.clock;
    let credential = Credential::new(name, config.common.token_wait.0, clock.clone());
    let metrics = environment.metrics.credential(name);
    let (mut verifier, mut introspector) = (None, None);
    if let Some((oauth, client_id)) = config.source.oauth() {
        verifier = Verifier::build(oauth, clock.clone())?;
        let (credential, metrics) = (credential.clone(), metrics.clone());
        introspector = Introspector::build(oauth, client_id, clock.clone(), credential, metrics)?;
    }
    let journal = Arc::new(Journal::default());
    let readiness = &environment.readiness;
    let latch =
        if config.common.required && waited_for { readiness.require(name) } else { readiness.optional(name) };
    let refresher = Refresher {
        name: name.into(),
        source,
        verifier,
        shared: Arc::clone(credential.shared()),
        default_lifetime: config.common.default_lifetime.0,
        latch,
        metrics,
        traces: environment.traces.clone(),
        journal: Arc::clone(&journal),
        last: None,
        failures: 0,
        told: None,
        skew_told: false,
        narrowed_told: false,
    };
    Ok(Entry {
        credential,
        journal,
        config: config.clone(),
        refresher: Mutex::new(Task::Waiting(Box::new(refresher))),
        inquiry: Inquiry::new(introspector),
    })
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
