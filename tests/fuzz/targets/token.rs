//! Whatever a token endpoint answers: no panic, and a token that is taken fits into a header and has an end.

#![no_main]

use std::time::Duration;

use attache::token::fuzzing::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match read(data) {
        Ok((header, lifetime)) => {
            assert!(header.is_sensitive());
            let token = header.as_bytes().strip_prefix(b"Bearer ").unwrap();
            assert!(!token.is_empty() && token.iter().all(|byte| (0x20..0x7f).contains(byte)));
            assert!(lifetime.is_none_or(|lifetime| lifetime <= Duration::from_secs(10 * 365 * 86400)));
        }
        // It stands in the log and on the status page.
        Err(why) => assert!(why.len() < 300 && !why.contains(char::is_control), "{why}"),
    }
});
