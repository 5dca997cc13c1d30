//! Callers that speak HTTP/2 with prior knowledge: the same road, the same rules.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::support::{
    Caller, FakeServer, Http2Caller, OPENING, Reply, Sidecar, block, credential, echo, frame, http2_request,
    provider,
};

#[test]
fn a_request_over_http_2_arrives_as_one_over_http_1_with_one_credential() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut request = http2_request("PATCH", "/a%20b;v=1/%2e/?q=a%2Fb&x=%zz");
    for (name, value) in [
        ("x-one", "1"),
        ("x-one", "2"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("te", "trailers"),
        ("authorization", "Bearer mine"),
        ("authori_zation", "Bearer mine"),
        ("proxy-authorization", "Basic eA=="),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = caller.ask(request, Some(b"abc"));
    assert_eq!((answer.status, answer.reset), (200, None));
    let request = &upstream.received()[0];
    assert_eq!(request.line(), "PATCH /a%20b;v=1/%2e/?q=a%2Fb&x=%zz HTTP/1.1");
    assert_eq!(request.fields("host"), [upstream.address.to_string()]);
    assert_eq!(request.fields("x-one"), ["1", "2"]);
    assert_eq!(request.fields("cookie"), ["a=b; c=d"]);
    assert_eq!(request.fields("authorization"), ["Bearer token-1"]);
    assert!(request.fields("via")[0].starts_with("2 attache-"), "{}", request.head);
    assert_eq!(request.body, b"abc");
    for name in ["authori_zation", "proxy-authorization"] {
        assert!(request.fields(name).is_empty(), "{name}");
    }
    assert_eq!(answer.text(), request.head);
    assert_eq!(answer.field("content-length"), Some(&*request.head.len().to_string()));
    assert!(answer.field("date").is_some());
}

#[test]
fn bodies_of_any_method_and_size_pass_whole_over_http_2() {
    let provider = provider();
    let upstream = FakeServer::start(|request| {
        let body = "y".repeat(request.body.len());
        match request.line().split(' ').next() {
            Some("HEAD") => Reply::raw("HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\n"),
            Some("PUT") => Reply::raw(format!(
                "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )),
            _ => Reply::text(200, &body),
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"] {
        for size in [1, 200_000] {
            for told in [false, true] {
                let mut request = http2_request(method, "/a");
                if told {
                    request.headers_mut().insert("content-length", size.into());
                }
                let answer = caller.ask(request, Some(&vec![b'x'; size]));
                assert_eq!((answer.status, answer.reset), (200, None), "{method} {size} {told}");
                let expected = if method == "HEAD" { 0 } else { size };
                assert_eq!(answer.body.len(), expected, "{method} {size} {told}");
                let received = upstream.received();
                let request = received.last().unwrap();
                assert!(request.complete && request.body.len() == size, "{method} {size} {told}");
                assert_eq!(request.fields("content-length").is_empty(), !told, "{}", request.head);
            }
        }
    }
    assert_eq!(caller.ask(http2_request("HEAD", "/"), None).field("content-length"), Some("7"));
}

/// Each row: a name, the request, the status and the reason.
#[test]
fn promise_3_what_is_refused_over_http_1_is_refused_over_http_2_and_never_forwarded() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "{}[routes.main]\npath = \"/in\"\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    ));
    let to = |uri: &str| Request::get(uri).version(http::Version::HTTP_2);
    let table = [
        ("foreign host", to("http://evil.example/in"), 421, "foreign_host"),
        (
            "a host that differs",
            to("http://localhost/in").header("host", "localhost:1"),
            400,
            "malformed_host",
        ),
        (
            "a foreign host field",
            to("http://localhost/in").header("host", "evil.example"),
            400,
            "malformed_host",
        ),
        (
            "two host fields",
            to("http://localhost/in").header("host", "localhost").header("host", "localhost"),
            400,
            "malformed_host",
        ),
        ("a user", to("http://a@localhost/in"), 400, "malformed_host"),
        ("another scheme", to("ftp://localhost/in"), 400, "malformed_target"),
        ("origin", to("http://localhost/in").header("origin", "http://localhost"), 403, "foreign_origin"),
        ("browser", to("http://localhost/in").header("sec-fetch-site", "cross-site"), 403, "foreign_origin"),
        ("trace", to("http://localhost/in").method("TRACE"), 405, "method_not_allowed"),
        ("track", to("http://localhost/in").method("track"), 405, "method_not_allowed"),
        (
            "connect",
            Request::connect("localhost:80").version(http::Version::HTTP_2),
            405,
            "method_not_allowed",
        ),
        ("dots", to("http://localhost/in/../out"), 400, "path_refused"),
        ("dots twice encoded", to("http://localhost/in/%252e%252e/out"), 400, "path_refused"),
        ("no route", to("http://localhost/inner"), 404, "no_route"),
        (
            "the same length twice",
            to("http://localhost/in").header("content-length", "0").header("content-length", "0"),
            400,
            "ambiguous_framing",
        ),
    ];
    let mut caller = Http2Caller::connect(sidecar.proxy);
    for (name, request, status, reason) in table {
        let answer = caller.ask(request.body(()).unwrap(), None);
        assert_eq!((answer.status, answer.reason().as_deref()), (status, Some(reason)), "{name}");
        assert_eq!(answer.field("connection"), None, "{name}");
        let series = format!("attache_own_answers_total{{reason=\"{reason}\",route=\"(none)\"}}");
        assert!(sidecar.metric(&series) >= 1.0, "{name}");
    }
    // The connection is as good as before.
    assert_eq!(caller.get("/in").status, 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_caller_that_expects_100_is_told_to_go_on_over_http_2() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut request = http2_request("POST", "/a");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let mut exchange = caller.open(request, false);
    let response = &mut exchange.response;
    let interim = caller.runtime.block_on(std::future::poll_fn(|cx| response.poll_informational(cx)));
    assert_eq!(interim.unwrap().unwrap().status(), 100);
    exchange.body.send_data(Bytes::from_static(b"abc"), true).unwrap();
    assert_eq!(caller.rest(exchange).status, 200);
    assert_eq!(upstream.received()[0].body, b"abc");
    assert!(upstream.received()[0].fields("expect").is_empty());
}

#[test]
fn interim_answers_pass_over_http_2() {
    let provider = provider();
    let upstream = FakeServer::start(|_| {
        Reply::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let mut exchange = caller.open(http2_request("GET", "/a"), true);
    let response = &mut exchange.response;
    let interim = caller.runtime.block_on(std::future::poll_fn(|cx| response.poll_informational(cx)));
    let interim = interim.unwrap().unwrap();
    assert_eq!((interim.status().as_u16(), interim.headers().len()), (103, 1));
    assert_eq!(interim.headers()["link"], "</a.css>");
    assert_eq!(caller.rest(exchange).status, 200);
}

#[test]
fn an_upstream_that_breaks_off_resets_the_stream() {
    let provider = provider();
    let upstream =
        FakeServer::start(|_| Reply::raw("HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf").close());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    for _ in 0..50 {
        let answer = caller.get("/");
        assert_eq!((answer.status, answer.reset), (200, Some(Reason::INTERNAL_ERROR)));
    }
}

#[test]
fn a_fragment_is_cut_off_by_the_library_and_what_is_left_meets_every_rule() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "{}[routes.main]\npath = \"/in\"\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    ));
    for (path, expected) in [("/in/a#/../../b", 200), ("/out#/in", 404), ("/in/..#x", 400)] {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send([OPENING, &frame(1, 5, 1, &block(&fields))].concat());
        // The status is the first field of the block; these have an entry of the static table, or are literal.
        let status = loop {
            let head = caller.bytes(9);
            let payload = caller.bytes(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
            if head[3] == 1 {
                break match payload[0] {
                    0x88 => 200,
                    0x8c => 400,
                    0x8d => 404,
                    other => panic!("{other:x}"),
                };
            }
        };
        assert_eq!(status, expected, "{path}");
    }
    assert_eq!(upstream.received()[0].line(), "GET /in/a HTTP/1.1");
}
