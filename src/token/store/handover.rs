//! What passes between the stores of one path that follow each other in a process, as the configuration changes: which of them
//! has it now, and what one that could not be written leaves to the next, because the newest refresh token may be nowhere else.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::{Content, Lock, Store, StoreError};

/// What they share. All clones are the same.
#[derive(Clone, Debug, Default)]
pub(in crate::token) struct Handover(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// A store has it, or is about to open it. The lock alone does not tell within a process: it is another one once the file
    /// system has become read-only, and none where there are no locks.
    taken: bool,
    left: Option<Left>,
}

/// With the lock, so that no other process has written in between.
#[derive(Debug)]
struct Left {
    content: Content,
    revision: u64,
    lock: Arc<Lock>,
    writing: Option<JoinHandle<Result<u64, StoreError>>>,
}

impl Handover {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Is one of those that share this. Before it is opened.
    pub(in crate::token) fn inherit(&mut self, handover: Handover) {
        self.handover = handover;
    }

    /// Whether no other store of this process has it; none gets it from now on.
    pub(super) fn claim(&mut self) -> bool {
        self.claimed = self.claimed || !std::mem::replace(&mut self.handover.state().taken, true);
        self.claimed
    }

    /// Goes on with what was left, if anything was.
    pub(super) fn take_over(&mut self) -> bool {
        let Some(Left { mut content, revision, lock, writing }) = self.handover.state().left.take() else {
            return false;
        };
        content.access = content.access.filter(|_| self.is_sealed());
        self.content = content;
        // Whatever the other one was writing, it is written again: the key may be another one.
        self.revision = revision + 1;
        (self.lock, self.writing, self.opening) = (Some(lock), writing, None);
        self.problem = None;
        true
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.claimed {
            return;
        }
        let behind = self.is_behind();
        let left = self.lock.take().filter(|_| behind).map(|lock| Left {
            content: std::mem::take(&mut self.content),
            revision: self.revision,
            lock,
            writing: self.writing.take(),
        });
        *self.handover.state() = State { taken: false, left };
    }
}
