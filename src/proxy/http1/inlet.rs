//! Bytes that have come from a socket.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The least that is read at once: more than most messages.
const LEAST: usize = 8 * 1024;

/// The most: of a body that comes faster than it is taken.
const MOST: usize = 128 * 1024;

/// Less room than this is not worth a read.
const WORTH: usize = 1024;

/// What has come and has not been taken yet.
#[derive(Debug)]
pub(in crate::proxy) struct Inlet {
    pub(in crate::proxy) bytes: BytesMut,
    // How much to read at once.
    step: usize,
}

impl Inlet {
    pub(in crate::proxy) fn new() -> Self {
        Self { bytes: BytesMut::new(), step: LEAST }
    }

    /// Reads once; 0 at the end of the connection.
    pub(in crate::proxy) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = self.bytes.capacity() - self.bytes.len();
        if room < WORTH || (self.step > LEAST && room < self.step) {
            self.bytes.reserve(self.step);
            room = self.bytes.capacity() - self.bytes.len();
        }
        let count = ready!(pin!(stream.read_buf(&mut self.bytes)).poll(cx))?;
        if count == room && self.step < MOST {
            self.step *= 2;
        } else if count < self.step / 4 && self.step > LEAST {
            self.step /= 2;
        }
        Poll::Ready(Ok(count))
    }

    /// Gives back memory that an idle connection does not need.
    pub(in crate::proxy) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > LEAST {
            *self = Self::new();
        }
    }

    /// What has come, for whoever reads on from here.
    pub(in crate::proxy) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}
