//! Bodies of large answers, in a file from which the kernel takes them: if the upstream copied them, and their callers looked at all of
//! them, generator and upstream would have more to do than a proxy that copies nothing, and that proxy would never be saturated.

use std::{io, net::TcpStream};

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

/// The size of the file, that of the largest body. All bodies are its beginning, which stays in the processor's caches: with one of
/// 16 MiB, of which each body took the next part, proxies that copy paid a third more for 64 KiB than with an upstream that copies.
const SIZE: usize = 1 << 20;

/// The file.
pub struct Stock {
    file: OwnedFd,
}

impl Stock {
    pub fn new() -> io::Result<Self> {
        let file = memfd_create("bodies", MemfdFlags::CLOEXEC)?;
        if write(&file, &vec![BYTE; SIZE])? < SIZE {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(Self { file })
    }

    /// Sends the head of a body; tells how much of it the kernel took.
    pub fn send_head(&self, socket: &TcpStream, head: &[u8]) -> io::Result<usize> {
        Ok(send(socket, head, SendFlags::MORE)?)
    }

    /// Sends as much as the kernel takes of what is left of a body; nothing but an error when that is none.
    pub fn send_body(&self, socket: &TcpStream, from: usize, left: usize) -> io::Result<usize> {
        let (mut at, mut sent) = (from as u64, 0);
        while sent < left {
            match sendfile(socket, &self.file, Some(&mut at), left - sent) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => sent += count,
                Err(Errno::AGAIN) if sent > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }
}
