//! A credential as the manager holds it: what is read of it, and the task that keeps it fresh.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{sync::watch, task::JoinHandle};

use super::Environment;
use crate::{
    invalid::Invalid,
    token::{
        config::CredentialConfig,
        credential::{Credential, Phase},
        introspector::{Inquiry, Introspector},
        named::{Named, Names},
        quota::Sent,
        refresher::{Progress, Refresher, is_fed},
        source::SourceConfig,
        status::Journal,
        supplier::Supplier,
    },
};

/// How long a refresher that panicked is left alone.
const RESTART: Duration = Duration::from_secs(1);

/// A credential with its refresher.
pub(super) struct Entry {
    pub(super) credential: Credential,
    pub(super) names: Arc<Names>,
    pub(super) journal: Arc<Journal>,
    pub(super) config: CredentialConfig,
    // Dropped, it stops the refresher before its next attempt.
    pub(super) stop: Mutex<Option<watch::Sender<()>>>,
    // A lock of the control plane: nothing on the road of a request takes it.
    pub(super) refresher: Mutex<Task>,
    pub(super) inquiry: Inquiry,
    /// What has been sent of its limit, where it has one.
    pub(super) sent: Option<Sent>,
    /// The one whose token and count it goes on with. Weak: only whoever has the manager before keeps that alive.
    pub(super) before: Weak<Self>,
}

/// The refresher of a credential.
pub(super) enum Task {
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

pub(super) fn named(
    name: &str,
    config: &CredentialConfig,
    environment: &Environment,
    waited_for: bool,
) -> Named {
    let readiness = &environment.readiness;
    let latch =
        if config.common.required && waited_for { readiness.require(name) } else { readiness.optional(name) };
    Named { name: name.to_owned(), latch, metrics: environment.metrics.credential(name) }
}

pub(super) fn entry(
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
    let sent = supplier.sent();
    let refresher = Refresher {
        name: name.into(),
        names: Arc::clone(&names),
        supplier: Arc::new(tokio::sync::Mutex::new(supplier)),
        shared: Arc::clone(credential.shared()),
        default_lifetime: config.common.default_lifetime.0,
        fed: is_fed(&config.source),
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
        sent,
        before: Weak::new(),
    })
}

/// What is told at every start.
pub(super) fn legacy(config: &CredentialConfig, credential: &Credential) {
    if matches!(config.source, SourceConfig::Password(_)) {
        tracing::warn!(
            credential = credential.name(),
            "the password grant is legacy (RFC 9700 section 2.4): use another type as soon as the provider offers one"
        );
    }
}

/// A panic is a bug, and costs one attempt.
pub(super) async fn supervise(mut refresher: Refresher) {
    while AssertUnwindSafe(refresher.run()).catch_unwind().await.is_err() {
        tracing::error!(
            credential = &*refresher.name,
            "a token request met a bug in attaché; please report it with the lines above"
        );
        refresher.panicked(RESTART).await;
    }
    refresher.shared.enter(Phase::Stopped);
}
