//! The Huffman code of HPACK (RFC 7541 Appendix B). It is canonical: the lengths alone tell the codes.

use std::{io, sync::LazyLock};

/// How many bits the code of each byte has.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26,
];

struct Codes {
    /// By the next eight bits: the byte and the length of its code, where that is no longer than eight bits.
    short: [(u8, u8); 256],
    /// By length: the first code of that length, and where its byte stands in `order`.
    first: [(u32, usize); 31],
    order: Vec<u8>,
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    let mut order: Vec<u8> = (0..=255).collect();
    order.sort_by_key(|byte| (LENGTHS[usize::from(*byte)], *byte));
    let (mut short, mut first) = ([(0, 0); 256], [(0, 0); 31]);
    let (mut code, mut length) = (0u32, 0usize);
    for (at, byte) in order.iter().enumerate() {
        let own = usize::from(LENGTHS[usize::from(*byte)]);
        while length < own {
            (code, length) = (code << 1, length + 1);
            first[length] = (code, at);
        }
        if own <= 8 {
            let from = (code << (8 - own)) as usize;
            short[from..from + (1 << (8 - own))].fill((*byte, own as u8));
        }
        code += 1;
    }
    Codes { short, first, order }
});

/// Appends what `bytes` stand for.
pub fn decode(bytes: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
    let codes = &*CODES;
    let (mut bits, mut held) = (0u64, 0u32);
    let mut rest = bytes.iter();
    loop {
        while held <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        if held == 0 {
            return Ok(());
        }
        let (byte, length) = codes.short[(bits >> 56) as usize];
        let (byte, length) = if length > 0 { (byte, u32::from(length)) } else { long(codes, bits) };
        // What is left over are ones, fewer than eight (RFC 7541 §5.2).
        if length == 0 || length > held {
            let padding = held < 8 && bits >> (64 - held) == (1 << held) - 1;
            return if padding {
                Ok(())
            } else {
                Err(io::Error::other("a Huffman code that ends too early"))
            };
        }
        into.push(byte);
        bits <<= length;
        held -= length;
    }
}

fn long(codes: &Codes, bits: u64) -> (u8, u32) {
    for length in 9..=30 {
        let (code, (first, at)) = ((bits >> (64 - length)) as u32, codes.first[length]);
        let end = codes.first.get(length + 1).map_or(codes.order.len(), |(_, at)| *at);
        if code >= first && at + ((code - first) as usize) < end {
            return (codes.order[at + (code - first) as usize], length as u32);
        }
    }
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> String {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut into = Vec::new();
        decode(&bytes, &mut into).unwrap();
        String::from_utf8(into).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_7541_appendix_c_4_are_understood() {
        assert_eq!(decoded("f1e3c2e5f23a6ba0ab90f4ff"), "www.example.com");
        assert_eq!(decoded("25a849e95ba97d7f"), "custom-key");
        assert_eq!(decoded("25a849e95bb8e8b4bf"), "custom-value");
        assert_eq!(decoded("9d29ad171863c78f0b97c8e9ae82ae43d3"), "https://www.example.com");
    }
}
