//! gRPC calls and trailers.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::Semaphore;

use crate::support::{
    Asked, Caller, FakeServer, Http2Caller, Http2Server, Reply, Sidecar, http2_request, provider,
    reset_of_stream,
};

const H2C: &str = "protocol = \"h2c\"";

fn call(path: &str) -> Request<()> {
    let mut request = http2_request("POST", path);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

fn trailers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// Answers each message with one, as it comes, and then with a status.
async fn echo(mut asked: Asked) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = asked.respond.send_response(head, false).unwrap();
    while let Some(Ok(data)) = asked.body.data().await {
        asked.body.flow_control().release_capacity(data.len()).unwrap();
        stream.send_data(data, false).unwrap();
    }
    let sent = asked.body.trailers().await.unwrap().unwrap_or_default();
    let text = |name: &str| asked.field(name).unwrap_or_default().to_owned();
    let seen = format!("{} {} {}", text("te"), text("grpc-timeout"), sent.len());
    let mut last = trailers(&[("grpc-status", "0"), ("x-seen", &seen)]);
    last.insert("x-echo", asked.head.headers["authorization"].clone());
    for name in ["host", "www-authenticate", "set-cookie"] {
        last.insert(name, HeaderValue::from_static("5"));
    }
    stream.send_trailers(last).unwrap();
}

#[test]
fn messages_pass_both_ways_as_they_come_and_the_status_behind_them() {
    let (provider, upstream) = (provider(), Http2Server::start(echo));
    let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("response_timeout = \"100ms\"\n{H2C}"));
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut request = call("/a.B/Stream");
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("20S"));
    let exchange = caller.open(request, false);
    let (response, mut body) = caller.head(exchange);
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (http::StatusCode::OK, &"application/grpc".parse().unwrap())
    );
    let mut answer = response.into_body();
    for round in 0..100 {
        let message = Bytes::from(vec![round; 5]);
        body.send_data(message.clone(), false).unwrap();
        let got = caller.runtime.block_on(answer.data()).unwrap().unwrap();
        assert_eq!(got, message);
        answer.flow_control().release_capacity(got.len()).unwrap();
    }
    let fields =
        [("x-checksum", "1"), ("authorization", "mine"), ("author_ization", "mine"), ("host", "evil")];
    body.send_trailers(trailers(&fields)).unwrap();
    assert!(caller.runtime.block_on(answer.data()).is_none());
    let trailers = caller.runtime.block_on(answer.trailers()).unwrap().unwrap();
    let mut fields: Vec<_> =
        trailers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    fields.sort_unstable();
    // Of the four trailers of the request, one may pass; of the six of the answer, two.
    assert_eq!(fields, [("grpc-status", "0"), ("x-seen", "trailers 20S 1")]);
}

