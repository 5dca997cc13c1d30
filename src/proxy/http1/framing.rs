//! The bodies of messages (RFC 9112 §6 and §7): where one ends.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::{Ending, head};

/// Larger chunks than any body is (64 PiB): far beyond it, what a size adds up to could be read in two ways.
const MAX_CHUNK: u64 = 1 << 56;

/// As many digits, with the zeros in front that some servers write, and as much white space, as a size line may have.
const MAX_PADDING: u8 = 32;

/// As much as all chunk extensions of a body, which nobody reads, and a trailer section may hold.
const MAX_BESIDE: usize = 16 * 1024;

/// What a body is framed by, and how far it has been read.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum Decoder {
    /// By its length; so many bytes are still to come.
    Length(u64),
    /// By chunks.
    Chunked(Chunked),
    /// By the end of its connection.
    UntilClose,
    /// It is over.
    Done,
}

/// How far a chunked body has been read.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Chunked {
    place: Place,
    // Bytes of extensions so far.
    beside: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Before the first digit of a size, or after some.
    Size { size: u64, digits: u8 },
    /// In the white space behind a size, so much of it: only an extension or the end of the line may follow.
    Space(u64, u8),
    /// In an extension.
    Extension(u64),
    /// Before the line feed behind a size.
    SizeEnd(u64),
    /// In a chunk; so many bytes of it are still to come.
    Data(u64),
    /// Before the line break behind a chunk; whether its carriage return has come.
    DataEnd { carriage_return: bool },
    /// In the trailer section.
    Trailers(Ending),
}

/// A body cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Broken;

/// What comes next of a body.
#[derive(Debug)]
pub(in crate::proxy) enum Piece {
    /// Bytes of it.
    Data(Bytes),
    /// Its trailers, and with them its end.
    Trailers(HeaderMap),
    /// It is over.
    End,
    /// More has to be read first.
    More,
}

/// What stands at the beginning of some bytes, behind what only frames.
enum Next {
    Data(usize),
    Trailers(usize),
    End,
    More,
}

impl Decoder {
    /// A body in chunks.
    pub(in crate::proxy) fn chunked() -> Self {
        Self::Chunked(Chunked { place: Place::Size { size: 0, digits: 0 }, beside: 0 })
    }

    /// A body of a known length.
    pub(in crate::proxy) fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// Whether all of it has been read.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How much is still to come, if that is known.
    pub(in crate::proxy) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes note of bytes of a body with a length that were not read here.
    pub(in crate::proxy) fn passed(&mut self, count: usize) {
        if let Self::Length(left) = self {
            *self = Self::length(left.saturating_sub(count as u64));
        }
    }

    /// Takes what comes next out of what has been read.
    pub(in crate::proxy) fn take(&mut self, bytes: &mut BytesMut) -> Result<Piece, Broken> {
        let (skipped, next) = self.next(bytes)?;
        bytes.advance(skipped);
        Ok(match next {
            Next::More => Piece::More,
            Next::End => Piece::End,
            Next::Data(len) => Piece::Data(bytes.split_to(len).freeze()),
            Next::Trailers(len) => {
                let section = bytes.split_to(len).freeze();
                let mut trailers = HeaderMap::new();
                head::fields(&section, 0, &Ending::default(), &mut trailers).map_err(|_| Broken)?;
                Piece::Trailers(trailers)
            }
        })
    }

    /// Whether more has come than belongs to the body.
    pub(in crate::proxy) fn is_exceeded_by(mut self, mut bytes: &[u8]) -> bool {
        loop {
            match self.next(bytes) {
                // What is broken is found when it is read.
                Err(Broken) | Ok((_, Next::More)) => return false,
                Ok((skipped, Next::End)) => return skipped < bytes.len(),
                Ok((skipped, Next::Data(len) | Next::Trailers(len))) => bytes = &bytes[skipped + len..],
            }
        }
    }

