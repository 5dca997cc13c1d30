//! What outlives the process: the newest refresh token, and, encrypted, the access token.
//!
//! 1. A store is opened with the first token request, not when the configuration is checked: an advisory lock keeps every
//!    other process away, then the file is read. Whoever can read it must be attaché's user alone.
//! 2. A change is written whole beside the file, synced, renamed, and the folder is synced: a crash leaves the old or the
//!    new one, never half of either. Only then is the access token used that came with it.
//! 3. A change that cannot be written stays in memory and is tried again every few seconds; the old file stays as it is.
//! 4. All of it happens on threads for blocking work: a slow disk holds nobody else up.

mod content;
mod error;
mod file;
mod seal;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task;
use zeroize::Zeroizing;

pub(super) use self::content::{StoredAccess, StoredRefresh, at_millis, millis, seconds};
pub use self::error::StoreError;
use self::{content::Content, file::Lock, seal::Seal};
use super::kept_secret::KeptSecret;
use crate::{invalid::Invalid, secret::SecretRef};

/// A store of one credential.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    key: Option<Key>,
    content: Content,
    /// Of the content that is to be on the disk.
    revision: u64,
    opened: Option<Arc<Opened>>,
    /// What is wrong with it now.
    problem: Option<StoreError>,
}

#[derive(Debug)]
struct Key {
    secret: KeptSecret,
    seal: Arc<Seal>,
}

/// What a write needs even when whoever asked for it has gone.
#[derive(Debug)]
struct Opened {
    _lock: Lock,
    /// The revision that is on the disk. Writes follow each other.
    written: Mutex<u64>,
}

