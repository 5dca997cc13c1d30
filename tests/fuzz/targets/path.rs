//! A path that is accepted has no decoding that leaves its prefix, however an upstream and a gateway before it read it.

#![no_main]

use attache::proxy::fuzzing::is_accepted;
use libfuzzer_sys::fuzz_target;

/// Percent-decoding as servers do it; what is no code stays.
fn decode(path: &[u8]) -> Vec<u8> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let code = path.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|code| path[at] == b'%' && code.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            Some(code) => {
                decoded.push(u8::from_str_radix(code, 16).unwrap());
                at += 3;
            }
            None => {
                decoded.push(path[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// Whether a server that resolves dots gets above where it began. Backslashes are slashes to some, and what follows a
/// semicolon is a parameter to others.
fn leaves(path: &[u8]) -> bool {
    let mut depth = 0i64;
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap();
        // C stops at a NUL.
        let name = name.split(|byte| *byte == 0).next().unwrap();
        match name {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fuzz_target!(|data: &[u8]| {
    // A target has printable ASCII only; what has more never gets here.
    if !data.iter().all(u8::is_ascii_graphic) {
        return;
    }
    let path = format!("/{}", std::str::from_utf8(data).unwrap());
    if !is_accepted(&path) {
        return;
    }
    let mut read = path.into_bytes();
    for _ in 0..8 {
        // Below the prefix, the first segment may not be climbed out of.
        assert!(!leaves(&read));
        // What follows a semicolon is a parameter, to those who know parameters.
        let is_dots =
            |segment: &[u8]| matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b".."));
        assert!(!read.split(|byte| matches!(byte, b'/' | b'\\')).any(is_dots));
        assert!(!read.windows(2).any(|pair| pair == b"//"));
        read = decode(&read);
    }
});
