//! The credentials by name, and the tasks that keep them fresh.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    clock::Clock,
    config::CredentialConfig,
    credential::{Credential, Phase},
    introspector::{Inquiry, Introspector},
    named::{Named, Names},
    refresher::{Progress, Refresher},
    source::SourceConfig,
    status::{CredentialStatus, Journal},
    supplier::Supplier,
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

#[derive(Default)]
struct Inner {
    // Shared with the manager of the configuration before, where a credential has not changed, and between names whose
    // sections are the same.
    credentials: BTreeMap<String, Arc<Entry>>,
    // Names that credentials of the configuration before get when this one is in force.
    joining: Mutex<Vec<(Arc<Entry>, Named)>>,
}

struct Entry {
    credential: Credential,
    names: Arc<Names>,
    journal: Arc<Journal>,
    config: CredentialConfig,
    // Dropped, it stops the refresher before its next attempt.
    stop: Mutex<Option<watch::Sender<()>>>,
    // A lock of the control plane: nothing on the road of a request takes it.
    refresher: Mutex<Task>,
    inquiry: Inquiry,
}

/// The refresher of a credential.
enum Task {
    /// Until `start`.
    Waiting(Box<Refresher>),
    Running(JoinHandle<()>),
    /// In between, and after the end.
    Gone,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Not aborted: an answer that is on its way may hold the only refresh token there is.
        // What an attempt under way still brings is told under no name any more.
        self.names.retain(|_| false);
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
        let mut inner = Inner::default();
        for (name, config) in configs {
            let before = previous.map(|previous| &previous.0.credentials);
            let same = |entry: &&Arc<Entry>| entry.config == *config;
            // Its own first; else one that asks for the same token in the same way, now or under another name before.
            let kept = before
                .and_then(|before| before.get(name).filter(same))
                .or_else(|| inner.credentials.values().find(same))
                .or_else(|| before.and_then(|before| before.values().find(same)));
            // A process that is ready stays ready when a credential is added.
            let waited_for = previous.is_none() || !environment.readiness.is_started();
            let entry = match kept.map(Arc::clone) {
                Some(kept) => {
                    if !kept.names.contain(name) {
                        let named = named(name, config, environment, waited_for);
                        inner.joining().push((Arc::clone(&kept), named));
                    }
                    kept
                }
                None => {
                    let section = format!("credentials.{name}");
                    let build = || {
                        let supplier = Supplier::build(config, &environment.clock)?;
                        if config.common.default_lifetime.0 < Duration::from_secs(1) {
                            return Err(Invalid::new("default_lifetime", "is less than a second"));
                        }
                        entry(name, config, supplier, environment, waited_for)
                    };
                    Arc::new(build().map_err(|invalid| invalid.under(&section))?)
                }
            };
            inner.credentials.insert(name.clone(), entry);
        }
        inner.check_stores()?;
        Ok(Self(Arc::new(inner)))
    }

    /// Starts the refreshers that do not run yet, on the runtime of the caller.
    pub fn start(&self) {
        for (entry, named) in self.0.joining().drain(..) {
            entry.names.add(named);
        }
        for entry in self.0.credentials.values() {
            let mine =
                |name: &str| self.0.credentials.get(name).is_some_and(|other| Arc::ptr_eq(other, entry));
            entry.names.retain(mine);
        }
        for entry in self.0.credentials.values() {
            let mut task = entry.refresher.lock().unwrap_or_else(PoisonError::into_inner);
            *task = match std::mem::replace(&mut *task, Task::Gone) {
                Task::Waiting(refresher) => {
                    legacy(&entry.config, &entry.credential);
                    Task::Running(tokio::spawn(supervise(*refresher)))
                }
                running => running,
            };
            entry.inquiry.start();
        }
    }

    /// Stops the refreshers, and waits for answers that must not be lost: those that may hold a new refresh token.
    pub async fn finish(&self) {
        let entries = || self.0.credentials.values();
        for entry in entries() {
            entry.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        for entry in entries().filter(|entry| matches!(entry.config.source, SourceConfig::RefreshToken(_))) {
            let task = {
                let mut task = entry.refresher.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut *task, Task::Gone)
            };
            if let Task::Running(task) = task {
                // A refresher that panicked has nothing left to lose.
                let _ = task.await;
            }
        }
    }

    /// The credential of this name.
    pub fn credential(&self, name: &str) -> Option<Credential> {
        self.0.credentials.get(name).map(|entry| entry.credential.clone())
    }

    /// What can be told about each credential.
    pub fn statuses(&self) -> Vec<CredentialStatus> {
        let status = |(name, entry): (&String, &Arc<Entry>)| {
            let config = &entry.config;
            entry.journal.status(name, &entry.credential, config.source.name(), config.common.required)
        };
        self.0.credentials.iter().map(status).collect()
    }
}

