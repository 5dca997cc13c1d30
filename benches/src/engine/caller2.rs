//! A caller that speaks HTTP/2 without TLS, as gRPC clients do to a sidecar: several requests at a time on one connection.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    frames::{self, Frames},
    hpack::Decoder,
    wire::Wire,
};

pub struct Caller2 {
    pub wire: Wire,
    frames: Frames,
    decoder: Decoder,
    block: Vec<u8>,
    out: Vec<u8>,
    next: u32,
    open: Vec<Stream>,
}

struct Stream {
    id: u32,
    started: Instant,
    received: usize,
    /// `:status: 200` and `grpc-status: 0` were seen.
    good: (bool, bool),
}

impl Caller2 {
    pub fn new(wire: Wire) -> Self {
        let mut out = frames::PREFACE.to_vec();
        frames::greeting(&mut out);
        Self {
            wire,
            frames: Frames::default(),
            decoder: Decoder::new(),
            block: Vec::new(),
            out,
            next: 1,
            open: Vec::new(),
        }
    }

    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Puts a request into the buffer that [`Caller2::push`] sends.
    pub fn send(&mut self, ready: &[u8]) {
        frames::put_ready(&mut self.out, ready, self.next);
        let (id, started) = (self.next, Instant::now());
        self.open.push(Stream { id, started, received: 0, good: (false, false) });
        self.next += 2;
    }

    pub fn push(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        let sent = if out.is_empty() { Ok(()) } else { self.wire.send_bytes(&out) };
        self.out = out;
        self.out.clear();
        sent
    }

    pub fn on_readable(
        &mut self,
        buffer: &mut [u8],
        expected: usize,
        done: &mut Vec<Duration>,
    ) -> io::Result<()> {
        while let Some(read) = self.wire.read(buffer)? {
            if read == 0 {
                return Err(io::Error::other("the connection was closed"));
            }
            let mut frames = std::mem::take(&mut self.frames);
            frames.feed(&buffer[..read], |frame| self.take(&frame, expected, done))?;
            frames.refill(&mut self.out);
            self.frames = frames;
            if read < buffer.len() {
                break;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        frame: &frames::Frame<'_>,
        expected: usize,
        done: &mut Vec<Duration>,
    ) -> io::Result<()> {
        frames::housekeeping(frame, &mut self.out)?;
        if frame.kind == frames::RST_STREAM {
            return Err(io::Error::other(format!("RST_STREAM {:?}", frame.payload)));
        }
        if !matches!(frame.kind, frames::DATA | frames::HEADERS | frames::CONTINUATION) {
            return Ok(());
        }
        let at = self.open.iter().position(|stream| stream.id == frame.stream);
        let at = at.ok_or_else(|| io::Error::other("a frame of a stream that is not open"))?;
        let stream = &mut self.open[at];
        if frame.kind == frames::DATA {
            stream.received += frame.payload.len();
        } else {
            self.block.extend_from_slice(frame.payload);
            if frame.flags & frames::END_HEADERS == 0 {
                return Ok(());
            }
            self.decoder.read(&self.block, |name, value| match (name, value) {
                (b":status", b"200") => stream.good.0 = true,
                (b"grpc-status", b"0") => stream.good.1 = true,
                _ => {}
            })?;
            self.block.clear();
        }
        if frame.kind != frames::CONTINUATION && frame.flags & frames::END_STREAM != 0 {
            let stream = self.open.swap_remove(at);
            if stream.good != (true, true) || stream.received != expected {
                let (what, received) = (stream.good, stream.received);
                return Err(io::Error::other(format!("status, grpc-status: {what:?}, {received} bytes")));
            }
            done.push(stream.started.elapsed());
        }
        Ok(())
    }
}
