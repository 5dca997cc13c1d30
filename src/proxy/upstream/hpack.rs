//! What attaché itself writes in the header compression of HTTP/2 (RFC 7541): fields that change no table.

use http::{HeaderName, header::AUTHORIZATION};

/// Whether others on the way may put a field into their tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Indexing {
    /// A literal without indexing (RFC 7541 §6.2.2).
    Without = 0x00,
    /// One that is never indexed (§6.2.3): a secret (§7.1.3).
    Never = 0x10,
}

/// A field, not coded by Huffman.
pub(super) fn literal(name: &HeaderName, value: &[u8], indexing: Indexing, into: &mut Vec<u8>) {
    /// Of `authorization` in the static table (appendix A).
    const INDEX: usize = 23;
    if *name == AUTHORIZATION {
        integer(indexing as u8, 4, INDEX, into);
    } else {
        into.push(indexing as u8);
        string(name.as_str().as_bytes(), into);
    }
    string(value, into);
}

/// RFC 7541 §5.2.
fn string(bytes: &[u8], into: &mut Vec<u8>) {
    integer(0, 7, bytes.len(), into);
    into.extend_from_slice(bytes);
}

/// RFC 7541 §5.1.
fn integer(first: u8, bits: u32, mut number: usize, into: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    if number < most {
        return into.push(first | number as u8);
    }
    into.push(first | most as u8);
    number -= most;
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}
