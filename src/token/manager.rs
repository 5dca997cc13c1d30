//! The credentials by name, and the tasks that keep them fresh.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use self::{
    entry::{Entry, Task, entry, legacy, named, supervise},
    succession::{go_on, goes_on},
};
use super::{
    clock::Clock, config::CredentialConfig, credential::Credential, named::Named, source::SourceConfig,
    status::CredentialStatus, store::Handover, supplier::Supplier,
};
use crate::{
    invalid::Invalid,
    readiness::Readiness,
    telemetry::{metrics::Metrics, traces::Tracer},
};

mod entry;
mod succession;

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
    // One for each store that any configuration of this process has named: a section may be gone for a while, and what its
    // store has left is nowhere else.
    handovers: BTreeMap<PathBuf, Handover>,
    // Names that credentials of the configuration before get when this one is in force.
    joining: Mutex<Vec<(Arc<Entry>, Named)>>,
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

    /// The same after a change of the configuration: a credential that has not changed keeps its token and its refresher; one whose
    /// token does not depend on what has changed, its token.
    pub fn build_after(
        previous: Option<&Self>,
        configs: &BTreeMap<String, CredentialConfig>,
        environment: &Environment,
    ) -> Result<Self, Invalid> {
        let mut inner = Inner::default();
        if let Some(previous) = previous {
            inner.handovers.clone_from(&previous.0.handovers);
        }
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
                    let before = before.and_then(|before| before.get(name));
                    if let Some(before) = before {
                        moved(&before.config, config).map_err(|invalid| invalid.under(&section))?;
                    }
                    let mut build = || {
                        let mut supplier = Supplier::build(config, &environment.clock)?;
                        if let Some(path) = &config.common.store {
                            supplier.inherit(inner.handovers.entry(path.clone()).or_default().clone());
                        }
                        if config.common.default_lifetime.0 < Duration::from_secs(1) {
                            return Err(Invalid::new("default_lifetime", "is less than a second"));
                        }
                        entry(name, config, supplier, environment, waited_for)
                    };
                    let mut entry = build().map_err(|invalid| invalid.under(&section))?;
                    if let Some(before) = before.filter(|before| goes_on(&before.config, config)) {
                        entry.before = Arc::downgrade(before);
                    }
                    Arc::new(entry)
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
            // The name may have been another credential's.
            named.metrics.begin_anew();
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
                Task::Waiting(mut refresher) => {
                    entry.names.begin_anew();
                    legacy(&entry.config, &entry.credential);
                    go_on(entry, &mut refresher);
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

/// A store that is another file from now on would leave the newest refresh token behind, and the one in the configuration is
/// spent by then: whoever sees it again may revoke all that came from it.
fn moved(before: &CredentialConfig, now: &CredentialConfig) -> Result<(), Invalid> {
    let refreshes = |config: &CredentialConfig| matches!(config.source, SourceConfig::RefreshToken(_));
    if before.common.store == now.common.store || !refreshes(before) || !refreshes(now) {
        return Ok(());
    }
    let (what, cure) = match &before.common.store {
        Some(_) => (
            "of a refresh token cannot be another file while attaché runs",
            "leave it as it was; or stop attaché, move the file there, and start attaché again",
        ),
        None => (
            "cannot be given to a refresh token while attaché runs: the one in the configuration may be spent",
            "leave it as it was; or get a new refresh token, put it in place together with `store`, and start attaché again",
        ),
    };
    Err(Invalid::new("store", what).hint(cure))
}

#[cfg(test)]
mod tests;