    /// How many bytes only frame, and what stands behind them.
    fn next(&mut self, bytes: &[u8]) -> Result<(usize, Next), Broken> {
        let next = match self {
            Self::Done => return Ok((0, Next::End)),
            _ if bytes.is_empty() => return Ok((0, Next::More)),
            Self::UntilClose => return Ok((0, Next::Data(bytes.len()))),
            Self::Length(left) => {
                let step = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= step as u64;
                (0, Next::Data(step))
            }
            Self::Chunked(chunked) => chunked.next(bytes)?,
        };
        if matches!(
            (&self, &next.1),
            (Self::Length(0), _) | (Self::Chunked(_), Next::Trailers(_) | Next::End)
        ) {
            *self = Self::Done;
        }
        Ok(next)
    }
}

impl Chunked {
    fn next(&mut self, bytes: &[u8]) -> Result<(usize, Next), Broken> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            self.place = match self.place {
                Place::Data(left) => {
                    let here = bytes.len() - at;
                    let step = usize::try_from(left).map_or(here, |left| left.min(here));
                    let left = left - step as u64;
                    self.place =
                        if left == 0 { Place::DataEnd { carriage_return: false } } else { Place::Data(left) };
                    return Ok((at, Next::Data(step)));
                }
                Place::Trailers(mut ending) => return self.trailers(&mut ending, bytes, at),
                Place::Size { size, digits } => match (char::from(byte).to_digit(16), byte) {
                    (Some(digit), _) if size < MAX_CHUNK >> 4 && digits < MAX_PADDING => {
                        Place::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
                    }
                    (None, b'\r') if digits > 0 => Place::SizeEnd(size),
                    (None, b';') if digits > 0 => Place::Extension(size),
                    (None, b' ' | b'\t') if digits > 0 => Place::Space(size, 1),
                    _ => return Err(Broken),
                },
                Place::Space(size, count) => match byte {
                    b' ' | b'\t' if count < MAX_PADDING => Place::Space(size, count + 1),
                    b';' => Place::Extension(size),
                    b'\r' => Place::SizeEnd(size),
                    _ => return Err(Broken),
                },
                Place::Extension(size) => match byte {
                    b'\r' => Place::SizeEnd(size),
                    b'\n' | 0 => return Err(Broken),
                    _ => self.beside(Place::Extension(size))?,
                },
                Place::SizeEnd(size) => match (byte, size) {
                    (b'\n', 0) => Place::Trailers(Ending::default()),
                    (b'\n', size) => Place::Data(size),
                    _ => return Err(Broken),
                },
                Place::DataEnd { carriage_return } => match (carriage_return, byte) {
                    (false, b'\r') => Place::DataEnd { carriage_return: true },
                    (true, b'\n') => Place::Size { size: 0, digits: 0 },
                    _ => return Err(Broken),
                },
            };
            at += 1;
        }
        Ok((at, Next::More))
    }

    fn beside(&mut self, place: Place) -> Result<Place, Broken> {
        self.beside += 1;
        if self.beside > MAX_BESIDE { Err(Broken) } else { Ok(place) }
    }

    /// The section stays where it is until all of it has come.
    fn trailers(&mut self, ending: &mut Ending, bytes: &[u8], at: usize) -> Result<(usize, Next), Broken> {
        let section = &bytes[at..];
        match section {
            [b'\r', b'\n', ..] => return Ok((at + 2, Next::End)),
            [b'\r', other, ..] if *other != b'\n' => return Err(Broken),
            // An empty line is the end of the section, and begins with a carriage return.
            [b'\n', ..] => return Err(Broken),
            _ => {}
        }
        let end = ending.find(section);
        if ending.has_bare_line_feed() || end.unwrap_or(section.len()) > MAX_BESIDE {
            return Err(Broken);
        }
        self.place = Place::Trailers(*ending);
        Ok((at, end.map_or(Next::More, Next::Trailers)))
    }
}

#[cfg(test)]
mod tests;
