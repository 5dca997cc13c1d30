//! Whatever comes on a connection of HTTP/1.1: no panic, the same requests however the bytes are cut, and each of them, as it
//! goes on to the upstream, is read there as that one request and nothing else: also by another parser.
//!
//! Input: a byte that says how the rest is cut, then the bytes.

#![no_main]

use attache::proxy::fuzzing::{take_all, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = take_all([bytes]);
    assert_eq!(whole, take_all(bytes.chunks(usize::from(*step).max(1))));
    for taken in &whole {
        for chunked in [false, true] {
            let written = write(taken, chunked);
            assert_eq!(take_all([&written[..]]), [taken.clone()]);
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut other = httparse::Request::new(&mut fields);
            let end = other.parse(&written).expect("another parser refuses it").unwrap();
            assert_eq!(other.method, Some(taken.method.as_str()));
            assert_eq!(other.path, Some(taken.target.as_str()));
            assert!(written.len() - end >= taken.body.len());
        }
    }
});
