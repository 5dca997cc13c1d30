//! The end of the process, in stages that only go forward.
//!
//! 1. [`Stage::Running`]: work is taken.
//! 2. [`Stage::Leaving`]: readiness is false, connections are still accepted, because load balancers are slow to
//!    notice (`drain_delay`).
//! 3. [`Stage::Draining`]: nothing is accepted any more; requests in flight finish, idle connections are closed.
//! 4. [`Stage::Now`]: whatever is left is dropped (`drain_timeout`, or a second signal).

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::duration::Span;

/// The section `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// How long connections are still accepted while `/readyz` already says no.
    pub drain_delay: Span,
    /// After that: how long requests in flight may take to finish.
    pub drain_timeout: Span,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain_delay: Span::secs(0), drain_timeout: Span::secs(25) }
    }
}

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Work is taken.
    Running,
    /// Not ready any more, but still accepting.
    Leaving,
    /// Not accepting; finishing what is in flight.
    Draining,
    /// Dropping what is left.
    Now,
}

/// Moves the process to its next stage.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Stage>);

/// Tells a part of the process which stage it is in.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

/// A fresh pair, running.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Moves to `stage`; going back is ignored.
    pub fn advance(&self, stage: Stage) {
        self.0.send_if_modified(|current| {
            let forward = stage > *current;
            if forward {
                *current = stage;
            }
            forward
        });
    }
}

impl Shutdown {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until `stage` or a later one is reached. A dropped [`Trigger`] counts as [`Stage::Now`]: nobody is left
    /// to wait for.
    pub async fn reached(&mut self, stage: Stage) {
        let _ = self.0.wait_for(|current| *current >= stage).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_only_go_forward() {
        let (trigger, mut shutdown) = channel();
        trigger.advance(Stage::Draining);
        trigger.advance(Stage::Leaving);
        assert_eq!(shutdown.stage(), Stage::Draining);
        shutdown.reached(Stage::Leaving).await;
    }

    #[tokio::test]
    async fn a_dropped_trigger_ends_the_wait() {
        let (trigger, mut shutdown) = channel();
        drop(trigger);
        shutdown.reached(Stage::Now).await;
    }
}
