//! Binding, accepting, and the file of a Unix socket.
//!
//! A Unix socket is a file that outlives the process that made it. So that a restart works and two processes do not
//! take it from each other:
//!
//! 1. Whoever binds holds the lock of the folder meanwhile (flock(2)): of two that start at once, the second sees what
//!    the first has made.
//! 2. A socket on which nobody listens refuses to be connected to. Only such a one is replaced, and never a file of
//!    another kind.
//! 3. The mode is set before `listen`: until then nobody can connect.
//! 4. At the end the file is removed, if it is still the one that was made here.

use std::{
    fs::{self, File, Permissions},
    io,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Type};

use super::{
    Listen, Stream, UnixRules,
    port::{self, BACKLOG},
};
use crate::{inherited, loopback};

/// How long, and how often, to wait for somebody else who is binding in the same folder.
const TURN: (Duration, u32) = (Duration::from_millis(20), 50);

/// A socket that is bound, and waits for connections.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    file: Option<Arc<SocketFile>>,
}

/// A listening socket of either kind, without a runtime.
#[derive(Debug)]
pub(crate) enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket within a runtime.
#[derive(Debug)]
pub struct Listener {
    kind: AsyncKind,
    file: Option<Arc<SocketFile>>,
}

/// Connections that wait to be accepted, asked of the kernel itself.
#[derive(Debug)]
pub struct Backlog(Kind);

#[derive(Debug)]
enum AsyncKind {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Socket {
    /// Takes the socket that a supervisor has bound, or binds one. The file of a socket that was handed over is the
    /// supervisor's: its mode is left as it is, and it is not removed. `is_shared` is for TCP ports: another process that
    /// says the same may take the port over.
    pub fn bind(listen: &Listen, rules: &UnixRules, is_shared: bool) -> io::Result<Self> {
        let (kind, file) = match (inherited::take(listen), listen) {
            (Some(kind), _) => (kind, None),
            (None, Listen::Tcp(address)) => (Kind::Tcp(port::bind(*address, is_shared)?), None),
            (None, Listen::Unix(path)) => {
                let (listener, file) = bind(path, rules.mode())?;
                (Kind::Unix(listener), Some(Arc::new(file)))
            }
        };
        match &kind {
            Kind::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                if let Ok(address) = listener.local_addr() {
                    loopback::do_not_pace(listener, address.ip());
                }
            }
            Kind::Unix(listener) => listener.set_nonblocking(true)?,
        }
        Ok(Self { kind, file })
    }

    /// Where it is bound; tells the port when the configuration says 0.
    pub fn local(&self) -> io::Result<Listen> {
        self.kind.local()
    }

    /// The file of a Unix socket that was bound here.
    pub fn file(&self) -> Option<Arc<SocketFile>> {
        self.file.clone()
    }

    /// Takes it into the runtime of the calling task.
    pub fn listener(self) -> io::Result<Listener> {
        let kind = match self.kind {
            Kind::Tcp(listener) => AsyncKind::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Kind::Unix(listener) => AsyncKind::Unix(tokio::net::UnixListener::from_std(listener)?),
        };
        Ok(Listener { kind, file: self.file })
    }
}

impl Kind {
    pub(crate) fn local(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(Listen::Unix(path.to_owned()))
            }
        }
    }
}

impl Listener {
    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.kind {
            AsyncKind::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            AsyncKind::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Those who wait at the end, out of the runtime.
    pub fn backlog(self) -> io::Result<Backlog> {
        Ok(Backlog(match self.kind {
            AsyncKind::Tcp(listener) => Kind::Tcp(listener.into_std()?),
            AsyncKind::Unix(listener) => Kind::Unix(listener.into_std()?),
        }))
    }

    /// Removes the file of a Unix socket, so that nobody new finds it. Those who wait already can still be accepted.
    pub fn hide(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

impl Backlog {
    /// The next one; an error of the kind `WouldBlock` says that there are no more.
    pub fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                tokio::net::TcpStream::from_std(stream).map(Stream::Tcp)
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                tokio::net::UnixStream::from_std(stream).map(Stream::Unix)
            }
        }
    }
}

/// The file of a socket. It is removed once: whoever comes next may get a file with the same numbers.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    // Device and inode: somebody may have put another file in its place.
    identity: (u64, u64),
    removed: AtomicBool,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)?, removed: AtomicBool::new(false) })
    }

    /// Removes it, if it is still the one that was made here.
    pub fn remove(&self) {
        if self.removed.swap(true, Ordering::AcqRel) {
            return;
        }
        let _turn = turn(&self.path);
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the file of a socket could not be removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let _turn = turn(path);
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path, &address)?;
        socket.bind(&address)?;
    }
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Removes the file of a socket on which nobody listens.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog must not hold us up: it is a sign of life.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing a socket on which nobody listens");
            fs::remove_file(path)
        }
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// The lock of the folder, while it is held. Without it things still go well, unless two bind at the same moment: so one
/// that cannot be had after a second is done without, and nobody can hold us up.
fn turn(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    let (pause, times) = TURN;
    for _ in 0..times {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::park_timeout(pause),
            Err(_) => return None,
        }
    }
    None
}
