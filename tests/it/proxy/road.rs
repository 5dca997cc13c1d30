//! What arrives at the upstream, and what comes back.

use crate::support::{
    Caller, FakeServer, Http2Caller, Reply, Sidecar, credential, echo, get, http2_request, post, provider,
};

#[test]
fn promise_1_exactly_one_credential_leaves_whatever_the_caller_sends() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for fields in [
        "",
        "Authorization: Bearer mine\r\n",
        "authorization: a\r\nAUTHORIZATION: b\r\n",
        "Authori_zation: Bearer mine\r\nAuthor.ization: x\r\n",
        "Connection: authorization\r\nAuthorization: mine\r\n",
        "Connection: close, Authorization\r\n",
        "Proxy-Authorization: Basic eA==\r\n",
    ] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("GET /a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!(caller.answer().status, 200, "{fields:?}");
    }
    for request in upstream.received() {
        assert_eq!(request.fields("authorization"), ["Bearer token-1"], "{}", request.head);
        let letters = request.head.replace(['-', '_', '.'], "").to_lowercase();
        assert_eq!(letters.matches("authorization:").count(), 1, "{}", request.head);
        assert!(request.fields("connection").is_empty() && request.fields("proxy-authorization").is_empty());
    }
}

#[test]
fn a_request_arrives_as_it_was_sent_less_what_belongs_to_the_hop() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(
        "PATCH /a%20b;v=1/%2e/?q=a%2Fb&x=%zz HTTP/1.1\r\nHost: localhost:7080\r\nX-One: 1\r\nX-One: 2\r\nCookie: a=b\r\n\
         TE: trailers\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!(caller.answer().status, 200);
    let request = &upstream.received()[0];
    assert_eq!(request.line(), "PATCH /a%20b;v=1/%2e/?q=a%2Fb&x=%zz HTTP/1.1");
    assert_eq!(request.fields("host"), [upstream.address.to_string()]);
    assert_eq!(request.fields("x-one"), ["1", "2"]);
    assert_eq!(request.fields("cookie"), ["a=b"]);
    assert_eq!(request.fields("via").len(), 1);
    assert_eq!(request.body, b"abc");
    for name in ["te", "upgrade", "keep-alive", "transfer-encoding", "connection"] {
        assert!(request.fields(name).is_empty(), "{name}");
    }
}

#[test]
fn bodies_of_any_framing_and_method_arrive_whole() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"] {
        for chunked in [false, true] {
            let body = "x".repeat(100_000);
            let framed = if chunked {
                format!("Transfer-Encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n")
            } else {
                format!("Content-Length: 100000\r\n\r\n{body}")
            };
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n{framed}"));
            assert_eq!(caller.answer_to(method).status, 200, "{method}");
            let received = upstream.received();
            let request = received.last().unwrap();
            assert!(request.line().starts_with(method));
            assert!(request.complete && request.body == body.as_bytes(), "{method} {chunked}");
        }
    }
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    for number in 0..50 {
        caller.send(format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(caller.answer().text().starts_with(&format!("GET /{number} ")));
    }
    assert_eq!(upstream.connections(), 1);
    // Pipelined, and with a body in between.
    caller.send(
        "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nxyGET /c \
         HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    for path in ["GET /a", "POST /b", "GET /c"] {
        assert!(caller.answer().text().starts_with(path));
    }
}

#[test]
fn routes_are_found_by_host_and_by_the_longest_prefix_on_segment_boundaries() {
    let provider = provider();
    let named = |name: &'static str| FakeServer::start(move |_| Reply::text(200, name));
    let (root, api, deep, other) = (named("root"), named("api"), named("deep"), named("other"));
    let route = |name: &str, upstream: &FakeServer, lines: &str| {
        format!("[routes.{name}]\nupstream = \"{}\"\ncredential = \"main\"\n{lines}\n", upstream.url())
    };
    let sidecar = Sidecar::run(&format!(
        "{}{}{}{}{}",
        credential(&provider),
        route("root", &root, ""),
        route("api", &api, "path = \"/api/\""),
        route("deep", &deep, "path = \"/api/v2/deep\""),
        route("other", &other, "host = \"Other.Internal\""),
    ));
    for (target, expected) in [
        ("/", "root"),
        ("/apiary", "root"),
        ("/ap", "root"),
        ("/api", "api"),
        ("/api?x", "api"),
        ("/api/", "api"),
        ("/api/v2/deeper", "api"),
        ("/api/v2/deep", "deep"),
        ("/api/v2/deep/er/still/further/down", "deep"),
    ] {
        assert_eq!(get(sidecar.proxy, target).text(), expected, "{target}");
    }
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET /api HTTP/1.1\r\nHost: OTHER.internal:80\r\n\r\n");
    assert_eq!(caller.answer().text(), "other");
}

