//! What attaché itself writes in the header compression of HTTP/2 (RFC 7541): fields that are never indexed.

use http::{HeaderName, header::AUTHORIZATION};

/// A literal that is never indexed (RFC 7541 §6.2.3), not coded by Huffman.
pub(super) fn literal(name: &HeaderName, value: &[u8], into: &mut Vec<u8>) {
    /// Of `authorization` in the static table (appendix A).
    const INDEX: usize = 23;
    if *name == AUTHORIZATION {
        integer(0x10, 4, INDEX, into);
    } else {
        into.push(0x10);
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
