//! What outlives the process: the newest refresh token, and, encrypted, the access token.
//!
//! 1. A store is opened with the first token request, not when the configuration is checked: an advisory lock keeps every
//!    other process away, then the file is read. Whoever can read it must be attaché's user alone.
//! 2. A change is written whole beside the file, synced, renamed, and the folder is synced: a crash leaves the old or the
//!    new one, never half of either. Only then is the access token used that came with it.
//! 3. A change that cannot be written stays in memory and is tried again every few seconds; the old file stays as it is.
//! 4. All of it happens on threads for blocking work, and is waited for with a limit: a slow disk holds nobody up. What is
//!    not done by then goes on; nothing else is begun before it has ended, so that a disk that hangs costs one thread.

mod content;
mod error;
mod file;
mod handover;
mod key;
mod seal;
mod work;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{self, JoinHandle},
    time,
};
use zeroize::Zeroizing;

pub(super) use self::content::{StoredAccess, StoredRefresh, at_millis, millis, seconds};
pub use self::error::StoreError;
pub(super) use self::handover::Handover;
use self::{content::Content, file::Lock, key::Key, seal::Seal, work::finish};
use crate::{invalid::Invalid, secret::SecretRef};

/// How long the disk may keep whoever asks waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same for a new refresh token, which should be on the disk before anything else happens. An attempt that has something to
/// keep waits for a disk that hangs once: it has an answer that would be lost with its time.
const PATIENCE_OF_ROTATION: Duration = Duration::from_secs(5);

/// A store of one credential.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    key: Option<Key>,
    content: Content,
    /// Of the content that is to be on the disk.
    revision: u64,
    /// The revision that is on the disk.
    written: u64,
    lock: Option<Arc<Lock>>,
    /// What is under way, perhaps for somebody who has given up.
    opening: Option<JoinHandle<Result<(Lock, Content), StoreError>>>,
    writing: Option<JoinHandle<Result<u64, StoreError>>>,
    /// What is wrong with it now.
    problem: Option<StoreError>,
    handover: Handover,
    /// No other store of this process has it.
    claimed: bool,
    /// While it is locked, the disk hangs.
    #[cfg(test)]
    pub(super) disk: Arc<tokio::sync::Mutex<()>>,
}

impl Store {
    /// Checks the folder and the key. The file itself is looked at when the store is opened.
    pub(super) fn build(path: &Path, key: Option<&SecretRef>) -> Result<Self, Invalid> {
        file::check_folder(path)?;
        let key = key.map(Key::build).transpose().map_err(|invalid| invalid.under("store_key"))?;
        Ok(Self {
            path: path.to_owned(),
            key,
            content: Content::default(),
            revision: 0,
            written: 0,
            lock: None,
            opening: None,
            writing: None,
            problem: None,
            handover: Handover::default(),
            claimed: false,
            #[cfg(test)]
            disk: Arc::default(),
        })
    }

    /// Locks and reads it, once. Until that succeeds nothing is written.
    pub(super) async fn open(&mut self) -> Result<(), StoreError> {
        self.open_as(false).await
    }

    /// Begins again, whatever the file holds: the operator has given a new refresh token.
    pub(super) async fn open_anew(&mut self) -> Result<(), StoreError> {
        match self.open_as(true).await {
            // The outcome of an earlier try, which has ended now.
            Err(error) if error.is_of_content() => self.open_as(true).await,
            outcome => outcome,
        }
    }