#[test]
fn a_call_is_not_cut_off_by_the_response_timeout() {
    let provider = provider();
    let gate = Arc::new(Semaphore::new(0));
    let closed = Arc::clone(&gate);
    let upstream = Http2Server::start(move |mut asked: Asked| {
        let gate = Arc::clone(&closed);
        async move {
            gate.acquire().await.unwrap().forget();
            asked.answer(200, b"late");
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("response_timeout = \"100ms\"\n{H2C}"));
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let call = caller.begin(call("/a.B/C"), Some(b"hello"));
    upstream.wait_for(1);
    // Two requests that are no calls, and begin later, are cut off meanwhile.
    for _ in 0..2 {
        assert_eq!(caller.ask(http2_request("POST", "/"), Some(b"hello")).status, 504);
    }
    gate.add_permits(1);
    assert_eq!(caller.rest(call).text(), "late");
}

#[test]
fn errors_of_attache_are_errors_of_the_call() {
    let provider = provider();
    let gone = Sidecar::to("http://127.0.0.1:1", &provider, "path = \"/a.B\"");
    for (path, code, reason) in [("/a.B/C", "14", "upstream_unreachable"), ("/x.Y/Z", "12", "no_route")] {
        let answer = Http2Caller::connect(gone.proxy).ask(call(path), Some(b"hello"));
        assert_eq!((answer.status, answer.reset, answer.body.len()), (200, None, 0));
        assert_eq!(answer.field("content-type"), Some("application/grpc"));
        assert_eq!(answer.field("grpc-status"), Some(code));
        assert!(
            answer.field("grpc-message").unwrap().starts_with(&format!("attache: {reason}: ")),
            "{answer:?}"
        );
    }
    let mut foreign = call("/a.B/C");
    foreign.headers_mut().insert("origin", HeaderValue::from_static("http://evil.example"));
    let answer = Http2Caller::connect(gone.proxy).ask(foreign, Some(b"hello"));
    assert_eq!(answer.field("grpc-status"), Some("7"));
    assert_eq!(gone.metric("attache_requests_total{code=\"5xx\",route=\"main\"}"), 1.0);
    let none = FakeServer::start(|_| Reply::text(503, ""));
    let waiting = Sidecar::to("http://127.0.0.1:1", &none, "");
    let answer = Http2Caller::connect(waiting.proxy).ask(call("/a.B/C"), Some(b"hello"));
    assert_eq!(answer.field("grpc-status"), Some("14"));
    assert!(answer.field("grpc-retry-pushback-ms").unwrap().parse::<u64>().unwrap() > 0);
}

#[test]
fn a_call_whose_token_is_refused_heals_the_next_one_and_is_not_sent_twice() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        let status = match asked.field("authorization") {
            Some("Bearer token-1") => "16",
            _ => "0",
        };
        let head = Response::builder().header("grpc-status", status).body(()).unwrap();
        asked.respond.send_response(head, true).unwrap();
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.ask(call("/a.B/C"), Some(b"hello")).field("grpc-status"), Some("16"));
    provider.wait_for(2);
    while caller.ask(call("/a.B/C"), Some(b"hello")).field("grpc-status") != Some("0") {}
    assert_eq!(provider.received().len(), 2);
}

#[test]
fn the_span_of_a_call_shows_the_status_that_ended_it() {
    let (provider, collector) = (provider(), FakeServer::start(|_| Reply::text(200, "")));
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = asked.respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        stream.send_trailers(trailers(&[("grpc-status", "14"), ("grpc-message", "hunter2")])).unwrap();
    });
    let traces = format!("[traces]\nendpoint = \"{}\"\nprotocol = \"http/protobuf\"", collector.url());
    let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("{H2C}\n{traces}"));
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.ask(call("/a.B/Halved"), Some(b"hello")).status, 200);
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    // Token requests have spans of their own, which may come before.
    let mut came = 1;
    let batch = loop {
        let batch = collector.wait_for(came).pop().unwrap().body;
        if has(&batch, "/a.B/Halved") {
            break batch;
        }
        came += 1;
    };
    for text in ["rpc.system.name", "rpc.response.status_code", "UNAVAILABLE", "error.type"] {
        assert!(has(&batch, text), "{text}");
    }
    assert!(!has(&batch, "hunter2"));
}

