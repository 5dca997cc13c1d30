//! What a store that could not be written leaves to the one that takes its place in a new configuration: the newest refresh token
//! may be nowhere else.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::{Content, Lock, Store, StoreError};

/// Where it is left. All clones are the same. With the lock, so that no other process has written in between.
#[derive(Clone, Debug, Default)]
pub(in crate::token) struct Handover(Arc<Mutex<Option<Left>>>);

#[derive(Debug)]
struct Left {
    content: Content,
    revision: u64,
    lock: Arc<Lock>,
    writing: Option<JoinHandle<Result<u64, StoreError>>>,
}

impl Handover {
    fn left(&self) -> std::sync::MutexGuard<'_, Option<Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    pub(in crate::token) fn handover(&self) -> Handover {
        self.handover.clone()
    }

    /// Takes what another store with this path leaves, once it does.
    pub(in crate::token) fn inherit(&mut self, handover: Handover) {
        self.handover = handover;
    }

    /// Goes on with what was left, if anything was.
    pub(super) fn take_over(&mut self) -> bool {
        let Some(Left { mut content, revision, lock, writing }) = self.handover.left().take() else {
            return false;
        };
        content.access = content.access.filter(|_| self.is_sealed());
        self.content = content;
        // Whatever the other one was writing, it is written again: the key may be another one.
        self.revision = revision + 1;
        (self.lock, self.writing, self.opening) = (Some(lock), writing, None);
        true
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.is_behind()
            && let Some(lock) = self.lock.take()
        {
            let (content, writing) = (std::mem::take(&mut self.content), self.writing.take());
            *self.handover.left() = Some(Left { content, revision: self.revision, lock, writing });
        }
    }
}
