//! A caller: HTTP/1.1, one request at a time, the next as soon as the answer is whole.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{origin::header, stock::LARGE, wire::Wire};

/// What is read of a large answer until its head has come.
const HEAD: usize = 4096;

pub struct Caller {
    pub wire: Wire,
    head: Vec<u8>,
    started: Instant,
    left: Option<usize>,
}

impl Caller {
    pub fn new(wire: Wire) -> Self {
        Self { wire, head: Vec::new(), started: Instant::now(), left: None }
    }

    pub fn send(&mut self, request: &Rc<[u8]>) -> io::Result<()> {
        self.started = Instant::now();
        self.wire.send(request)
    }

    /// Takes what has arrived; an error says why the answer is none.
    pub fn on_readable(
        &mut self,
        buffer: &mut [u8],
        expected: usize,
        done: &mut Vec<Duration>,
    ) -> io::Result<()> {
        while let Some(read) = match self.left {
            Some(left) if expected >= LARGE => {
                let count = left.min(buffer.len());
                self.wire.skip(&mut buffer[..count])?
            }
            None if expected >= LARGE => self.wire.read(&mut buffer[..HEAD])?,
            _ => self.wire.read(buffer)?,
        } {
            if read == 0 {
                return Err(io::Error::other("the connection was closed"));
            }
            let mut bytes = &buffer[..read];
            if self.left.is_none() {
                let before = self.head.len();
                let whole = if before == 0 {
                    bytes
                } else {
                    self.head.extend_from_slice(bytes);
                    &self.head[..]
                };
                let Some(end) = memchr::memmem::find(whole, b"\r\n\r\n").map(|at| at + 4) else {
                    if before == 0 {
                        self.head.extend_from_slice(bytes);
                    }
                    continue;
                };
                let head = &whole[..end];
                let length =
                    header(head, b"content-length").and_then(|value| std::str::from_utf8(value).ok());
                let length = length.and_then(|text| text.parse::<usize>().ok());
                if !head.starts_with(b"HTTP/1.1 200") || length != Some(expected) {
                    return Err(io::Error::other(String::from_utf8_lossy(whole).into_owned()));
                }
                self.left = length;
                bytes = &bytes[end - before..];
                self.head.clear();
            }
            let left = self.left.as_mut().expect("set above");
            match left.checked_sub(bytes.len()) {
                None => return Err(io::Error::other("bytes after the answer")),
                Some(0) => {
                    self.left = None;
                    done.push(self.started.elapsed());
                    return Ok(());
                }
                Some(rest) => *left = rest,
            }
        }
        Ok(())
    }
}