#[test]
fn either_side_can_cancel_a_call() {
    let provider = provider();
    let (told, tells) = std::sync::mpsc::channel();
    let told = Arc::new(told);
    let upstream = Http2Server::start(move |mut asked: Asked| {
        let told = Arc::clone(&told);
        async move {
            if asked.head.uri.path() == "/a.B/Upstream" {
                return asked.respond.send_reset(Reason::CANCEL);
            }
            let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
            told.send(reset_of_stream(&mut stream).await).unwrap();
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    // Bidirectional, half-way in both directions.
    let exchange = caller.open(call("/a.B/Caller"), false);
    let (_, mut body) = caller.head(exchange);
    body.send_reset(Reason::CANCEL);
    assert_eq!(tells.recv().unwrap(), "CANCEL");
    let answer = caller.ask(call("/a.B/Upstream"), Some(b"hello"));
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")));
}

#[test]
fn metadata_of_many_kilobytes_passes_both_ways() {
    let provider = provider();
    let upstream = Http2Server::with(
        {
            let mut settings = h2::server::Builder::new();
            settings.max_header_list_size(1 << 20);
            settings
        },
        None,
        |mut asked: Asked| async move {
            let head =
                Response::builder().header("x-back", &asked.head.headers["x-large-bin"]).body(()).unwrap();
            let mut stream = asked.respond.send_response(head, false).unwrap();
            let large = asked.head.headers["x-large-bin"].clone();
            let mut last = trailers(&[("grpc-status", "0")]);
            last.insert("x-back-bin", large);
            stream.send_trailers(last).unwrap();
        },
    );
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut request = call("/a.B/C");
    let large = "z".repeat(50_000);
    request.headers_mut().insert("x-large-bin", large.parse().unwrap());
    let answer = caller.ask(request, Some(b""));
    assert_eq!(answer.field("x-back"), Some(&*large));
    assert_eq!(answer.trailers.unwrap()["x-back-bin"], *large);
}

/// Over HTTP/1.1 and HTTP/2 on either side: what becomes of the trailers of an answer.
#[test]
fn trailers_of_an_answer_reach_the_callers_that_take_them() {
    let http1 = FakeServer::start(|_| {
        Reply::raw(
            "HTTP/1.1 200 X\r\nTrailer: x-sum, host, x-echo\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 5\r\nHost: evil\r\nX-Echo: token-1\r\nX-Undeclared: 1\r\n\r\n",
        )
    });
    let http2 = Http2Server::start(|mut asked: Asked| async move {
        let head = Response::builder().header("trailer", "x-sum, host, x-echo").body(()).unwrap();
        let mut stream = asked.respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(b"ok"), false).unwrap();
        let fields = [("x-sum", "5"), ("host", "evil"), ("x-echo", "token-1"), ("x-undeclared", "1")];
        stream.send_trailers(trailers(&fields)).unwrap();
    });
    for (name, upstream, protocol) in [("HTTP/1.1", http1.url(), ""), ("HTTP/2", http2.url(), H2C)] {
        let provider = provider();
        let sidecar = Sidecar::to(&upstream, &provider, protocol);
        for _ in 0..3 {
            let answer = Http2Caller::connect(sidecar.proxy).get("/");
            assert_eq!(answer.text(), "ok", "{name}");
            let got = answer.trailers.unwrap();
            assert_eq!(
                (got.len(), &got["x-sum"], &got["x-undeclared"]),
                (2, &"5".parse().unwrap(), &"1".parse().unwrap()),
                "{name}"
            );
            for (fields, expected) in [
                ("TE: trailers\r\nConnection: TE\r\n", "2\r\nok\r\n0\r\nx-sum: 5\r\n\r\n"),
                ("TE: trailers\r\n", "2\r\nok\r\n0\r\n\r\n"),
                ("", "2\r\nok\r\n0\r\n\r\n"),
            ] {
                let mut caller = Caller::connect(sidecar.proxy);
                caller
                    .send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"));
                let answer = caller.rest();
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                assert_eq!(body, expected, "{name} {fields}");
                let declared = head.to_lowercase().contains("\r\ntrailer: ");
                assert_eq!(declared, fields.contains("Connection"), "{name} {head}");
            }
        }
    }
    // What was asked of it, and that its connections were kept.
    let asked = http1.received();
    let te: Vec<_> = asked.iter().map(|request| request.fields("te").len()).collect();
    assert_eq!(te.iter().sum::<usize>(), 3);
    assert!(http1.connections() <= 2, "{} connections", http1.connections());
}

#[test]
fn trailers_of_a_request_that_is_no_call_are_dropped() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        let (body, trailers, whole) = asked.whole_body().await;
        assert!(whole && trailers.is_none());
        asked.answer(200, &body);
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut exchange = caller.open(http2_request("POST", "/"), false);
    exchange.body.send_data(Bytes::from_static(b"hello"), false).unwrap();
    exchange.body.send_trailers(trailers(&[("x-sum", "5")])).unwrap();
    assert_eq!(caller.rest(exchange).text(), "hello");
}
