//! What the library refuses by itself of HTTP/2: never forwarded, and counted.

use tokio::time::Instant;

use crate::support::{
    Caller, Http2Caller, OPENING, PATIENCE, Sidecar, block, echo, frame, http2_request, provider,
};

/// How many requests were refused as malformed, by their head or by their body.
fn refused(sidecar: &Sidecar) -> f64 {
    let counted = |reason: &str, route: &str| {
        sidecar.metric(&format!("attache_own_answers_total{{reason=\"{reason}\",route=\"{route}\"}}"))
    };
    counted("malformed_request", "(none)")
        + counted("caller_aborted", "(none)")
        + counted("caller_aborted", "main")
}

/// What the library refuses by itself: the stream is reset, or the connection ends.
#[test]
fn promise_3_malformed_http_2_is_refused_counted_and_never_forwarded() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let head: &[(&str, &str)] =
        &[(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/a")];
    let with = |more: &[(&str, &str)]| block(&[head, more].concat());
    let headers = |block: &[u8]| frame(1, 5, 1, block);
    let table: &[(&str, Vec<u8>)] = &[
        ("connection", headers(&with(&[("connection", "close")]))),
        ("transfer-encoding", headers(&with(&[("transfer-encoding", "chunked")]))),
        ("keep-alive", headers(&with(&[("keep-alive", "5")]))),
        ("proxy-connection", headers(&with(&[("proxy-connection", "close")]))),
        ("upgrade", headers(&with(&[("upgrade", "websocket")]))),
        ("te", headers(&with(&[("te", "gzip")]))),
        ("a name in capitals", headers(&with(&[("X-A", "b")]))),
        ("a line feed in a value", headers(&with(&[("x-a", "b\nc: d")]))),
        ("a NUL in a value", headers(&with(&[("x-a", "b\0")]))),
        ("a colon in a name", headers(&with(&[("x:a", "b")]))),
        ("a late pseudo-header", headers(&with(&[("x-a", "b"), (":path", "/b")]))),
        ("two paths", headers(&with(&[(":path", "/b")]))),
        ("two authorities", headers(&with(&[(":authority", "localhost")]))),
        ("an unknown pseudo-header", headers(&with(&[(":x", "b")]))),
        ("a status", headers(&with(&[(":status", "200")]))),
        ("a protocol", headers(&with(&[(":protocol", "websocket")]))),
        ("no path", headers(&block(&head[..3]))),
        ("no method", headers(&block(&head[1..]))),
        ("a length and no body", headers(&with(&[("content-length", "3")]))),
        ("a length that is none", headers(&with(&[("content-length", "x")]))),
        ("two lengths", headers(&with(&[("content-length", "0"), ("content-length", "1")]))),
        (
            "a body longer than told",
            [frame(1, 4, 1, &with(&[("content-length", "1")])), frame(0, 1, 1, b"abc")].concat(),
        ),
        ("an even stream", frame(1, 5, 2, &block(head))),
        ("stream zero", frame(1, 5, 0, &block(head))),
        ("data on an idle stream", frame(0, 1, 1, b"abc")),
        ("a continuation of nothing", frame(9, 4, 1, &block(head))),
        ("padding beyond the frame", frame(1, 0xd, 1, b"\xff\0")),
        (
            "a stream that depends on itself",
            frame(1, 0x25, 1, &[b"\0\0\0\x01\0".to_vec(), block(head)].concat()),
        ),
        ("a push promise", frame(5, 4, 1, &[b"\0\0\0\x02".to_vec(), block(head)].concat())),
        ("an index that is not there", frame(1, 5, 1, b"\xff\xff\xff\x7f")),
        ("a frame that is too large", frame(0, 0, 1, &[0; 20_000])),
    ];
    for (name, frames) in table {
        let before = refused(&sidecar);
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send([OPENING, frames].concat());
        // The other side answers a PING once it has seen what came before; what it says against that it says before it
        // answers a second one.
        caller.send(frame(6, 0, 0, b"12345678"));
        let (mut said, mut pongs) = (false, 0);
        while !said && pongs < 2 {
            let head = caller.bytes(9);
            let [a, b, c, kind, flags, ..] = head[..] else {
                said = true;
                break;
            };
            caller.bytes(u32::from_be_bytes([0, a, b, c]) as usize);
            match (kind, flags) {
                (3 | 7, _) => said = true,
                (1, _) => panic!("{name}: it was answered"),
                (6, 1) => {
                    pongs += 1;
                    caller.send(frame(6, 0, 0, b"12345678"));
                }
                _ => {}
            }
        }
        assert!(said, "{name}: nothing was said against it");
        // The end of the connection is seen before it is counted.
        drop(caller);
        let deadline = Instant::now() + PATIENCE;
        let counted = || refused(&sidecar) - before;
        while counted() < 0.5 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!((counted() - 1.0).abs() < f64::EPSILON, "{name}: counted {}", counted());
    }
    let complete = upstream.received().iter().filter(|request| request.complete).count();
    assert_eq!(complete, 0);
}

#[test]
fn a_head_that_is_too_large_is_answered_431_over_http_2() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut request = http2_request("GET", "/");
    for number in 0..7 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        request.headers_mut().insert(name, "y".repeat(12_000).parse().unwrap());
    }
    assert_eq!(caller.ask(request, None).status, 431);
    let series = "attache_own_answers_total{reason=\"head_too_large\",route=\"(none)\"}";
    // What is sent is seen before it is counted.
    let begun = Instant::now();
    while (sidecar.metric(series) - 1.0).abs() > f64::EPSILON {
        assert!(begun.elapsed() < PATIENCE, "it is not counted");
        std::thread::yield_now();
    }
    assert!(upstream.received().is_empty());
}