#[test]
fn a_prefix_can_be_stripped_and_a_base_path_put_in_front() {
    let (provider, upstream) = (provider(), echo());
    let sidecar =
        Sidecar::to(&format!("{}/v2", upstream.url()), &provider, "path = \"/api\"\nstrip_prefix = true");
    for (target, expected) in
        [("/api", "/v2"), ("/api/", "/v2/"), ("/api/a%20b?c", "/v2/a%20b?c"), ("/api?x", "/v2?x")]
    {
        let answer = get(sidecar.proxy, target);
        assert_eq!(answer.text().lines().next().unwrap(), format!("GET {expected} HTTP/1.1"));
    }
}

#[test]
fn a_route_can_have_a_port_of_its_own() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "{}[routes.a]\npath = \"/a\"\nupstream = \"{url}\"\ncredential = \"main\"\n[routes.b]\nlisten = \"127.0.0.1:0\"\n\
         path = \"/b\"\nupstream = \"{url}\"\ncredential = \"main\"\n",
        credential(&provider),
        url = upstream.url()
    ));
    assert_eq!(sidecar.proxies.len(), 2);
    assert_eq!(get(sidecar.proxies[0], "/a").status, 200);
    assert_eq!(get(sidecar.proxies[0], "/b").status, 404);
    assert_eq!(get(sidecar.proxies[1], "/b").status, 200);
}

#[test]
fn the_token_goes_where_the_route_says() {
    let (provider, upstream) = (provider(), echo());
    let lines = "[routes.main.inject]\nheader = \"X-Api-Key\"\nformat = \"Token {token}!\"";
    let sidecar = Sidecar::to(&upstream.url(), &provider, lines);
    let mut caller = Caller::connect(sidecar.proxy);
    caller
        .send("GET / HTTP/1.1\r\nHost: localhost\r\nx_api_key: mine\r\nAuthorization: Bearer theirs\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
    let request = &upstream.received()[0];
    assert_eq!(request.fields("x-api-key"), ["Token token-1!"]);
    assert!(request.fields("x_api_key").is_empty());
    assert_eq!(request.fields("authorization"), ["Bearer theirs"]);
}

#[test]
fn expect_100_continue_is_answered_once() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    caller.send("ab");
    assert_eq!(caller.answer().status, 200);
    assert!(upstream.received()[0].fields("expect").is_empty());
    assert_eq!(post(sidecar.proxy, "/", b"cd").status, 200);
}

#[test]
fn max_forwards_of_options_is_counted_down_and_answered_where_no_hop_is_left() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    let ask = |method: &str, hops: &str| {
        format!("{method} /a HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: {hops}\r\n\r\n")
    };
    for (number, (method, hops, left)) in
        [("OPTIONS", "7", "6"), ("OPTIONS", "1", "0"), ("GET", "0", "0")].into_iter().enumerate()
    {
        caller.send(ask(method, hops));
        assert_eq!(caller.answer().status, 200);
        assert_eq!(upstream.received()[number].fields("max-forwards"), [left], "{method}");
    }
    caller.send(ask("OPTIONS", "0"));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.field("content-length")), (204, None));
    assert_eq!(answer.field("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    // The same connection goes on.
    caller.send(ask("OPTIONS", "x"));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.reason().as_deref()), (400, Some("malformed_request")));
    assert!(caller.is_closed());
    assert_eq!(upstream.received().len(), 3);
    // It needs no token.
    let down = FakeServer::start(|_| Reply::text(500, "down"));
    let sidecar = Sidecar::to(&upstream.url(), &down, "");
    let mut request = http2_request("OPTIONS", "/");
    request.headers_mut().insert("max-forwards", http::HeaderValue::from_static("0"));
    let answer = Http2Caller::connect(sidecar.proxy).ask(request, None);
    assert_eq!((answer.status, answer.body.len(), answer.reset), (204, 0, None));
}

