//! Bodies of large answers, kept in the kernel as an upstream that copies leaves them there, and given again and again without being
//! copied (tee(2), splice(2)): if the upstream copied them, and their callers looked at all of them, generator and upstream would have
//! more to do than a proxy that copies nothing, and that proxy would never be saturated. From a file (sendfile(2)) a body costs as much
//! as if it were copied, page by page, and generator and proxy waited for each other.

use std::{
    cell::RefCell,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    rc::Rc,
};

use rustix::{
    fd::OwnedFd,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee},
};

use super::wire::{dial, do_not_pace, unblocked};

/// Answers of this size and more are sent from here, and of them callers look at the head only.
pub const LARGE: usize = 64 * 1024;

/// What all bodies consist of.
pub const BYTE: u8 = b'x';

/// The size of the largest body. All bodies are the beginning of the same bytes, which stays in the processor's caches, as what an
/// upstream has just copied does: with a file of 16 MiB, of which each body took the next part, proxies that copy paid a third more
/// for 64 KiB than with an upstream that copies.
const SIZE: usize = 1 << 20;

/// What is kept: a pipe that is never emptied.
pub struct Stock {
    kept: Ends,
    // One that no body is in.
    spare: RefCell<Option<Ends>>,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// What is left of a body, in a pipe of its own.
pub struct Body {
    ends: Option<Ends>,
    left: usize,
    stock: Rc<Stock>,
}

impl Stock {
    pub fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        do_not_pace(&listener);
        let mut from = dial(listener.local_addr()?)?;
        let (into, _) = listener.accept()?;
        from.set_nonblocking(true)?;
        into.set_nonblocking(true)?;
        let kept = Ends::open()?;
        let (bytes, mut sent, mut came) = (vec![BYTE; SIZE], 0, 0);
        while came < SIZE {
            if sent < SIZE {
                sent += unblocked(from.write(&bytes[sent..]))?.unwrap_or(0);
            }
            let moved = splice(&into, None, &kept.write, None, SIZE - came, SpliceFlags::NONBLOCK);
            came += unblocked(moved.map_err(io::Error::from))?.unwrap_or(0);
        }
        Ok(Self { kept, spare: RefCell::default() })
    }

    /// The beginning of what is kept.
    pub fn body(self: &Rc<Self>, size: usize) -> io::Result<Body> {
        let ends = match self.spare.take() {
            Some(ends) => ends,
            None => Ends::open()?,
        };
        let given = tee(&self.kept.read, &ends.write, size, SpliceFlags::NONBLOCK)?;
        // Only where the kernel has so little memory in one piece that a body consists of more pieces than a pipe has places.
        if given < size {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Body { ends: Some(ends), left: size, stock: Rc::clone(self) })
    }
}

impl Body {
    /// Sends as much as the kernel takes; 0 when none is left.
    pub fn send(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let sent = splice(&ends.read, None, socket, None, self.left, SpliceFlags::NONBLOCK)?;
        self.left -= sent;
        if self.left == 0 {
            *self.stock.spare.borrow_mut() = self.ends.take();
        }
        Ok(sent)
    }

    pub fn is_sent(&self) -> bool {
        self.left == 0
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // A place for each page: enough also where every page of a body is a piece of its own.
        fcntl_setpipe_size(&write, SIZE)?;
        Ok(Self { read, write })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_body_is_the_beginning_of_what_is_kept_also_when_the_socket_takes_it_in_parts() {
        let stock = Rc::new(Stock::new().unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = dial(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        for size in [SIZE, LARGE, SIZE, 1, 3 * LARGE + 1] {
            let mut body = stock.body(size).unwrap();
            let mut received = Vec::new();
            while received.len() < size {
                while !body.is_sent() && unblocked(body.send(&socket)).unwrap().is_some() {}
                let mut buffer = [0; 10_000];
                let count = peer.read(&mut buffer).unwrap();
                received.extend_from_slice(&buffer[..count]);
            }
            assert!(body.is_sent());
            assert_eq!(body.send(&socket).unwrap(), 0);
            assert_eq!(received, vec![BYTE; size]);
        }
    }
}
