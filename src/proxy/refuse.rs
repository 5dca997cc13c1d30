//! Connections that are not served: told why in fixed words, counted, and closed. Nothing of them is read first; what there is is
//! looked at, to answer in the HTTP that the caller reads.
//!
//! Each holds a descriptor until its caller has read the answer, so there may be only so many. When there are, the one
//! that has had the most time goes: none is closed without an answer.

use std::{cell::RefCell, collections::VecDeque, future::poll_fn, io, time::Duration};

use http::header::{HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::{self, JoinHandle},
    time,
};

use super::{
    error::{self, Error, Reason},
    http2::{self, Opening},
    site::Site,
};
use crate::listen::Stream;

/// How long a caller that was refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// How long to wait for the first bytes, which tell the HTTP that the caller reads: shorter than the hurry, so that nobody is
/// closed without an answer.
const FIRST_BYTES: Duration = Duration::from_millis(5);

/// How long it may still take when others wait to be told.
const HURRY: Duration = Duration::from_millis(10);

/// The callers of one listener that are being refused.
pub(super) struct Refusals {
    max: usize,
    told: RefCell<VecDeque<JoinHandle<()>>>,
}

impl Refusals {
    /// At most `max` at once.
    pub(super) fn new(max: usize) -> Self {
        Self { max, told: RefCell::default() }
    }

    /// Refuses a connection; waits a moment when too many are being refused.
    pub(super) async fn refuse(&self, stream: Stream, site: &Site, reason: Reason) {
        site.refuses(reason);
        let oldest = {
            let mut told = self.told.borrow_mut();
            told.retain(|task| !task.is_finished());
            if told.len() >= self.max { told.pop_front() } else { None }
        };
        if let Some(mut oldest) = oldest
            && time::timeout(HURRY, &mut oldest).await.is_err()
        {
            oldest.abort();
        }
        self.told.borrow_mut().push_back(task::spawn_local(tell(stream, reason)));
    }
}

async fn tell(mut stream: Stream, reason: Reason) {
    let told = async {
        let answer = if speaks_http_2(&stream).await { http2::refusal(reason) } else { whole(reason) };
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the answer with it.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever is too slow for this does not get its answer.
    let _ = time::timeout(LINGER, told).await;
}

/// Whether the caller begins as one of HTTP/2.
async fn speaks_http_2(stream: &Stream) -> bool {
    let mut bytes = [0; http2::PREFACE_LEN];
    let looked = time::timeout(FIRST_BYTES, poll_fn(|cx| stream.poll_peek(cx, &mut bytes))).await;
    matches!(looked, Ok(Ok(count @ 1..)) if http2::opening(&bytes[..count]) != Opening::Http1)
}

/// The whole answer, as bytes.
fn whole(reason: Reason) -> Vec<u8> {
    // A place may be free in a moment; a right to connect does not come by itself.
    let retry_after = (reason == Reason::TooManyConnections).then_some(Duration::from_secs(1));
    let response = error::answer(Error { reason, retry_after, replayed: false });
    let (status, body) = (response.status(), error::body(reason));
    let title = status.canonical_reason().unwrap_or_default();
    let mut bytes =
        format!("HTTP/1.1 {} {title}\r\ncontent-length: {}\r\n", status.as_u16(), body.len()).into_bytes();
    for (name, value) in response.headers() {
        let (name, value): (&HeaderName, &HeaderValue) = (name, value);
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_connection_that_is_not_served_is_as_long_as_it_says_and_closes() {
        for reason in [Reason::TooManyConnections, Reason::PeerRefused] {
            let text = String::from_utf8(whole(reason)).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", reason.status().as_u16())), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
            assert!(head.contains("\r\nconnection: close"), "{head}");
            assert!(body.contains(&format!("\"reason\":\"{}\"", reason.word())), "{body}");
            assert_eq!(head.contains("retry-after"), reason == Reason::TooManyConnections);
        }
    }
}
