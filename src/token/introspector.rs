//! The task that asks, at an interval, whether a token is still good (`introspect = "60s"`), so that a revoked one is
//! replaced before an upstream refuses it.
//!
//! It is a task of its own: the refresher never waits for it. What it finds out it says as an upstream would, by rejecting
//! a generation, with the same limits: one replacement in 30 s. An answer that does not come, or makes no sense, changes
//! nothing but when the next question is asked: a provider in trouble is left alone as with token requests.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::{Map, Value};
use tokio::{
    task::{self, AbortHandle},
    time,
};

use super::{
    clock::Clock,
    credential::{Credential, Current, Rejection},
    error::FetchError,
    introspection::Introspection,
    oauth::OAuthConfig,
    schedule::{self, Failed},
};
use crate::{
    chance::chance,
    invalid::Invalid,
    telemetry::metrics::{CredentialMetrics, IntrospectionOutcome},
};

/// For one question, discovery included.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Least interval: the provider is not to be asked all the time.
const LEAST: Duration = Duration::from_secs(1);

/// When the next question is asked.
struct Pace {
    interval: Duration,
    /// So many questions in a row have not been answered.
    failures: u32,
}

impl Pace {
    /// How long after a question; `failure` is what came instead of an answer.
    fn after(&mut self, failure: Option<&FetchError>, chance: f64) -> Duration {
        // Sidecars that started together do not ask together.
        let usual = self.interval.mul_f64(chance.mul_add(-0.1, 1.0)).max(LEAST);
        let Some(error) = failure else {
            self.failures = 0;
            return usual;
        };
        self.failures = self.failures.saturating_add(1);
        let (class, retry_after) = (error.class(), error.retry_after());
        // There is a token, and its end does not matter here: the one after it is asked about at the same place.
        let held = Some(Duration::MAX);
        usual.max(schedule::retry_after(Failed { count: self.failures, class, retry_after, held }, chance))
    }
}

/// Asks about the token of one credential.
pub(super) struct Introspector {
    pace: Pace,
    // A lock, because a look at the files leaves this thread with it, and may never come back.
    introspection: Arc<tokio::sync::Mutex<Introspection>>,
    credential: Credential,
    metrics: CredentialMetrics,
    /// The kind of failure that was told last: one warning a change.
    told: Option<FetchError>,
}

impl Introspector {
    /// Nothing, when nobody wants to know.
    pub(super) fn build(
        config: &OAuthConfig,
        client_id: Option<&str>,
        clock: Clock,
        credential: Credential,
        metrics: CredentialMetrics,
    ) -> Result<Option<Self>, Invalid> {
        let Some(interval) = config.introspect else { return Ok(None) };
        if interval.0 < LEAST {
            return Err(Invalid::new("introspect", "is less than a second"));
        }
        let introspection = Introspection::build(config, client_id, clock)?;
        let introspection = Arc::new(tokio::sync::Mutex::new(introspection));
        let pace = Pace { interval: interval.0, failures: 0 };
        Ok(Some(Self { pace, introspection, credential, metrics, told: None }))
    }

    async fn run(&mut self) {
        let mut wait = self.pace.after(None, chance());
        loop {
            time::sleep(wait).await;
            let failure = self.once().await.err();
            wait = self.pace.after(failure.as_ref(), chance());
        }
    }

    async fn ask(&self, current: &Current) -> Result<Map<String, Value>, FetchError> {
        let mut introspection = Arc::clone(&self.introspection).lock_owned().await;
        // On a thread for blocking work: files that do not answer hold up this question only, which has a time limit.
        let looked = task::spawn_blocking(move || {
            introspection.look();
            introspection
        });
        looked.await.map_err(|_| FetchError::Panicked)?.ask(current.token()).await
    }

    async fn once(&mut self) -> Result<(), FetchError> {
        let Some(current) = self.credential.current() else { return Ok(()) };
        let asked = time::timeout(ATTEMPT, self.ask(&current)).await;
        match asked.unwrap_or(Err(FetchError::Timeout)) {
            Ok(told) if told.get("active") == Some(&Value::Bool(true)) => {
                self.metrics.introspected(IntrospectionOutcome::Active);
                self.told = None;
            }
            Ok(_) => {
                self.metrics.introspected(IntrospectionOutcome::Inactive);
                self.told = None;
                let generation = current.generation();
                let rejection = self.credential.reject(generation);
                if rejection != Rejection::Superseded {
                    tracing::warn!(
                        credential = self.credential.name(),
                        generation = generation.0,
                        replaced = rejection == Rejection::Refreshing,
                        "the provider says that the token is not active any more"
                    );
                }
            }
            Err(error) => {
                self.metrics.introspected(IntrospectionOutcome::Failed);
                if self.told.as_ref() != Some(&error) {
                    tracing::warn!(
                        credential = self.credential.name(),
                        reason = error.word(),
                        %error,
                        "the provider cannot be asked about the token, which stays in use"
                    );
                    self.told = Some(error.clone());
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The task of a credential, or none. It ends with it.
// A lock of the control plane: nothing on the road of a request takes it.
pub(super) struct Inquiry(Mutex<State>);

enum State {
    Waiting(Box<Introspector>),
    Running(AbortHandle),
    Nothing,
}

impl Inquiry {
    pub(super) fn new(introspector: Option<Introspector>) -> Self {
        Self(Mutex::new(
            introspector.map_or(State::Nothing, |introspector| State::Waiting(introspector.into())),
        ))
    }

    /// Starts it, unless it runs, on the runtime of the caller.
    pub(super) fn start(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match std::mem::replace(&mut *state, State::Nothing) {
            State::Waiting(introspector) => {
                State::Running(tokio::spawn(supervise(*introspector)).abort_handle())
            }
            other => other,
        };
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        if let State::Running(task) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// A panic is a bug, and costs one question.
async fn supervise(mut introspector: Introspector) {
    let name: Arc<str> = introspector.credential.name().into();
    loop {
        let _panic = AssertUnwindSafe(introspector.run()).catch_unwind().await;
        tracing::error!(credential = &*name, "asking about a token met a bug in attaché; please report it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failed(status: u16, retry_after: Option<u64>) -> FetchError {
        FetchError::Status { status, retry_after: retry_after.map(secs) }
    }

    /// What a provider that fails so often is left in peace for each time, in seconds.
    fn waits(interval: u64, failure: &FetchError) -> [u64; 10] {
        let mut pace = Pace { interval: secs(interval), failures: 0 };
        [(); 10].map(|()| pace.after(Some(failure), 0.5).as_secs_f64().round() as u64)
    }

    #[test]
    fn a_provider_that_fails_is_asked_less_and_less_and_never_more_than_is_configured() {
        assert_eq!(waits(1, &failed(503, None)), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(waits(1, &failed(401, None)), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(waits(100, &failed(503, None)), [95; 10]);
    }

    #[test]
    fn a_retry_after_is_honoured_and_an_answer_brings_the_interval_back() {
        for chance in [0.0, 0.5, 1.0] {
            let mut pace = Pace { interval: secs(1), failures: 0 };
            let wait = pace.after(Some(&failed(429, Some(120))), chance);
            assert!((secs(120)..=secs(125)).contains(&wait), "{wait:?}");
            assert_eq!(pace.after(None, chance), secs(1), "and never sooner than in a second");
            let again = pace.after(Some(&failed(503, None)), chance);
            assert!(again < secs(2), "{again:?}");
        }
    }
}
