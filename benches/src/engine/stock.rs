//! Bodies of large answers, in a file from which the kernel takes them: if the upstream copied them, and their callers looked at all of
//! them, generator and upstream would have more to do than a proxy that copies nothing, and that proxy would never be saturated.

use std::{cell::Cell, io, net::TcpStream};

use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, memfd_create, sendfile},
    io::{Errno, write},
    net::{SendFlags, send},
};

/// Answers of this size and more are sent from here, and of them callers look at the head only.
pub const LARGE: usize = 64 * 1024;

/// What all bodies consist of.
pub const BYTE: u8 = b'x';

/// The size of the file: more than the second cache of a processor, or proxies that copy would find there what has come over a network
/// otherwise.
const SIZE: usize = 16 << 20;

/// Where a body begins in the file, as if each had one of its own.
const PAGE: usize = 4096;

/// The file, and where the next body is taken from.
pub struct Stock {
    file: OwnedFd,
    next: Cell<usize>,
}

impl Stock {
    pub fn new() -> io::Result<Self> {
        let file = memfd_create("bodies", MemfdFlags::CLOEXEC)?;
        let block = vec![BYTE; 1 << 20];
        for _ in 0..SIZE / block.len() {
            if write(&file, &block)? < block.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(Self { file, next: Cell::new(0) })
    }

    /// Sends the head of a body; tells how much of it the kernel took.
    pub fn send_head(&self, socket: &TcpStream, head: &[u8]) -> io::Result<usize> {
        Ok(send(socket, head, SendFlags::MORE)?)
    }

    /// Sends as much of a body as the kernel takes; nothing but an error when that is none.
    pub fn send_body(&self, socket: &TcpStream, size: usize) -> io::Result<usize> {
        let from = if self.next.get() + size > SIZE { 0 } else { self.next.get() };
        let (mut at, mut sent) = (from as u64, 0);
        while sent < size {
            match sendfile(socket, &self.file, Some(&mut at), size - sent) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => sent += count,
                Err(Errno::AGAIN) if sent > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.next.set((from + sent).next_multiple_of(PAGE));
        Ok(sent)
    }
}
