//! A source that does what a test says.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use super::Fetched;
use crate::token::{
    access_token::AccessToken,
    answer::{Issued, Lifetime},
    error::FetchError,
};

/// What one attempt does.
#[derive(Clone, Debug)]
pub(in crate::token) enum Step {
    Token {
        lifetime: Duration,
    },
    /// The first token again.
    Again {
        lifetime: Duration,
    },
    Fail(FetchError),
    Slow(Duration, Box<Step>),
    Panic,
}

/// The script, and what happened. Its last step is repeated.
#[derive(Clone, Debug, Default)]
pub(in crate::token) struct Scripted(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    steps: Mutex<VecDeque<Step>>,
    asked: Mutex<Vec<Instant>>,
    replaced: AtomicUsize,
    /// Looks wait for it, as for a file system that does not answer.
    hang: Mutex<()>,
}

impl Scripted {
    pub(in crate::token) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let scripted = Self::default();
        scripted.then(steps);
        scripted
    }

    /// Replaces what is left of the script.
    pub(in crate::token) fn then(&self, steps: impl IntoIterator<Item = Step>) {
        *self.0.steps.lock().unwrap() = steps.into_iter().collect();
    }

    /// Says that a secret has been replaced.
    pub(in crate::token) fn replace_secret(&self) {
        self.write_secret(1);
    }

    /// Says that a secret is another one at each of the next looks, as while it is being written.
    pub(in crate::token) fn write_secret(&self, looks: usize) {
        self.0.replaced.store(looks, Ordering::SeqCst);
    }

    /// When each attempt was made.
    pub(in crate::token) fn asked(&self) -> Vec<Instant> {
        self.0.asked.lock().unwrap().clone()
    }

    pub(super) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let number = {
            let mut asked = self.0.asked.lock().unwrap();
            asked.push(Instant::now());
            asked.len()
        };
        let mut step = {
            let mut steps = self.0.steps.lock().unwrap();
            if steps.len() > 1 { steps.pop_front() } else { steps.front().cloned() }
                .expect("a script has a step")
        };
        loop {
            match step {
                Step::Token { lifetime } | Step::Again { lifetime } => {
                    let number = if matches!(step, Step::Again { .. }) { 1 } else { number };
                    let token = AccessToken::new(format!("token-{number}")).unwrap();
                    let issued =
                        Issued { token, lifetime: Lifetime::Known(lifetime), scope: None, refresh: None };
                    return Ok(Fetched { issued, narrowed: false, skew: None });
                }
                Step::Fail(error) => return Err(error),
                Step::Slow(delay, then) => {
                    time::sleep(delay).await;
                    step = *then;
                }
                Step::Panic => panic!("the script says so"),
            }
        }
    }

    /// Until the guard is dropped, every look hangs.
    pub(in crate::token) fn hang(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.hang.lock().unwrap()
    }

    pub(super) fn look(&self) -> bool {
        drop(self.0.hang.lock().unwrap());
        self.0.replaced.try_update(Ordering::SeqCst, Ordering::SeqCst, |looks| looks.checked_sub(1)).is_ok()
    }
}
