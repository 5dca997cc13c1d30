//! Reads one head, whole or in pieces, for what two readers could disagree on.

use memchr::memchr;

use super::{Facts, Side};

/// As much of a line as is kept when it arrives in pieces: names and lengths that matter are shorter.
const KEPT: usize = 64;

/// The head of a message, line by line, of which only what matters is remembered.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) facts: Facts,
    pub(super) started: bool,
    pub(super) status: u16,
    pub(super) length: u64,
    // The beginning of a line whose end has not arrived yet.
    kept: [u8; KEPT],
    kept_len: usize,
    pub(super) line_len: usize,
    hash: bool,
    carriage_return: bool,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            facts: Facts::default(),
            started: false,
            status: 0,
            length: 0,
            kept: [0; KEPT],
            kept_len: 0,
            line_len: 0,
            hash: false,
            carriage_return: false,
        }
    }
}

impl Head {
    /// Remembers a piece of a line.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        let room = KEPT - self.kept_len;
        let step = room.min(piece.len());
        self.kept[self.kept_len..self.kept_len + step].copy_from_slice(&piece[..step]);
        self.kept_len += step;
        self.line_len += piece.len();
        self.hash |= memchr(b'#', piece).is_some();
        if let Some(last) = piece.last() {
            self.carriage_return = *last == b'\r';
        }
    }

    /// The end of a line that came in pieces.
    pub(super) fn kept_line(&mut self, side: Side) -> bool {
        let (kept, len) = (self.kept, self.kept_len);
        let whole = self.line_len == len;
        let hash = self.hash;
        let carriage_return = self.carriage_return;
        (self.kept_len, self.line_len, self.hash, self.carriage_return) = (0, 0, false, false);
        self.facts.bare_line_feed |= !carriage_return;
        let line = &kept[..len];
        let line = if whole && carriage_return { &line[..len - 1] } else { line };
        if !self.started && side == Side::Requests && !line.is_empty() {
            self.facts.fragment = hash;
        }
        self.content(line, side, whole)
    }

    /// A whole line, without its line feed.
    pub(super) fn line(&mut self, line: &[u8], side: Side) -> bool {
        let line = match line.split_last() {
            Some((b'\r', line)) => line,
            _ => {
                self.facts.bare_line_feed = true;
                line
            }
        };
        if !self.started && side == Side::Requests && !line.is_empty() {
            self.facts.fragment = memchr(b'#', line).is_some();
        }
        self.content(line, side, true)
    }

    /// Takes one line into account; true when it ends the head.
    fn content(&mut self, line: &[u8], side: Side, whole: bool) -> bool {
        if !self.started {
            // Empty lines before a message are skipped (RFC 9112 §2.2).
            self.started = !line.is_empty();
            if side == Side::Answers {
                self.status = status(line);
            }
            return false;
        }
        match line.first().map(u8::to_ascii_lowercase) {
            None => return true,
            Some(b'c') => {
                if let Some(value) = value_of(line, b"content-length:") {
                    self.facts.lengths = self.facts.lengths.saturating_add(1);
                    match whole.then(|| number(value)).flatten() {
                        Some(length) => self.length = length,
                        None => self.facts.odd_length = true,
                    }
                }
            }
            Some(b't') if value_of(line, b"transfer-encoding:").is_some() => {
                self.facts.encodings = self.facts.encodings.saturating_add(1);
            }
            Some(_) => {}
        }
        false
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    // The colon first: of the lines that begin like it, hardly one has its colon in the same place.
    (start.last() == name.last() && start.eq_ignore_ascii_case(name)).then(|| value.trim_ascii())
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// The status code of `HTTP/1.1 200 OK`; 0 when there is none, which the parser refuses anyway.
fn status(line: &[u8]) -> u16 {
    let code = line.get(9..12).and_then(number);
    code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0)
}
