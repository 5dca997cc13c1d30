//! The file under a store: whole or not at all, for one user, for one process.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::error::StoreError;
use crate::invalid::Invalid;

/// Larger files are not ours.
const MAX_BYTES: u64 = 1024 * 1024;

/// Keeps other processes away from a store for as long as it lives. The kernel gives it up with the process, however that
/// ends.
#[derive(Debug)]
pub(super) struct Lock {
    // Nothing where nothing could be created: on a disk that is read-only, nobody else can write either.
    _held: Option<File>,
}

impl Lock {
    /// Takes the lock of this store, or says that another process has it. Blocking.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let beside = beside(path, ".lock");
        let readable = |path: &Path| OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path);
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&beside)
            // Where nothing can be written any more, whoever came before has locked this one.
            .or_else(|_| readable(&beside))
            // A store that can only be read is locked itself.
            .or_else(|_| readable(path));
        let Ok(file) = file else { return Ok(Self { _held: None }) };
        match file.try_lock() {
            Ok(()) => Ok(Self { _held: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
            // A file system without locks (some NFS): better than no store.
            Err(TryLockError::Error(_)) => Ok(Self { _held: None }),
        }
    }
}

// A link that somebody puts in our place must not lead us elsewhere; and a pipe must not hold us up.
const NO_FOLLOW: i32 = (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;

/// Reads the store; nothing when there is none yet. Blocking.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let unreadable = |error: io::Error| StoreError::Unreadable(error.kind());
    let file = match OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    // The opened file is asked, not the path: between two looks at a path it can become another file.
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(StoreError::NotAFile);
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(StoreError::ForeignOwner);
    }
    if meta.mode() & 0o077 != 0 {
        return Err(StoreError::OpenToOthers);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(StoreError::TooLarge);
    }
    Ok(Some(bytes))
}

/// Puts `bytes` in the place of what is there: when this returns well, a crash of the machine does not undo it; when it
/// fails, what was there is there. Blocking.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let unwritable = |error: io::Error| StoreError::Unwritable(error.kind());
    let temporary = beside(path, ".new");
    // What a process that was killed has left.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The name is a change of the folder.
        File::open(folder(path))?.sync_all()
    };
    write().map_err(|error| {
        // A disk that is full should not be kept full by us.
        let _ = fs::remove_file(&temporary);
        unwritable(error)
    })
}

/// Checks the folder that holds the file, as far as that is possible before anything is opened.
pub(super) fn check_folder(path: &Path) -> Result<(), Invalid> {
    let folder = folder(path);
    let wrong = |why: &str| Invalid::new("store", format!("{why} `{}`", folder.display()));
    match fs::metadata(folder) {
        // Made when the store is opened, for us alone: a volume that everybody can write to, as Kubernetes mounts
        // an `emptyDir`, needs one in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && can_make(folder) => {}
        Err(error) => {
            return Err(wrong(&format!("the folder is not there ({}):", error.kind()))
                .hint("create it, writable for attaché's user alone; in Kubernetes, mount a volume there"));
        }
        Ok(meta) if !meta.is_dir() || path.is_dir() => {
            return Err(
                wrong("names no file in the folder").hint("name a file, such as `/var/lib/attache/orders`")
            );
        }
        Ok(meta) => {
            let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
            // Whoever can rename files there can put another store in our place. The sticky bit forbids it.
            if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                return Err(wrong("everybody can write to the folder")
                    .hint("run `chmod o-w` on it, or name a folder in it, which attaché makes for itself"));
            }
        }
    }
    Ok(())
}

/// Whether this folder can be made: it is all that is missing, and not one beside `/etc`, where a misspelt one would be.
pub(super) fn can_make(folder: &Path) -> bool {
    let above = folder.parent().filter(|above| above.parent().is_some() && above.is_dir());
    above.is_some_and(|above| rustix::fs::access(above, rustix::fs::Access::WRITE_OK).is_ok())
}

/// Makes the folder that holds a file, for us alone, where only that one is missing. Blocking. What keeps it from being made
/// keeps the file from being written, which tells.
pub(super) fn make_folder(path: &Path) {
    let _ = DirBuilder::new().mode(0o700).create(folder(path));
}

/// The folder that holds a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
