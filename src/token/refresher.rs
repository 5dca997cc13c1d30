//! The task that keeps one credential fresh. It is dumb: when to do what is decided in `schedule`.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::{self, Instant},
};

use super::{
    clock::{Clock, Moment},
    credential::{Phase, Shared},
    error::{Class, FetchError},
    named::Names,
    schedule::{self, LEAST_INTERVAL},
    status::{Failure, Journal, Plan},
    store::StoreError,
    supplier::Supplier,
};
use crate::{
    chance::chance,
    telemetry::{
        metrics::RefreshOutcome,
        traces::{TokenSpan, Tracer},
    },
    tls::Herald,
};

mod files;
mod outcome;

pub(super) use self::files::is_fed;

/// How often the files that a source depends on are looked at, and what could not be written to its store is tried again.
const LOOK: Duration = Duration::from_secs(5);

/// How long a look at the files may keep a token request waiting. Whoever hangs on a dead file system goes on hanging, but
/// on a thread that nobody else needs.
const PATIENCE: Duration = Duration::from_secs(2);

/// For one attempt, discovery and token request together.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A skew of the provider's clock that is worth a line in the log, in seconds.
const SKEW_TOLD: f64 = 30.0;

/// One credential's refresher.
pub(super) struct Refresher {
    pub(super) name: Arc<str>,
    pub(super) names: Arc<Names>,
    // A lock, because a look at the files leaves this thread with it, and may never come back.
    pub(super) supplier: Arc<Mutex<Supplier>>,
    pub(super) shared: Arc<Shared>,
    pub(super) default_lifetime: Duration,
    /// What it asks with is itself short-lived, and written anew all the time: see [`is_fed`].
    pub(super) fed: bool,
    pub(super) traces: Tracer,
    pub(super) journal: Arc<Journal>,
    /// Closed when nobody wants the credential any more.
    pub(super) stop: watch::Receiver<()>,
    pub(super) progress: Progress,
}

/// What it remembers from one attempt to the next.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When the last token request was sent.
    last: Option<Instant>,
    pub(super) failures: u32,
    /// After a failure: when the pace of `max_requests_per_hour` allows the next attempt.
    paced: Option<Instant>,
    /// The kind of failure that was told last: one warning a change.
    told: Option<FetchError>,
    told_of_store: Option<StoreError>,
    skew_told: bool,
    certificate: Herald,
    narrowed_told: bool,
    /// The store has been asked for a token.
    began: bool,
    /// The token is that of the section before, with which it stood so.
    pub(super) inherited: Option<Plan>,
    /// A replaced secret was tried before the provider's `Retry-After` was over: not again before an answer without one.
    hurried: bool,
    /// A look has found something new. Set where it looks: that may take longer than anybody waits for it.
    found: Arc<AtomicBool>,
    /// A secret has been replaced, and no token has come with it yet.
    renewed: bool,
}

impl Refresher {
    /// Fetches, waits, fetches again; ends only when it is stopped, and never in the middle of an attempt: an answer that
    /// nobody takes may hold the only refresh token.
    pub(super) async fn run(&mut self) {
        loop {
            let wait = self.attempt().await;
            let mut stop = self.stop.clone();
            tokio::select! {
                () = self.rest(Instant::now() + wait) => {}
                _ = stop.changed() => break,
            }
        }
        // What is only in memory would be lost now.
        if let Ok(mut supplier) = time::timeout(PATIENCE, self.supplier.lock()).await {
            supplier.tend().await;
        }
    }

    /// A bug ended an attempt: waits, and counts it as one that failed.
    pub(super) async fn panicked(&mut self, pause: Duration) {
        let next = Instant::now() + pause;
        self.progress.failures = self.progress.failures.saturating_add(1);
        let error = FetchError::Panicked;
        let told = (&error).into();
        self.journal.failed(Failure { error, told, count: self.progress.failures }, next);
        self.shared.stand_by();
        self.shared.enter(Phase::BackingOff(next));
        time::sleep_until(next).await;
    }

    /// One attempt; returns how long until the next.
    async fn attempt(&mut self) -> Duration {
        // Whatever woke us: never more than one request a second.
        if let Some(last) = self.progress.last {
            time::sleep_until(last + LEAST_INTERVAL).await;
        }
        // While the provider fails, callers are told so at once instead of waiting for one more failure.
        if self.progress.failures == 0 {
            self.shared.enter(Phase::Fetching);
        }
        self.look().await;
        let begun = self.shared.clock().now();
        let supplier = Arc::clone(&self.supplier);
        let Ok(mut supplier) = time::timeout(PATIENCE, supplier.lock()).await else {
            return self.failed(FetchError::Blocked, Duration::ZERO, Duration::ZERO);
        };
        // What a look has found that was late: this attempt uses it.
        if self.has_found() {
            self.tell_of_renewal();
        }
        let wait = self.ask(&mut supplier, begun).await;
        self.tell(&supplier);
        wait
    }

