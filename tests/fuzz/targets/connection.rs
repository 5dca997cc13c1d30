//! Whatever a caller writes into `Connection` and beside it: what it names is gone, the hop-by-hop set is gone, and exactly
//! one credential leaves, ours.
//!
//! Input: lines of `name:value`, which become the headers of a request; the first one chooses the injected name.

#![no_main]

use attache::proxy::fuzzing::forward;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
];

fuzz_target!(|data: &[u8]| {
    let injected = match data.first() {
        Some(first) if first % 2 == 0 => HeaderName::from_static("authorization"),
        _ => HeaderName::from_static("x-api-key"),
    };
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(&line[at + 1..]))
        {
            headers.append(name, value);
        }
    }
    let before = headers.clone();
    let credential = HeaderValue::from_static("Bearer ours");
    forward(&mut headers, injected.clone(), &credential);

    let letters =
        |name: &HeaderName| -> Vec<u8> { name.as_str().bytes().filter(u8::is_ascii_alphanumeric).collect() };
    let credentials: Vec<_> =
        headers.iter().filter(|(name, _)| letters(name) == letters(&injected)).collect();
    assert_eq!(credentials, [(&injected, &credential)]);
    for name in HOP_BY_HOP {
        assert!(!headers.contains_key(name), "{name}");
    }
    // Read by hand, not as the program does it.
    for line in before.get_all("connection") {
        for word in String::from_utf8_lossy(line.as_bytes()).split(',') {
            let word = word.trim_matches([' ', '\t']).to_ascii_lowercase();
            assert!(word == injected.as_str() || !headers.contains_key(word.as_str()), "{word}");
        }
    }
    // Nothing is made up, and nothing changed.
    for (name, value) in headers.iter().filter(|(name, _)| **name != injected) {
        assert!(before.get_all(name).iter().any(|other| other == value));
    }
});