impl Store {
    /// Checks the folder and the key. The file itself is looked at when the store is opened.
    pub(super) fn build(path: &Path, key: Option<&SecretRef>) -> Result<Self, Invalid> {
        let folder = file::folder(path);
        let wrong = |why: &str| Invalid::new("store", format!("{why} `{}`", folder.display()));
        match std::fs::metadata(folder) {
            // Made when the store is opened, for us alone: a volume that everybody can write to, as Kubernetes mounts
            // an `emptyDir`, needs one in it.
            Err(error) if error.kind() == ErrorKind::NotFound && file::can_make(folder) => {}
            Err(error) => {
                return Err(wrong(&format!("the folder is not there ({}):", error.kind())).hint(
                    "create it, writable for attaché's user alone; in Kubernetes, mount a volume there",
                ));
            }
            Ok(meta) if !meta.is_dir() || path.is_dir() => {
                return Err(wrong("names no file in the folder")
                    .hint("name a file, such as `/var/lib/attache/orders`"));
            }
            Ok(meta) => {
                let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
                // Whoever can rename files there can put another store in our place. The sticky bit forbids it.
                if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                    return Err(wrong("everybody can write to the folder").hint(
                        "run `chmod o-w` on it, or name a folder in it, which attaché makes for itself",
                    ));
                }
            }
        }
        let key = key.map(Key::build).transpose().map_err(|invalid| invalid.under("store_key"))?;
        Ok(Self {
            path: path.to_owned(),
            key,
            content: Content::default(),
            revision: 0,
            opened: None,
            problem: None,
        })
    }

    /// Locks and reads it, once. Until that succeeds nothing is written.
    pub(super) async fn open(&mut self) -> Result<(), StoreError> {
        if self.opened.is_some() {
            return Ok(());
        }
        let (path, seal) = (self.path.clone(), self.key.as_ref().map(|key| Arc::clone(&key.seal)));
        let opened = task::spawn_blocking(move || {
            file::make_folder(&path);
            let lock = Lock::take(&path)?;
            let content = file::read(&path)?.map(|bytes| load(&bytes, seal.as_deref())).transpose()?;
            Ok((lock, content))
        });
        match opened.await.unwrap_or(Err(StoreError::Panicked)) {
            Ok((lock, content)) => {
                self.content = content.unwrap_or_default();
                self.opened = Some(Arc::new(Opened { _lock: lock, written: Mutex::new(0) }));
                self.problem = None;
                Ok(())
            }
            Err(error) => {
                self.problem = Some(error);
                Err(error)
            }
        }
    }

    /// Begins again, whatever the file holds: the operator has given a new refresh token.
    pub(super) async fn open_anew(&mut self) -> Result<(), StoreError> {
        match self.open().await {
            Err(StoreError::Corrupt | StoreError::Undecipherable | StoreError::TooLarge) => {}
            other => return other,
        }
        let path = self.path.clone();
        let lock =
            task::spawn_blocking(move || Lock::take(&path)).await.unwrap_or(Err(StoreError::Panicked))?;
        self.content = Content::default();
        self.problem = None;
        self.opened = Some(Arc::new(Opened { _lock: lock, written: Mutex::new(0) }));
        Ok(())
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
        self.flush().await
    }

    /// Keeps an access token, if the store is sealed.
    pub(super) async fn keep_access(&mut self, access: StoredAccess) -> Result<(), StoreError> {
        if self.is_sealed() {
            self.content.access = Some(access);
            self.revision += 1;
        }
        self.flush().await
    }

    /// Notes when token requests were sent.
    pub(super) async fn keep_requests(&mut self, requests: Vec<u64>) -> Result<(), StoreError> {
        if self.content.requests != requests {
            self.content.requests = requests;
            self.revision += 1;
        }
        self.flush().await
    }

    /// Writes what is not on the disk yet. When the caller goes away meanwhile, the write is finished all the same.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        let Some(opened) = self.opened.clone() else {
            return Err(self.problem.unwrap_or(StoreError::Unreadable(std::io::ErrorKind::Other)));
        };
        if *opened.written.lock().unwrap_or_else(PoisonError::into_inner) >= self.revision {
            return Ok(());
        }
        let (path, revision) = (self.path.clone(), self.revision);
        let text = self.text()?;
        let write = task::spawn_blocking(move || {
            let mut written = opened.written.lock().unwrap_or_else(PoisonError::into_inner);
            if *written < revision {
                file::replace(&path, &text)?;
                *written = revision;
            }
            Ok(())
        });
        let outcome = write.await.unwrap_or(Err(StoreError::Panicked));
        self.problem = outcome.err();
        outcome
    }

    /// Whether there is something that is not on the disk yet.
    pub(super) fn is_behind(&self) -> bool {
        self.opened
            .as_ref()
            .is_some_and(|opened| opened.written.try_lock().is_ok_and(|written| *written < self.revision))
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

fn load(bytes: &[u8], seal: Option<&Seal>) -> Result<Content, StoreError> {
    match seal {
        Some(seal) if seal::is_sealed(bytes) => Content::parse(&seal.open(bytes)?),
        None if seal::is_sealed(bytes) => Err(StoreError::Undecipherable),
        // Written before there was a `store_key`; the next write seals it.
        _ => Content::parse(bytes),
    }
}

impl Key {
    fn build(reference: &SecretRef) -> Result<Self, Invalid> {
        let secret = KeptSecret::build(reference)?;
        let seal = derive(&secret).ok_or_else(|| {
            Invalid::new("", format!("is shorter than {} characters", seal::LEAST_SECRET))
                .hint("make one with `openssl rand -base64 32`")
        })?;
        Ok(Self { secret, seal })
    }

    fn look(&mut self) -> bool {
        if !self.secret.look() {
            return false;
        }
        let Some(seal) = derive(&self.secret) else {
            tracing::warn!("a new store_key is too short; the last good one stays in use");
            return false;
        };
        self.seal = seal;
        true
    }
}

fn derive(secret: &KeptSecret) -> Option<Arc<Seal>> {
    let long = secret.value().expose().len() >= seal::LEAST_SECRET;
    long.then(|| Seal::new(secret.value())).flatten().map(Arc::new)
}

#[cfg(test)]
mod tests;
