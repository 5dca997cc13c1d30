//! Which HTTP a connection speaks: looked at, not taken out, so that whoever serves it finds every byte.

use std::{future::poll_fn, time::Duration};

use tokio::time;

use crate::proxy::{activity::Activity, http1::Wire};

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8; PREFACE_LEN] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes decide.
pub(in crate::proxy) const PREFACE_LEN: usize = 24;

/// How long to wait before another look at a preface that came in pieces. The socket says that it can be read all the
/// time, so there is nothing else to wait for.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Opening {
    /// Not HTTP/2.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// It can become either.
    Unclear,
}

/// Reads the first bytes, of which there is at least one.
pub(in crate::proxy) fn opening(bytes: &[u8]) -> Opening {
    let known = bytes.len().min(PREFACE_LEN);
    match bytes[..known] == PREFACE[..known] {
        false => Opening::Http1,
        true if known == PREFACE_LEN => Opening::Http2,
        true => Opening::Unclear,
    }
}

/// Waits until the first bytes are clear; nothing when that takes longer than a head may.
pub(in crate::proxy) async fn rest_of_preface(wire: &Wire, activity: &Activity) -> Option<Opening> {
    activity.received(true);
    let mut pause = PAUSE;
    loop {
        time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let mut bytes = [0; PREFACE_LEN];
        let count = poll_fn(|cx| wire.poll_peek(cx, &mut bytes)).await.ok()?;
        match opening(&bytes[..count]) {
            Opening::Unclear if activity.must_close() => return None,
            Opening::Unclear => {}
            clear => return Some(clear),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_preface_is_http_2() {
        for length in 1..PREFACE_LEN {
            assert_eq!(opening(&PREFACE[..length]), Opening::Unclear);
        }
        assert_eq!(opening(PREFACE), Opening::Http2);
        assert_eq!(opening(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"), Opening::Http2);
        for other in [&b"G"[..], b"POST / HTTP/1.1\r\n", b"PRINT /", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
            assert_eq!(opening(other), Opening::Http1, "{other:?}");
        }
    }
}
