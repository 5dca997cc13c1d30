//! Bytes of a large body, moved from one socket to another by the kernel, through a pipe (splice(2)): what comes is never copied into
//! this process, which is most of the work of a body that nobody here looks at.
//!
//! A pipe is filled when it is empty, or holds nothing but what was written into it here: otherwise one that is full would look like
//! a socket without bytes. It is emptied before it is filled again. So one is in use for as long as the other side does not take what
//! it holds, and most of the time one is enough for all bodies of a worker.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::{
    io::{AsyncWrite, Interest},
    net::TcpStream,
};

/// Bytes that one filling may take: what a slow reader keeps in the kernel beside the buffers of its sockets. Linux asks a socket for
/// no more than a page for each free place of a pipe, so a pipe is made as large.
const ROOM: usize = 256 * 1024;

/// How many pipes a worker may have at once, where there are enough files: a body that gets none is copied.
const MOST: usize = 8;

/// What may be written into one from here: a half, which leaves places for what comes from a socket.
pub(super) const OWN: usize = 32 * 1024;

/// The kernel's usual size. When a user has very many pipes, it makes smaller ones.
const USUAL: usize = 2 * OWN;

/// The pipes of a worker.
#[derive(Debug)]
pub(super) struct Pipes {
    spare: RefCell<Option<Ends>>,
    in_use: Cell<usize>,
    // One was in use since the last sweep.
    wanted: Cell<bool>,
    most: Cell<usize>,
    // One has been emptied into a socket: no sandbox refuses it.
    proven: Cell<bool>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// One of them, in use.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Option<Ends>,
    held: usize,
    // How much of that, before everything else, was written into it here.
    own: usize,
    pipes: Rc<Pipes>,
}

/// How many pipes a worker may have where a process may open so many files. Few files are for connections.
pub(super) fn most(files: usize) -> usize {
    if files < 1024 { 0 } else { (files / 128).min(MOST) }
}

impl Pipes {
    pub(super) fn new(files: usize) -> Rc<Self> {
        Rc::new(Self {
            spare: RefCell::default(),
            in_use: Cell::new(0),
            wanted: Cell::new(false),
            most: Cell::new(most(files)),
            proven: Cell::new(false),
        })
    }

    /// An empty one, if there is one to be had.
    pub(super) fn take(self: &Rc<Self>) -> Option<Pipe> {
        if self.in_use.get() >= self.most.get() {
            return None;
        }
        let ends = match self.spare.take() {
            Some(ends) => ends,
            None => Ends::open().ok()?,
        };
        self.in_use.set(self.in_use.get() + 1);
        self.wanted.set(true);
        Some(Pipe { ends: Some(ends), held: 0, own: 0, pipes: Rc::clone(self) })
    }

    /// Closes the spare one if nobody has wanted it for a while: what pipes hold is counted by user, which all the sidecars of a
    /// machine may be (pipe(7), `pipe-user-pages-soft`).
    pub(super) fn sweep(&self) {
        if self.in_use.get() == 0 && !self.wanted.replace(false) {
            self.spare.take();
        }
    }

    /// Whether it is known that the kernel moves bytes here.
    pub(super) fn are_proven(&self) -> bool {
        self.proven.get()
    }

    /// Takes note of an error. If it is the call that is refused, as by a sandbox that does not know it, and not a connection that
    /// has ended, no pipe is taken any more.
    fn told(&self, error: &io::Error) {
        let refused = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::ACCESS];
        if !self.are_proven() && Errno::from_io_error(error).is_some_and(|errno| refused.contains(&errno)) {
            self.most.set(0);
        }
    }
}

impl Pipe {
    /// Whether there is anything in it.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Whether it may be filled.
    pub(super) fn has_room(&self) -> bool {
        self.held == self.own
    }

    /// Takes up to `left` bytes from a socket, if any come this way. 0 says nothing: the connection may have ended, and there may be
    /// bytes that only a read brings (urgent ones before them, a socket that a kernel program feeds). So the runtime is not told that
    /// the socket is empty either: whoever gets nothing reads, and that read waits.
    pub(super) fn poll_fill(&mut self, from: &TcpStream, left: u64, cx: &mut Context<'_>) -> Poll<usize> {
        debug_assert!(self.has_room(), "a full pipe would look like a socket without bytes");
        let (Some(ends), Ok(())) = (&self.ends, ready!(from.poll_read_ready(cx))) else {
            return Poll::Ready(0);
        };
        let count = left.min(ROOM as u64) as usize;
        Poll::Ready(match splice(from, &ends.write, count) {
            Ok(count) => {
                self.held += count;
                count
            }
            Err(error) => {
                self.pipes.told(&error);
                0
            }
        })
    }

    /// Gives what it holds to a socket, as much as that takes. Tells how much of it came from a socket.
    pub(super) fn poll_drain(&mut self, into: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(into.poll_write_ready(cx))?;
            match into.try_io(Interest::WRITABLE, || splice(&ends.read, into, self.held)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    let own = count.min(self.own);
                    self.own -= own;
                    self.held -= count;
                    self.pipes.proven.set(true);
                    return Poll::Ready(Ok(count - own));
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    self.pipes.told(&error);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// What it holds, where it turned out that no socket is given it.
    pub(super) fn take_back(&mut self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.held];
        let mut at = 0;
        while let (Some(ends), true) = (&self.ends, at < bytes.len()) {
            match rustix::io::read(&ends.read, &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count,
            }
        }
        (self.held, self.own) = (0, 0);
        Ok(bytes.into())
    }
}

/// What is written into it from here, at most [`OWN`] bytes and before it is filled.
impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let count = rustix::io::writev(&ends.write, slices)?;
        self.held += count;
        self.own += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pipes.in_use.set(self.pipes.in_use.get() - 1);
        // What is left in one is nobody's: it goes with it.
        if !self.holds() {
            *self.pipes.spare.borrow_mut() = self.ends.take();
        }
    }
}

#[cfg(target_os = "linux")]
impl Ends {
    fn open() -> io::Result<Self> {
        use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_getpipe_size(&write)?;
        if size < USUAL {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if size < ROOM {
            // With what a user's pipes may have together (pipe(7), `pipe-user-pages-soft`) used up, it stays as it is, and takes more
            // calls.
            let _ = fcntl_setpipe_size(&write, ROOM);
        }
        Ok(Self { read, write })
    }
}

/// Moves bytes. Nothing says that more follow: what is here goes out.
#[cfg(target_os = "linux")]
fn splice(from: impl AsFd, into: impl AsFd, count: usize) -> io::Result<usize> {
    use rustix::pipe::{SpliceFlags, splice};
    Ok(splice(from, None, into, None, count, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}

#[cfg(not(target_os = "linux"))]
impl Ends {
    fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(not(target_os = "linux"))]
fn splice(_from: impl AsFd, _into: impl AsFd, _count: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether to try again, when the runtime says that it is worth it.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
