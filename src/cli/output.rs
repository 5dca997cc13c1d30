//! Writing to the standard streams. A reader that went away (`attache schema | head`) is no failure.

use std::io::{self, Write as _};

use super::Failure;

/// Writes a line to standard output.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes to standard output.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    write(bytes).map(drop)
}

/// Whether anybody reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// As far as is known.
    There,
    /// Whatever is written from here on, nobody will see it.
    Gone,
}

/// Writes a line of many to standard output, for commands that end when nobody reads them.
pub(super) fn one_of_many(text: &str) -> Result<Reader, Failure> {
    write(format!("{text}\n").as_bytes())
}

fn write(bytes: &[u8]) -> Result<Reader, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::other(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a line to standard error, where nobody is left to tell if it fails.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
