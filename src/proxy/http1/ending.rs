//! Where the head of a message ends, and where its lines do.

use bytes::{Buf as _, BytesMut};
use memchr::memchr;

/// Looks for the end of a head while it arrives. No byte is looked at twice.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Ending {
    // Where the search goes on, where the current line began, and where the first line did.
    at: usize,
    line: usize,
    start: usize,
    started: bool,
    bare_line_feed: bool,
    // Where the first lines ended, so that they need not be looked for again.
    ends: [u32; ENDS],
    count: usize,
}

/// As many lines as most heads have.
const ENDS: usize = 24;

impl Ending {
    /// Where the head ends, its empty line included.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(step) = memchr(b'\n', &bytes[self.at..]) {
            let line_feed = self.at + step;
            let line = &bytes[self.line..line_feed];
            let (line, is_bare) = match line.split_last() {
                Some((b'\r', line)) => (line, false),
                _ => (line, true),
            };
            self.bare_line_feed |= is_bare;
            self.at = line_feed + 1;
            self.line = self.at;
            if !line.is_empty() {
                self.started = true;
                if let Some(end) = self.ends.get_mut(self.count) {
                    // A head is no longer than `max_header_bytes`, at most 1 MiB.
                    *end = (line_feed - self.start) as u32;
                    self.count += 1;
                }
            } else if self.started {
                return Some(self.at);
            } else {
                // Empty lines before a message mean nothing (RFC 9112 §2.2).
                self.start = self.at;
            }
        }
        self.at = bytes.len();
        None
    }

    /// Takes out the empty lines before a message, of which there may be any number.
    pub(super) fn skip_empty_lines(&mut self, bytes: &mut BytesMut) {
        if !self.started {
            bytes.advance(self.start);
            let bare_line_feed = self.bare_line_feed;
            *self = Self { at: bytes.len(), bare_line_feed, ..Self::default() };
        }
    }

    /// Whether a line ended without a carriage return.
    pub(super) fn has_bare_line_feed(&self) -> bool {
        self.bare_line_feed
    }

    /// Where the head begins, which empty lines may precede.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Where a line of the head ends, the first one being number 0.
    pub(super) fn end_of(&self, number: usize, from: usize, head: &[u8]) -> Option<usize> {
        match self.ends[..self.count].get(number) {
            Some(end) => Some(*end as usize),
            None => memchr(b'\n', head.get(from..)?).map(|step| from + step),
        }
    }

    /// What has come of the first line.
    pub(super) fn beginning<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = &bytes[self.start..];
        // A carriage return may be the first half of an empty line.
        if bytes == b"\r" { &[] } else { bytes }
    }
}
