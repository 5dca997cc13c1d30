//! Where one frame ends and the next begins (RFC 9113 §4.1): tells whether the head of a request is still arriving, and which
//! streams the library refuses by itself.

use super::PREFACE_LEN;

/// The length of a frame's header.
pub(in crate::proxy) const HEADER_LEN: usize = 9;
const CODE_LEN: usize = 4;
/// The type of a frame that begins a header block.
pub(in crate::proxy) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// The type of one that goes on with it.
pub(in crate::proxy) const CONTINUATION: u8 = 9;
/// The flag of one that ends it.
pub(in crate::proxy) const END_HEADERS: u8 = 4;

/// Follows the frames of one direction. It only watches: what is not a frame, the library refuses.
#[derive(Debug)]
pub(super) struct Frames {
    // How much of the preface is still to come, and how much has come of the header of the current frame. The code of a reset
    // counts as header.
    preface: usize,
    header: [u8; HEADER_LEN + CODE_LEN],
    header_len: usize,
    payload: u32,
    // A header block goes on in the next frame.
    open: bool,
    begun: bool,
}

/// A frame that tells something of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// HEADERS begin: of a request, of an answer, or trailers.
    Head(u32),
    /// RST_STREAM with this code.
    Reset(u32, u32),
}

impl Frames {
    /// What a caller sends: the preface first (RFC 9113 §3.4).
    pub(super) fn of_caller() -> Self {
        Self { preface: PREFACE_LEN, ..Self::of_server() }
    }

    /// What it is sent.
    pub(super) fn of_server() -> Self {
        Self {
            preface: 0,
            header: [0; HEADER_LEN + CODE_LEN],
            header_len: 0,
            payload: 0,
            open: false,
            begun: false,
        }
    }

    /// Takes note of what passed, and tells of it.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Seen)) {
        let preface = bytes.len().min(self.preface);
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.payload > 0 {
                let taken = bytes.len().min(self.payload as usize);
                self.payload -= taken as u32;
                bytes = &bytes[taken..];
                continue;
            }
            let taken = bytes.len().min(self.header_end() - self.header_len);
            self.header[self.header_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            bytes = &bytes[taken..];
            if self.header_len == self.header_end() {
                self.frame(&mut tell);
            }
        }
    }

    fn header_end(&self) -> usize {
        let is_reset =
            self.header_len >= HEADER_LEN && self.header[..4] == [0, 0, CODE_LEN as u8, RST_STREAM];
        if is_reset { HEADER_LEN + CODE_LEN } else { HEADER_LEN }
    }

    fn frame(&mut self, tell: &mut impl FnMut(Seen)) {
        let [a, b, c, kind, flags, stream @ .., d, e, f, g] = self.header;
        let of_header = self.header_len - HEADER_LEN;
        self.payload = u32::from_be_bytes([0, a, b, c]) - of_header as u32;
        self.header_len = 0;
        self.begun = true;
        // The first bit is reserved.
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        match kind {
            HEADERS | CONTINUATION => {
                self.open = flags & END_HEADERS == 0;
                if kind == HEADERS {
                    tell(Seen::Head(stream));
                }
            }
            RST_STREAM if of_header > 0 => tell(Seen::Reset(stream, u32::from_be_bytes([d, e, f, g]))),
            _ => {}
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
            let mut frames = Frames::of_caller();
            assert!(frames.is_within());
            for (bytes, within) in &pieces {
                for piece in bytes.chunks(step) {
                    frames.scan(piece, |_| ());
                }
                assert_eq!(frames.is_within(), *within, "{bytes:?}");
            }
        }
    }

    #[test]
    fn heads_and_resets_are_told_with_their_stream_however_they_are_cut() {
        let frames = [
            frame(HEADERS, 0, b"abc"),
            frame(CONTINUATION, END_HEADERS, b"x"),
            frame(RST_STREAM, 0, &[0, 0, 0, 7]),
            frame(0, 1, b"\0\0\x04\x03\0\0\0\0\x09\0\0\0\x01"),
            // Not as long as one must be: the library ends the connection.
            frame(RST_STREAM, 0, b"12345"),
            frame(HEADERS, END_HEADERS, b""),
        ]
        .concat();
        for step in 1..20 {
            let (mut server, mut seen) = (Frames::of_server(), Vec::new());
            for piece in frames.chunks(step) {
                server.scan(piece, |one| seen.push(one));
            }
            assert_eq!(seen, [Seen::Head(1), Seen::Reset(1, 7), Seen::Head(1)], "{step}");
        }
    }
}