#[test]
fn a_connection_that_was_quiet_for_a_while_goes_on_as_before() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    for round in 0..2 {
        // Its buffers are given back after one to three seconds, and come again with the next request.
        caller.send(format!("POST /{round} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab\r\n"));
        assert!(caller.answer().text().starts_with(&format!("POST /{round} ")));
        assert!(caller.is_silent_for(std::time::Duration::from_millis(3500)));
    }
    // A head that arrives in two parts, across the time at which a quiet connection is looked at.
    caller.send("GET /parts HT");
    assert!(caller.is_silent_for(std::time::Duration::from_millis(3500)));
    caller.send("TP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(caller.answer().text().starts_with("GET /parts "));
    assert_eq!(upstream.received().len(), 3);
}

#[test]
fn headers_of_the_operator_take_the_place_of_the_callers_and_the_host_can_be_kept() {
    let (provider, upstream) = (provider(), echo());
    let lines = "preserve_host = true\nheaders = { X-Tenant = \"blue\" }";
    let sidecar = Sidecar::to(&upstream.url(), &provider, lines);
    for fields in ["", "X-Tenant: mine\r\nX_Tenant: mine\r\n", "Connection: x-tenant\r\nX-Tenant: mine\r\n"] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("GET / HTTP/1.1\r\nHost: localhost:1234\r\n{fields}\r\n"));
        assert_eq!(caller.answer().status, 200);
    }
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost:1234\r\nConnection: host\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
    let requests = upstream.received();
    for request in &requests {
        assert_eq!(request.fields("x-tenant"), ["blue"]);
        assert!(request.fields("x_tenant").is_empty());
        assert_eq!(request.fields("authorization"), ["Bearer token-1"]);
    }
    assert!(requests[..3].iter().all(|request| request.fields("host") == ["localhost:1234"]));
    assert_eq!(requests[3].fields("host"), [upstream.address.to_string()]);
}

#[test]
fn a_redirect_of_the_upstream_to_itself_comes_back_as_a_local_one() {
    let provider = provider();
    let upstream = FakeServer::start(|request| {
        let location = match request.line().contains("/own") {
            true => format!("http://{}/v2/new?x", request.fields("host")[0]),
            false => "https://other.example/v2/new".to_owned(),
        };
        Reply::raw(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    });
    let lines = "path = \"/api\"\nstrip_prefix = true\nrewrite_location = true";
    let sidecar = Sidecar::to(&format!("{}/v2", upstream.url()), &provider, lines);
    assert_eq!(get(sidecar.proxy, "/api/own").field("location"), Some("/api/new?x"));
    assert_eq!(get(sidecar.proxy, "/api/other").field("location"), Some("https://other.example/v2/new"));
}

#[test]
fn a_callers_own_credential_can_be_refused_instead_of_replaced() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "caller_authorization = \"reject\"");
    for fields in [
        "Authorization: mine\r\n",
        "Author_ization: mine\r\n",
        "Connection: authorization\r\nAuthorization: x\r\n",
    ] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        let answer = caller.answer();
        assert_eq!(
            (answer.status, answer.reason().as_deref()),
            (403, Some("caller_authorization")),
            "{fields}"
        );
    }
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_body_that_is_absent_is_said_to_be_absent_where_one_is_expected() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for (method, field, arrives) in [
        ("POST", "Content-Length: 0\r\n", true),
        ("POST", "", true),
        ("PUT", "", true),
        ("PATCH", "Content-Length: 0\r\n", true),
        ("DELETE", "Content-Length: 0\r\n", true),
        ("DELETE", "", false),
        ("GET", "", false),
    ] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
        assert_eq!(caller.answer().status, 200);
        let received = upstream.received();
        let request = received.last().unwrap();
        let expected: &[&str] = if arrives { &["0"] } else { &[] };
        assert_eq!(request.fields("content-length"), expected, "{method} {field:?}");
        assert!(request.fields("transfer-encoding").is_empty());
    }
}

#[test]
fn connections_are_spread_over_the_workers_and_each_has_its_own_pool() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(caller.answer().status, 200);
        callers.push(caller);
    }
    // Two workers, and a kept connection on each: with one worker there would be one, without pools eight.
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn via_names_the_version_in_which_a_request_came() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for version in ["1.0", "1.1"] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n"));
        let answer = caller.answer();
        assert!(
            answer.text().to_lowercase().contains(&format!("via: {version} attache-")),
            "{}",
            answer.text()
        );
    }
}
