//! HTTP/2 frames (RFC 9113 §4.1, §6): cut out of the bytes as they come, and put together for sending.

use std::io;

/// What a caller's connection begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

const MAX_STREAMS: u16 = 3;
const INITIAL_WINDOW: u16 = 4;
/// As large as a window can be: what is measured must never wait for the benchmark.
const WINDOW: u32 = 0x7fff_ffff;
/// A window is made whole again when so much of it is used.
const REFILL: u64 = 1 << 28;

pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Without padding and priority.
    pub payload: &'a [u8],
}

/// The frames of one direction, cut out of its bytes.
#[derive(Default)]
pub struct Frames {
    kept: Vec<u8>,
    taken: u64,
}

impl Frames {
    /// Takes bytes that came, and shows every frame that is complete.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut show: impl FnMut(Frame<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let kept = !self.kept.is_empty();
        if kept {
            self.kept.extend_from_slice(bytes);
        }
        let all = if kept { std::mem::take(&mut self.kept) } else { Vec::new() };
        let mut rest = if kept { &all[..] } else { bytes };
        while let Some((frame, after)) = cut(rest)? {
            if frame.kind == DATA {
                self.taken += (rest.len() - after.len()) as u64;
            }
            show(frame)?;
            rest = after;
        }
        self.kept = rest.to_vec();
        Ok(())
    }

    /// Makes the connection's window whole when much of it is used; those of streams are never used up.
    pub fn refill(&mut self, out: &mut Vec<u8>) {
        if self.taken > REFILL {
            window(out, self.taken as u32);
            self.taken = 0;
        }
    }
}

fn cut(bytes: &[u8]) -> io::Result<Option<(Frame<'_>, &[u8])>> {
    let Some((head, rest)) = bytes.split_at_checked(9) else { return Ok(None) };
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let Some((mut payload, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    let (kind, flags) = (head[3], head[4]);
    let short = || io::Error::other("a frame that is too short");
    if matches!(kind, DATA | HEADERS) && flags & PADDED != 0 {
        let (padding, after) = payload.split_first().ok_or_else(short)?;
        let end = after.len().checked_sub(usize::from(*padding)).ok_or_else(short)?;
        payload = &after[..end];
    }
    if kind == HEADERS && flags & PRIORITY != 0 {
        payload = payload.get(5..).ok_or_else(short)?;
    }
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Ok(Some((Frame { kind, flags, stream, payload }, rest)))
}

/// Appends one frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends frames made beforehand, with the stream that they are for.
pub fn put_ready(out: &mut Vec<u8>, ready: &[u8], stream: u32) {
    let mut at = out.len();
    out.extend_from_slice(ready);
    while at < out.len() {
        out[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
        at += 9 + u32::from_be_bytes([0, out[at], out[at + 1], out[at + 2]]) as usize;
    }
}

/// What either side begins with, behind the preface: the largest windows, and room for many streams.
pub fn greeting(out: &mut Vec<u8>) {
    let mut settings = Vec::new();
    for (name, value) in [(MAX_STREAMS, 1000), (INITIAL_WINDOW, WINDOW)] {
        settings.extend_from_slice(&name.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    put(out, SETTINGS, 0, 0, &settings);
    // The connection's window begins with 65,535, whatever the settings say (RFC 9113 §6.9.2).
    window(out, WINDOW - 65_535);
}

fn window(out: &mut Vec<u8>, more: u32) {
    put(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
}

/// Answers what a peer must have an answer to, and tells when it ends the connection.
pub fn housekeeping(frame: &Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    match frame.kind {
        SETTINGS if frame.flags & ACK == 0 => put(out, SETTINGS, ACK, 0, &[]),
        PING if frame.flags & ACK == 0 => put(out, PING, ACK, 0, frame.payload),
        GOAWAY => return Err(io::Error::other("GOAWAY")),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_out_however_they_arrive() {
        let mut bytes = Vec::new();
        put(&mut bytes, PING, 0, 0, b"12345678");
        put_ready(
            &mut bytes,
            &{
                let mut ready = Vec::new();
                put(&mut ready, DATA, END_STREAM, 0, b"x");
                ready
            },
            7,
        );
        // Two bytes of padding, and five of priority.
        put(&mut bytes, HEADERS, END_HEADERS | PADDED | PRIORITY, 9, b"\x02\0\0\0\0\0block\0\0");
        for piece in [1, 3, 1000] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                frames
                    .feed(part, |frame| {
                        seen.push((frame.kind, frame.stream, frame.payload.to_vec()));
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(
                seen,
                [(PING, 0, b"12345678".to_vec()), (DATA, 7, b"x".to_vec()), (HEADERS, 9, b"block".to_vec())]
            );
        }
    }
}
