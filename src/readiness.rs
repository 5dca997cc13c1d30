//! Whether this sidecar is ready: a latch for each required credential, and whether it drains.
//!
//! A latch opens with the first token of its credential and never closes again: a service whose token is late must
//! not be taken out of its load balancer, the token manager handles that. Draining closes readiness for good.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// The readiness of the process. Cheap to clone; all clones are the same readiness.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // A lock, not a channel: latches are added when a configuration is built and looked at by probes, never by requests.
    // Weak, because a credential that a reload took away, or that was never started, must not be waited for.
    latches: Mutex<Vec<(Arc<str>, Weak<AtomicBool>)>>,
    draining: AtomicBool,
    // Wakes whoever waits for a change; the value is only a version.
    changed: watch::Sender<()>,
}

/// Opened once, when a required credential has had its first token.
#[derive(Clone, Debug)]
pub struct Latch {
    name: Arc<str>,
    open: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Latch {
    /// Opens the latch; opening it again does nothing.
    pub fn open(&self) {
        if !self.open.swap(true, Ordering::Release) {
            self.changed.send_replace(());
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The name of the credential it stands for.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Nothing is required yet, and nothing drains.
    pub fn new() -> Self {
        let changed = watch::Sender::new(());
        Self(Arc::new(Inner { latches: Mutex::default(), draining: AtomicBool::new(false), changed }))
    }

    /// A closed latch that is not required: a credential that no probe waits for.
    pub fn optional(&self, name: &str) -> Latch {
        Latch { name: name.into(), open: Arc::default(), changed: self.0.changed.clone() }
    }

    /// A closed latch that must open before the process is ready.
    pub fn require(&self, name: &str) -> Latch {
        let latch = self.optional(name);
        let mut latches = self.latches();
        latches.retain(|(_, open)| open.strong_count() > 0);
        latches.push((Arc::clone(&latch.name), Arc::downgrade(&latch.open)));
        latch
    }

    /// The process will not take new work: never ready again.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.0.changed.send_replace(());
    }

    /// Whether the process drains.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// The names of required credentials that have not had a token yet.
    pub fn missing(&self) -> Vec<String> {
        self.latches().iter().filter(|latch| is_closed(latch)).map(|(name, _)| name.to_string()).collect()
    }

    /// Every required credential has had a token.
    pub fn is_started(&self) -> bool {
        !self.latches().iter().any(is_closed)
    }

    /// Started and not draining.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.is_started()
    }

    /// Waits until the process is ready.
    pub async fn ready(&self) {
        let mut changed = self.0.changed.subscribe();
        while !self.is_ready() {
            // The sender lives in `self`, so this cannot fail.
            let _ = changed.changed().await;
        }
    }

    fn latches(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<str>, Weak<AtomicBool>)>> {
        self.0.latches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is still to be opened: whoever could open it is there, and has not.
fn is_closed((_, open): &(Arc<str>, Weak<AtomicBool>)) -> bool {
    open.upgrade().is_some_and(|open| !open.load(Ordering::Acquire))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_required_credential_has_had_a_token() {
        let readiness = Readiness::new();
        let (a, b) = (readiness.require("a"), readiness.require("b"));
        let _not_waited_for = readiness.optional("c");
        assert!(!readiness.is_ready());
        a.open();
        assert_eq!(readiness.missing(), ["b"]);
        b.open();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_credential_that_is_gone_is_not_waited_for() {
        let readiness = Readiness::new();
        let latch = readiness.require("a");
        assert!(!readiness.is_ready());
        drop(latch);
        assert!(readiness.is_ready() && readiness.missing().is_empty());
    }

    #[test]
    fn draining_is_never_ready_again() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.drain();
        assert!(!readiness.is_ready() && readiness.is_started());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_last_latch() {
        let readiness = Readiness::new();
        let latch = readiness.require("a");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        latch.open();
        waiting.await.unwrap();
    }
}