impl Inner {
    fn joining(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<Entry>, Named)>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A store belongs to one credential: each would overwrite what the other has written.
    fn check_stores(&self) -> Result<(), Invalid> {
        let mut known: Vec<(&std::path::Path, &String, &Arc<Entry>)> = Vec::new();
        for (name, entry) in &self.credentials {
            let Some(store) = &entry.config.common.store else { continue };
            if let Some((_, other, _)) =
                known.iter().find(|(path, _, known)| path == store && !Arc::ptr_eq(known, entry))
            {
                let key = format!("credentials.{name}.store");
                return Err(Invalid::new(key, format!("is the store of `credentials.{other}` already"))
                    .hint("give each credential a file of its own"));
            }
            known.push((store, name, entry));
        }
        Ok(())
    }
}

fn named(name: &str, config: &CredentialConfig, environment: &Environment, waited_for: bool) -> Named {
    let readiness = &environment.readiness;
    let latch =
        if config.common.required && waited_for { readiness.require(name) } else { readiness.optional(name) };
    Named { name: name.to_owned(), latch, metrics: environment.metrics.credential(name) }
}

fn entry(
    name: &str,
    config: &CredentialConfig,
    supplier: Supplier,
    environment: &Environment,
    waited_for: bool,
) -> Result<Entry, Invalid> {
    let clock = &environment.clock;
    let credential =
        Credential::new(name, config.common.token_wait.0, clock.clone(), config.source.usual_format());
    let mut introspector = None;
    if let Some((oauth, client_id)) = config.source.oauth() {
        let (credential, metrics) = (credential.clone(), environment.metrics.credential(name));
        introspector = Introspector::build(oauth, client_id, clock.clone(), credential, metrics)?;
    }
    let (journal, names) = (Arc::new(Journal::default()), Arc::new(Names::default()));
    names.add(named(name, config, environment, waited_for));
    let (stop, stopped) = watch::channel(());
    let refresher = Refresher {
        name: name.into(),
        names: Arc::clone(&names),
        supplier: Arc::new(tokio::sync::Mutex::new(supplier)),
        shared: Arc::clone(credential.shared()),
        default_lifetime: config.common.default_lifetime.0,
        traces: environment.traces.clone(),
        journal: Arc::clone(&journal),
        stop: stopped,
        progress: Progress::default(),
    };
    Ok(Entry {
        credential,
        names,
        journal,
        config: config.clone(),
        stop: Mutex::new(Some(stop)),
        refresher: Mutex::new(Task::Waiting(Box::new(refresher))),
        inquiry: Inquiry::new(introspector),
    })
}

/// What is told at every start.
fn legacy(config: &CredentialConfig, credential: &Credential) {
    if matches!(config.source, SourceConfig::Password(_)) {
        tracing::warn!(
            credential = credential.name(),
            "the password grant is legacy (RFC 9700 section 2.4): use another type as soon as the provider offers one"
        );
    }
}

/// A panic is a bug, and costs one attempt.
async fn supervise(mut refresher: Refresher) {
    while AssertUnwindSafe(refresher.run()).catch_unwind().await.is_err() {
        tracing::error!(
            credential = &*refresher.name,
            "a token request met a bug in attaché; please report it with the lines above"
        );
        refresher.panicked(RESTART).await;
    }
    refresher.shared.enter(Phase::Stopped);
}

#[cfg(test)]
mod tests;