    async fn open_as(&mut self, anew: bool) -> Result<(), StoreError> {
        if self.lock.is_some() {
            return Ok(());
        }
        if !self.claim() {
            self.problem = Some(StoreError::InUse);
            return Err(StoreError::InUse);
        }
        if self.take_over() {
            return Ok(());
        }
        if self.opening.is_none() {
            let (path, seal) = (self.path.clone(), self.key.as_ref().map(|key| Arc::clone(&key.seal)));
            self.opening = Some(self.on_disk(move || open(&path, seal.as_deref(), anew)));
        }
        match finish(&mut self.opening, &mut self.problem, PATIENCE).await {
            Ok(Some((lock, content))) => {
                self.content = content;
                self.lock = Some(Arc::new(lock));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The refresh token that it holds.
    pub(super) fn refresh(&self) -> Option<&StoredRefresh> {
        self.content.refresh.as_ref()
    }

    /// The access token that it holds, if it was asked for with this configuration.
    pub(super) fn access(&self, config: &str) -> Option<&StoredAccess> {
        self.content.access.as_ref().filter(|access| access.config == config)
    }

    /// When token requests were sent, in seconds since 1970.
    pub(super) fn requests(&self) -> &[u64] {
        &self.content.requests
    }

    /// Whether access tokens may be kept in it.
    pub(super) fn is_sealed(&self) -> bool {
        self.key.is_some()
    }

    /// What is wrong with it now, if anything is.
    pub(super) fn problem(&self) -> Option<StoreError> {
        self.problem
    }

    /// Keeps a refresh token; on the disk when this returns well.
    pub(super) async fn keep_refresh(&mut self, refresh: StoredRefresh) -> Result<(), StoreError> {
        if self.content.refresh.as_ref() != Some(&refresh) {
            self.content.refresh = Some(refresh);
            self.revision += 1;
        }
        self.keep_within(PATIENCE_OF_ROTATION).await
    }

    /// Keeps an access token, if the store is sealed.
    pub(super) async fn keep_access(&mut self, access: StoredAccess) -> Result<(), StoreError> {
        if self.is_sealed() {
            self.content.access = Some(access);
            self.revision += 1;
        }
        self.keep_within(PATIENCE).await
    }

    /// Notes when token requests were sent.
    pub(super) async fn keep_requests(&mut self, requests: Vec<u64>) -> Result<(), StoreError> {
        if self.content.requests != requests {
            self.content.requests = requests;
            self.revision += 1;
        }
        self.keep_within(PATIENCE).await
    }

    /// Writes what it holds, also when that is on the disk already: whoever asks for a token once, and ends, knows then that what
    /// comes with it can be kept.
    pub(super) async fn prove(&mut self) -> Result<(), StoreError> {
        self.revision += 1;
        self.flush().await
    }

    /// Writes what is not on the disk yet. When the caller goes away meanwhile, the write is finished all the same.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.flush_within(PATIENCE, PATIENCE).await
    }

    /// The same for what an attempt has brought. A disk that hangs already has had the usual patience.
    async fn keep_within(&mut self, patience: Duration) -> Result<(), StoreError> {
        let hangs = self.problem == Some(StoreError::Stalled);
        let before = if hangs { patience.saturating_sub(PATIENCE) } else { patience };
        self.flush_within(before, patience).await
    }

    /// Waits for so long for what is being written already, and for so long in all.
    async fn flush_within(&mut self, before: Duration, patience: Duration) -> Result<(), StoreError> {
        let Some(lock) = self.lock.clone() else {
            return Err(self.problem.unwrap_or(StoreError::Unreadable(ErrorKind::Other)));
        };
        let deadline = time::Instant::now() + patience;
        // Writes follow each other. What became of the one before is no matter when there is another one to come.
        match finish(&mut self.writing, &mut self.problem, before).await {
            Ok(Some(written)) => self.written = written,
            Err(StoreError::Stalled) => return Err(StoreError::Stalled),
            _ => {}
        }
        if self.written >= self.revision {
            return Ok(());
        }
        let (path, revision, text) = (self.path.clone(), self.revision, self.text()?);
        self.writing = Some(self.on_disk(move || {
            // Nobody else may have it before the write has ended.
            let _lock = lock;
            file::replace(&path, &text).map(|()| revision)
        }));
        let left = deadline.saturating_duration_since(time::Instant::now());
        if let Some(written) = finish(&mut self.writing, &mut self.problem, left).await? {
            self.written = written;
        }
        Ok(())
    }

    /// Whether there is something that is not known to be on the disk yet.
    pub(super) fn is_behind(&self) -> bool {
        self.lock.is_some() && (self.writing.is_some() || self.written < self.revision)
    }

    fn on_disk<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        #[cfg(test)]
        let disk = Arc::clone(&self.disk);
        task::spawn_blocking(move || {
            #[cfg(test)]
            drop(disk.blocking_lock());
            work()
        })
    }

    /// Looks whether the key has been replaced; the next flush writes with the new one. Blocking.
    pub(super) fn look(&mut self) {
        if let Some(key) = &mut self.key
            && key.look()
        {
            self.revision += 1;
        }
    }

    /// The bytes of the file.
    fn text(&self) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let mut text = Zeroizing::new(serde_json::to_vec(&self.content).map_err(|_| StoreError::Panicked)?);
        if let Some(key) = &self.key {
            return key.seal.seal(&text).map(Zeroizing::new).ok_or(StoreError::Panicked);
        }
        text.push(b'\n');
        Ok(text)
    }
}

/// Locks and reads it. Blocking.
fn open(path: &Path, seal: Option<&Seal>, anew: bool) -> Result<(Lock, Content), StoreError> {
    file::make_folder(path);
    let lock = Lock::take(path)?;
    let content =
        file::read(path).and_then(|bytes| bytes.map(|bytes| Content::load(&bytes, seal)).transpose());
    match content {
        Err(error) if anew && error.is_of_content() => Ok((lock, Content::default())),
        content => Ok((lock, content?.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests;
