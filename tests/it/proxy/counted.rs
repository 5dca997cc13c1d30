//! Everything that attaché answers itself is counted by its reason, over either HTTP, once.

use std::{collections::HashSet, io::Write as _, net::TcpListener};

use attache::proxy::Reason;
use http::{Request, Version};

use crate::support::{
    Caller, FakeServer, Http2Caller, Reply, Sidecar, credential, provider,
    websocket::{Chat, connect_request},
};

/// Counted elsewhere: what has no request (`unix`, `too_many`), and what takes a bug (`app::panics`).
const ELSEWHERE: [Reason; 3] = [Reason::PeerRefused, Reason::TooManyConnections, Reason::Internal];

/// A request that is refused, as each HTTP has it; nothing where it cannot be.
struct Row {
    reason: Reason,
    route: &'static str,
    http_1: Option<String>,
    http_2: Option<Request<()>>,
}

fn to(uri: &str) -> http::request::Builder {
    Request::get(uri).version(Version::HTTP_2)
}

/// The same plain request in both.
fn plain(reason: Reason, route: &'static str) -> Row {
    let path = format!("/{route}");
    with(reason, route, &path, ("x-fine", "1"))
}

fn with(reason: Reason, route: &'static str, path: &str, (name, value): (&str, &str)) -> Row {
    Row {
        reason,
        route,
        http_1: Some(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Caller: 1\r\n{name}: {value}\r\n\r\n"
        )),
        http_2: Some(
            to(&format!("http://localhost{path}"))
                .header("x-caller", "1")
                .header(name, value)
                .body(())
                .unwrap(),
        ),
    }
}

fn rows() -> Vec<Row> {
    let none = "(none)";
    let row = |reason, http_1: &str, http_2: Option<http::request::Builder>| Row {
        reason,
        route: none,
        http_1: Some(http_1.to_owned()),
        http_2: http_2.map(|request| request.body(()).unwrap()),
    };
    vec![
        // `http2_malformed` has those of HTTP/2: no library would send them.
        row(Reason::MalformedRequest, "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", None),
        row(
            Reason::HeadTooLarge,
            &format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(200_000)),
            None,
        ),
        row(
            Reason::AmbiguousFraming,
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some(to("http://localhost/").header("content-length", "0").header("content-length", "0")),
        ),
        row(
            Reason::MalformedTarget,
            "GET /a#b HTTP/1.1\r\nHost: localhost\r\n\r\n",
            Some(to("ftp://localhost/")),
        ),
        row(
            Reason::MalformedHost,
            "GET / HTTP/1.1\r\n\r\n",
            Some(to("http://localhost/").header("host", "localhost:1")),
        ),
        row(
            Reason::ForeignHost,
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            Some(to("http://evil.example/")),
        ),
        row(
            Reason::RequiredHeaderMissing,
            "GET /fine HTTP/1.1\r\nHost: localhost\r\n\r\n",
            Some(to("http://localhost/fine")),
        ),
        row(
            Reason::MethodNotAllowed,
            "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            Some(to("http://localhost/").method("TRACE")),
        ),
        with(Reason::ForeignOrigin, none, "/fine", ("origin", "http://localhost")),
        with(Reason::PathRefused, none, "/fine/../x", ("x-fine", "1")),
        with(Reason::NoRoute, none, "/nothing", ("x-fine", "1")),
        with(Reason::CallerAuthorization, "reject", "/reject", ("authorization", "mine")),
        plain(Reason::TokenUnavailable, "tokenless"),
        plain(Reason::UpstreamUnresolved, "unresolved"),
        plain(Reason::UpstreamUnreachable, "unreachable"),
        plain(Reason::ProxyUnreachable, "proxy_unreachable"),
        plain(Reason::ProxyAuthentication, "proxy_authentication"),
        plain(Reason::ProxyRefused, "proxy_refused"),
        plain(Reason::ProxyInvalid, "proxy_invalid"),
        plain(Reason::UpstreamTls, "tls"),
        plain(Reason::UpstreamConnectTimeout, "silent"),
        plain(Reason::UpstreamTimeout, "late"),
        plain(Reason::UpstreamClosed, "closes"),
        plain(Reason::UpstreamInvalid, "invalid"),
        plain(Reason::UpstreamBusy, "busy"),
    ]
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where something else than TLS is spoken.
fn no_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 this is no TLS\r\n\r\n");
        }
    });
    url
}

/// An HTTP proxy that says this.
fn http_proxy(says: &'static str) -> FakeServer {
    FakeServer::start(move |_| Reply::raw(says).close())
}