    /// The same with what is asked.
    async fn ask(&mut self, supplier: &mut Supplier, begun: Moment) -> Duration {
        if let Err(error) = self.open(supplier, begun).await {
            return self.failed(error, begun.monotonic.elapsed(), Duration::ZERO);
        }
        if !std::mem::replace(&mut self.progress.began, true)
            && let Some(wait) = self.go_on().or_else(|| self.take_up(supplier.kept(begun)?, begun))
        {
            return wait;
        }
        if let Some(wait) = supplier.hold_off(begun) {
            return self.failed(FetchError::Quota, Duration::ZERO, wait);
        }
        if let Err(error) = supplier.note(begun).await {
            return self.failed(error, begun.monotonic.elapsed(), Duration::ZERO);
        }
        self.progress.last = Some(Instant::now());
        let fetched = match time::timeout(ATTEMPT, supplier.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Timeout),
        };
        let took = begun.monotonic.elapsed();
        let token = fetched.as_ref().ok().map(|fetched| fetched.issued.token.clone());
        let outcome = fetched.and_then(|fetched| self.publish(fetched, begun));
        let reason = outcome.as_ref().err().map(FetchError::word);
        self.traces.token_request(begun.wall, took, TokenSpan { credential: Arc::clone(&self.name), reason });
        match outcome {
            Ok(lifetime) => {
                self.names.refreshed(RefreshOutcome::Success, took);
                let wait = schedule::refresh_after(lifetime, chance()).saturating_sub(took);
                self.succeeded(lifetime, wait);
                if let Some(token) = token {
                    // After it is in use: a slow disk holds nobody up.
                    supplier.keep(&token, begun, begun.after(lifetime)).await;
                }
                wait
            }
            Err(error) => {
                let told = supplier.explain(&error);
                self.failed_so(error, told, took, supplier.pace())
            }
        }
    }

    /// Opens the store. A process that takes over from another one, or a new configuration from an old one, waits for it a
    /// little at first.
    async fn open(&mut self, supplier: &mut Supplier, now: Moment) -> Result<(), FetchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let patient = !self.progress.began && Instant::now() < deadline;
            match supplier.open(now, patient).await {
                Err(FetchError::Store(StoreError::InUse)) if patient => {
                    time::sleep(Duration::from_millis(50)).await;
                }
                opened => return opened,
            }
        }
    }

    /// How long the current token can still be used.
    fn held(&self, clock: &Clock) -> Option<Duration> {
        let (usable_until, _) = self.shared.validity()?;
        Some(usable_until.left(clock.now())).filter(|left| !left.is_zero())
    }

    /// Whether a clock has ended the token before its planned replacement, which otherwise always comes first: the machine
    /// was suspended, or its clock set. Noticed here too, because an idle process has no request that would tell.
    fn is_overtaken(&self) -> bool {
        self.progress.failures == 0
            && self.shared.validity().is_some()
            && self.held(self.shared.clock()).is_none()
    }

    /// Waits for the planned time, or for a reason to ask sooner: a 401, a token that a clock has expired, a new secret.
    async fn rest(&mut self, mut until: Instant) {
        loop {
            let woken = {
                tokio::select! {
                    () = time::sleep_until(until) => return,
                    () = self.shared.woken() => true,
                    () = time::sleep(LOOK) => false,
                }
            };
            if woken {
                // Backing off is not cut short by callers, only by the operator.
                let wanted = self.shared.is_suspect() || self.held(self.shared.clock()).is_none();
                if wanted && self.progress.failures == 0 {
                    return;
                }
            } else if (self.look().await && self.is_worth_asking() && self.may_hurry())
                || self.tend().await
                || self.is_overtaken()
            {
                return;
            }
            // A token that only the wall clock has ended was counted on when the back-off was planned.
            let planned_with_token = self
                .progress
                .told
                .as_ref()
                .is_some_and(|error| error.class() == Class::Transient && error.retry_after().is_none());
            if planned_with_token && self.held(self.shared.clock()).is_none() {
                let soon = Instant::now() + schedule::CAP_NONE;
                until = until.min(self.progress.paced.map_or(soon, |paced| paced.max(soon)));
            }
        }
    }
}
