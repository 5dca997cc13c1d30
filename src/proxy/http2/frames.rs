//! Where one frame ends and the next begins (RFC 9113 §4.1): tells whether the head of a request is still arriving.

use super::PREFACE_LEN;

const HEADER_LEN: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames of one connection. It only watches: what is not a frame, the library refuses.
#[derive(Debug, Default)]
pub(super) struct Frames {
    // How much of the preface has come, and of the header of the current frame.
    preface: usize,
    header: [u8; HEADER_LEN],
    header_len: usize,
    payload: u32,
    // A header block goes on in the next frame.
    open: bool,
    begun: bool,
}

impl Frames {
    /// Takes note of what arrived.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) {
        if self.preface < PREFACE_LEN {
            let taken = bytes.len().min(PREFACE_LEN - self.preface);
            self.preface += taken;
            bytes = &bytes[taken..];
        }
        while !bytes.is_empty() {
            if self.payload > 0 {
                let taken = bytes.len().min(self.payload as usize);
                self.payload -= taken as u32;
                bytes = &bytes[taken..];
                continue;
            }
            let taken = bytes.len().min(HEADER_LEN - self.header_len);
            self.header[self.header_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            bytes = &bytes[taken..];
            if self.header_len == HEADER_LEN {
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.payload = u32::from_be_bytes([0, a, b, c]);
        self.header_len = 0;
        self.begun = true;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.open = flags & END_HEADERS == 0;
        }
    }

    /// Whether something has begun that must be followed by more: before the first frame too.
    pub(super) fn is_within(&self) -> bool {
        !self.begun || self.header_len > 0 || self.payload > 0 || self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_connection_is_within_until_a_frame_and_its_header_block_are_whole() {
        let pieces: [(Vec<u8>, bool); 8] = [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), true),
            (frame(4, 0, b"123456"), false),
            (frame(HEADERS, END_HEADERS, b"abc"), false),
            (frame(HEADERS, 0, b"abc"), true),
            (frame(CONTINUATION, 0, b""), true),
            (frame(CONTINUATION, END_HEADERS, b"x"), false),
            (frame(0, 0, &[7; 70_000]), false),
            (frame(0, 0, &[7; 70_000])[..69_000].to_vec(), true),
        ];
        for step in [1, 3, 1 << 20] {
            let mut frames = Frames::default();
            assert!(frames.is_within());
            for (bytes, within) in &pieces {
                for piece in bytes.chunks(step) {
                    frames.scan(piece);
                }
                assert_eq!(frames.is_within(), *within, "{bytes:?}");
            }
        }
    }
}