#[test]
fn every_reason_is_counted_once_over_either_http() {
    let (provider, broken) = (provider(), FakeServer::start(|_| Reply::text(500, "")));
    let upstream = FakeServer::start(|request| match request.line().split(' ').nth(1) {
        Some("/late" | "/busy") => Reply::raw("").then(|reader, _| {
            let _ = std::io::copy(reader, &mut std::io::sink());
        }),
        Some("/closes") => Reply::nothing(),
        Some("/invalid") => Reply::raw("what?\r\n\r\n").close(),
        _ => Reply::text(200, "fine"),
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("https://{}", silent.local_addr().unwrap());
    let (gone, url) = (closed_port(), upstream.url());
    let proxies = [
        ("authentication", "HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n"),
        ("refused", "HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n"),
        ("invalid", "what?\r\n\r\n"),
    ]
    .map(|(name, says)| (name, http_proxy(says)));
    let mut settings = format!(
        "[proxy]\nrequired_header = \"x-caller\"\n{}{}",
        credential(&provider),
        credential(&broken)
            .replace(".main", ".nothing")
            .replace("client_auth", "token_wait = \"10ms\"\nclient_auth")
    );
    let mut route = |name: &str, upstream: &str, lines: &str| {
        let credential = if name == "tokenless" { "nothing" } else { "main" };
        settings.push_str(&format!(
            "[routes.{name}]\npath = \"/{name}\"\nupstream = \"{upstream}\"\ncredential = \"{credential}\"\n{lines}\n"
        ));
    };
    route("fine", &url, "");
    route("reject", &url, "caller_authorization = \"reject\"");
    route("tokenless", &url, "");
    route("unresolved", "https://nowhere.invalid", "");
    route("unreachable", &format!("http://127.0.0.1:{gone}"), "");
    for (name, proxy) in &proxies {
        route(
            &format!("proxy_{name}"),
            "https://nowhere.invalid",
            &format!("http_proxy = \"{}\"", proxy.url()),
        );
    }
    route(
        "proxy_unreachable",
        "https://nowhere.invalid",
        &format!("http_proxy = \"http://127.0.0.1:{gone}\""),
    );
    route("tls", &no_tls(), "");
    route("silent", &silent_url, "connect_timeout = \"50ms\"");
    route("late", &url, "response_timeout = \"50ms\"");
    route("closes", &url, "");
    route("invalid", &url, "");
    route("busy", &url, "max_connections = 1\nwait_timeout = \"10ms\"");
    route("tunnel", &url, "");
    let sidecar = Sidecar::run(&settings);
    // Takes the only connection that there may be.
    let mut first = Caller::connect(sidecar.proxy);
    first.send("GET /busy HTTP/1.1\r\nHost: localhost\r\nX-Caller: 1\r\n\r\n");
    upstream.wait_for(1);

    let counted = |reason: Reason, route: &str| {
        let word = reason.word();
        sidecar.metric(&format!("attache_own_answers_total{{reason=\"{word}\",route=\"{route}\"}}"))
    };
    let mut seen: HashSet<Reason> = ELSEWHERE.into();
    // A loop: attaché's own name comes back.
    let own = own_name(&upstream, &sidecar);
    let a_loop = with(Reason::LoopDetected, "(none)", "/fine", ("via", &own));
    for Row { reason, route, http_1, http_2 } in rows().into_iter().chain([a_loop]) {
        seen.insert(reason);
        let check = |count: f64, status: u16, word: Option<String>| {
            assert_eq!(status, reason.status().as_u16(), "{reason:?}: {word:?}");
            assert_eq!(word.as_deref(), Some(reason.word()));
            let counted = counted(reason, route);
            assert!((counted - count).abs() < f64::EPSILON, "{reason:?}: {counted} and not {count}");
        };
        let mut count = 0.0;
        if let Some(request) = http_1 {
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send(request);
            let answer = caller.answer();
            count += 1.0;
            check(count, answer.status, answer.reason());
        }
        if let Some(request) = http_2 {
            let answer = Http2Caller::connect(sidecar.proxy).ask(request, None);
            check(count + 1.0, answer.status, answer.reason());
        }
    }
    drop(first);

    // Only a caller of HTTP/2 would take an ordinary answer for a tunnel.
    let mut request = connect_request("http://localhost/tunnel", "websocket");
    request.headers_mut().insert("x-caller", "1".parse().unwrap());
    let told = Chat::ask_http_2(Http2Caller::connect(sidecar.proxy), request);
    assert_eq!(told.reason.as_deref(), Some("upgrade_failed"));
    assert!((counted(Reason::UpgradeFailed, "tunnel") - 1.0).abs() < f64::EPSILON);
    seen.insert(Reason::UpgradeFailed);

    // A body that ends before its end. Over HTTP/2 that is a reset, and whoever resets a stream is answered nothing;
    // `http2_malformed` has bodies that are longer than they say.
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("POST /fine HTTP/1.1\r\nHost: localhost\r\nX-Caller: 1\r\nContent-Length: 5\r\n\r\nab");
    caller.finish();
    assert_eq!(caller.answer().reason().as_deref(), Some("caller_aborted"));
    assert!((counted(Reason::CallerAborted, "fine") - 1.0).abs() < f64::EPSILON);
    seen.insert(Reason::CallerAborted);

    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What attaché calls itself.
fn own_name(upstream: &FakeServer, sidecar: &Sidecar) -> String {
    let before = upstream.received().len();
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET /fine HTTP/1.1\r\nHost: localhost\r\nX-Caller: 1\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
    upstream.wait_for(before + 1)[before].fields("via")[0].to_owned()
}
