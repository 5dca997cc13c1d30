//! What is not plain, unambiguous HTTP, or asks for what attaché never does, is refused; nothing of it reaches the
//! upstream.

use crate::support::{Caller, Sidecar, credential, echo, either::before_either, get, provider};

/// Each row: a name, the request as it is sent, the status, the reason (empty where hyper answers), and whether the
/// connection is closed afterwards.
pub(super) const HOSTILE: &[(&str, &str, u16, &str)] = &[
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400, "malformed_host"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400, "malformed_host"),
    ("empty host", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400, "malformed_host"),
    ("host with user", "GET / HTTP/1.1\r\nHost: a@localhost\r\n\r\n", 400, "malformed_host"),
    ("host list", "GET / HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n", 400, "malformed_host"),
    ("foreign host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "foreign_host"),
    ("foreign ip", "GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 421, "foreign_host"),
    (
        "absolute form of another",
        "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        421,
        "foreign_host",
    ),
    (
        "absolute form, other host field",
        "GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        421,
        "foreign_host",
    ),
    (
        "origin",
        "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
        403,
        "foreign_origin",
    ),
    ("null origin", "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403, "foreign_origin"),
    (
        "browser",
        "GET / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\r\n",
        403,
        "foreign_origin",
    ),
    ("connect", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 405, "method_not_allowed"),
    ("trace", "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method_not_allowed"),
    ("track", "TRACK / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method_not_allowed"),
    ("trace in lower case", "trace / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method_not_allowed"),
    ("asterisk", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_target"),
    ("options asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_target"),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_target"),
    ("raw utf-8", "GET /é HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_target"),
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_framing",
    ),
    (
        "both lengths, other order",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_framing",
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        400,
        "ambiguous_framing",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        400,
        "",
    ),
    ("length list", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 1\r\n\r\nx", 400, ""),
    ("signed length", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\nx", 400, ""),
    ("empty length", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n", 400, ""),
    (
        "huge length",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        400,
        "",
    ),
    (
        "gzip, chunked",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_framing",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_framing",
    ),
    (
        "chunked in two lines",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_framing",
    ),
    ("identity", "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n", 400, ""),
    (
        "xchunked",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
        "",
    ),
    (
        "http/1.0 with a body",
        "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        400,
        "ambiguous_framing",
    ),
    (
        "http/1.0 chunked",
        "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "",
    ),
    ("bare line feed", "GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400, "ambiguous_framing"),
    ("bare line feeds only", "GET / HTTP/1.1\nHost: localhost\n\n", 400, "ambiguous_framing"),
    ("space before colon", "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, ""),
    ("folded line", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400, ""),
    ("nul in a value", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400, ""),
    ("carriage return in a value", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", 400, ""),
    ("no version", "GET /\r\n\r\n", 400, ""),
    ("odd version", "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", 400, ""),
    ("almost the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n", 400, ""),
    ("not http", "\x16\x03\x01\x02\r\n\r\n", 400, ""),
];

#[test]
fn promise_3_what_is_not_plain_http_is_refused_closed_counted_and_never_forwarded() {
    before_either("", |upstream, sidecar| {
        for (name, request, status, reason) in HOSTILE {
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send(request);
            caller.finish();
            let answer = caller.answer();
            assert_eq!(answer.status, *status, "{name}: {}", answer.text());
            if !reason.is_empty() {
                assert_eq!(answer.reason().as_deref(), Some(*reason), "{name}");
                assert!(answer.field("proxy-status").unwrap().starts_with("attache; error="), "{name}");
                assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{name}");
            }
            assert!(caller.is_closed(), "{name}");
            assert!(upstream.received().is_empty(), "{name}");
        }
        for reason in
            ["malformed_host", "foreign_host", "foreign_origin", "ambiguous_framing", "malformed_request"]
        {
            let series = format!("attache_own_answers_total{{reason=\"{reason}\",route=\"(none)\"}}");
            assert!(sidecar.metric(&series) >= 1.0, "{reason}");
        }
    });
}

#[test]
fn what_follows_a_refused_request_on_its_connection_is_not_served() {
    before_either("", |upstream, sidecar| {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled \
         HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
        assert_eq!(caller.answer().status, 400);
        assert!(caller.is_closed());
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn what_follows_a_refused_call_on_its_connection_is_not_served() {
    before_either("", |upstream, sidecar| {
        for rest in [
            "Host: localhost\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            "Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "Host: evil.example\r\n\r\n",
            "\r\n",
        ] {
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send(format!(
                "POST / HTTP/1.1\r\nContent-Type: application/grpc\r\n{rest}GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
            ));
            let answer = caller.answer();
            assert!(answer.field("grpc-status").is_some(), "{rest}");
            assert_eq!(answer.field("connection"), Some("close"), "{rest}");
            assert!(caller.is_closed(), "{rest}");
            assert!(upstream.received().is_empty(), "{rest}");
        }
    });
}

#[test]
fn an_answer_says_when_its_connection_ends_because_the_body_is_not_read() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "path = \"/api\"");
    for (request, ends) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", false),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", true),
    ] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(request);
        let answer = caller.answer();
        assert_eq!((answer.status, answer.field("connection") == Some("close")), (404, ends), "{request}");
        if ends {
            assert!(caller.is_closed(), "{request}");
        } else {
            caller.send("GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(caller.answer().status, 200, "{request}");
        }
    }
}

#[test]
fn promise_4_a_path_that_could_leave_its_prefix_is_refused() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "path = \"/api\"");
    for target in [
        "/api/../admin",
        "/api/%2e%2e/admin",
        "/api/%252e%252e/admin",
        "/api/..;/admin",
        "/api/.%2e/",
        "/api//admin",
        "/api/%2fx",
        "/api/%5cx",
        "/api/\\x",
        "/api/a;b/c",
        "/api/%00",
        "/api/%0a",
        "/%61pi/../x",
        "/./api",
        "//api",
    ] {
        let answer = get(sidecar.proxy, target);
        assert_eq!((answer.status, answer.reason().as_deref()), (400, Some("path_refused")), "{target}");
    }
    for target in ["/apix", "/", "/API", "/%61pi"] {
        assert_eq!(get(sidecar.proxy, target).reason().as_deref(), Some("no_route"), "{target}");
    }
    assert!(upstream.received().is_empty());
    assert_eq!(get(sidecar.proxy, "/api/x?a=../..//").status, 200, "a query is not a path");
}

#[test]
fn a_loop_is_refused_and_another_sidecar_is_not_a_loop() {
    let provider = provider();
    let upstream = echo();
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let other = Sidecar::to(&format!("http://{}", sidecar.proxy), &provider, "");
    assert_eq!(get(other.proxy, "/").status, 200);
    let via = upstream.received()[0].fields("via")[1].to_owned();
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 x, {via}\r\n\r\n"));
    assert_eq!(caller.answer().reason().as_deref(), Some("loop_detected"));
}

#[test]
fn a_required_header_is_required_and_not_forwarded() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "[proxy]\nrequired_header = \"x-caller\"\n{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    ));
    assert_eq!(get(sidecar.proxy, "/").reason().as_deref(), Some("required_header_missing"));
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Caller: 1\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
    assert!(upstream.received()[0].fields("x-caller").is_empty());
}

#[test]
fn no_byte_of_a_request_comes_back_in_a_refusal() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "path = \"/api\"");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET /marker HTTP/1.1\r\nHost: localhost\r\nX-Marker: marker\r\n\r\n");
    let answer = caller.answer();
    assert!(!answer.head.contains("marker") && !answer.text().contains("marker"));
}
