//! Where a request is read into.

use std::{future::poll_fn, time::Duration};

use http::Request;
use http_body::Body as _;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::*;
use crate::proxy::{
    http1::{Incoming, body_length},
    ticks::Ticks,
};

#[tokio::test]
async fn a_request_that_waits_for_its_answer_keeps_no_buffer() {
    for (len, answered) in [(100, false), (64 * 1024, false), (64 * 1024, true)] {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let second = Duration::from_secs(1);
        let activity = Rc::new(Activity::new(Rc::new(Ticks::new(second, second, second))));
        let wire = Wire::new(Stream::Unix(ours), activity);
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {len}\r\n\r\n{}", "x".repeat(len));
        // All of it has come before any of it is read.
        theirs.write_all(request.as_bytes()).await.unwrap();

        let (mut parts, ()) = Request::new(()).into_parts();
        let said = poll_fn(|cx| wire.poll_head(8 * 1024, &mut parts, cx)).await.unwrap();
        let mut body = Incoming::new(&wire, wire.begin(&parts.headers, body_length::of_request(said)));
        if answered {
            wire.begin_answer();
        }
        // Held, as for another try.
        let mut held = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            held.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(held.iter().map(Bytes::len).sum::<usize>(), len);
        assert_eq!(wire.inner.borrow().inlet.bytes.capacity(), 0, "{len} {answered}");
    }
}
