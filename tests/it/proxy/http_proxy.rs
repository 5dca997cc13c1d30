//! An HTTP proxy on the way to an upstream: asked with CONNECT, told nothing else, and believed nothing else.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

use crate::support::{
    Answer, Authority, Caller, FakeServer, Files, Reply, Sidecar, TlsUpstream, get, provider,
};

/// A proxy that connects to whatever it is asked for.
fn proxy(interim: &'static str) -> FakeServer {
    FakeServer::start(move |request| {
        let authority = request.line().split(' ').nth(1).unwrap().to_owned();
        Reply::raw(format!("{interim}HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")).then(
            move |reader, writer| {
                let upstream = TcpStream::connect(&authority).unwrap();
                let (mut answers, mut back) = (upstream.try_clone().unwrap(), writer.try_clone().unwrap());
                thread::spawn(move || {
                    // Whoever leaves first ends both directions.
                    let _ = io::copy(&mut answers, &mut back);
                    let _ = back.shutdown(Shutdown::Both);
                });
                let _ = io::copy(reader, &mut &upstream);
                let _ = upstream.shutdown(Shutdown::Both);
            },
        )
    })
}

struct Setup {
    provider: FakeServer,
    upstream: TlsUpstream,
    files: Files,
}

impl Setup {
    fn new() -> Self {
        let (authority, files) = (Authority::new("an authority"), Files::new());
        let upstream = TlsUpstream::start(&authority, "localhost", None);
        files.write("ca.pem", &authority.pem);
        Self { provider: provider(), upstream, files }
    }

    fn sidecar(&self, proxy: &str, more: &str) -> Sidecar {
        let tls = format!("[routes.main.tls]\nca_file = \"{}\"", self.files.path("ca.pem").display());
        let lines = format!("http_proxy = \"{proxy}\"\nconnect_timeout = \"1s\"\n{more}\n{tls}");
        Sidecar::to(&self.upstream.url(), &self.provider, &lines)
    }

    fn authority(&self) -> String {
        self.upstream.url().replace("https://", "")
    }
}

/// A request that gets a connection of its own.
fn alone(sidecar: &Sidecar) -> Answer {
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    caller.answer()
}

#[test]
fn a_request_goes_through_the_proxy_which_sees_nothing_but_where_to() {
    let setup = Setup::new();
    for interim in ["", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"] {
        let proxy = proxy(interim);
        let sidecar = setup.sidecar(&proxy.url(), "");
        for _ in 0..3 {
            let answer = get(sidecar.proxy, "/secret-path");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().contains(" localhost "));
            assert_eq!(answer.field("via"), None, "what the proxy says is not passed on");
        }
        let asked = proxy.received();
        assert!(!asked.is_empty() && asked.len() <= 2, "connections are kept, one a worker");
        let head = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n", setup.authority());
        assert!(asked.iter().all(|request| request.head == head), "{asked:?}");
    }
}

#[test]
fn the_proxy_gets_the_name_and_the_password_as_it_is_now() {
    let (setup, proxy) = (Setup::new(), proxy(""));
    let file = setup.files.write("password", "one\n");
    let auth = format!(
        "[routes.main.http_proxy_auth]\nusername = \"checkout\"\npassword = {{ file = \"{}\" }}",
        file.display()
    );
    let sidecar = setup.sidecar(&proxy.url(), &auth);
    let sent = |number: usize| {
        assert_eq!(alone(&sidecar).status, 200);
        proxy.wait_for(number)[number - 1].fields("proxy-authorization").concat()
    };
    assert_eq!(sent(1), "Basic Y2hlY2tvdXQ6b25l");
    setup.files.write("password", "two\n");
    assert_eq!(sent(2), "Basic Y2hlY2tvdXQ6dHdv");
    setup.files.write("password", "");
    assert_eq!(sent(3), "Basic Y2hlY2tvdXQ6dHdv", "the last good one stays");
}

#[test]
fn whatever_a_proxy_answers_instead_is_a_reason_and_not_a_byte_of_it_reaches_the_caller() {
    let setup = Setup::new();
    let page = "Content-Type: text/html\r\nContent-Length: 13\r\n\r\nproxy-secret\n";
    for (answer, reason) in [
        (format!("HTTP/1.1 407 Proxy Authentication Required\r\n{page}"), "proxy_authentication"),
        (format!("HTTP/1.1 403 Forbidden\r\n{page}"), "proxy_refused"),
        (format!("HTTP/1.0 502 Bad Gateway\r\n{page}"), "proxy_refused"),
        (format!("HTTP/1.1 302 Found\r\nLocation: http://proxy-secret/\r\n{page}"), "proxy_refused"),
        (format!("HTTP/1.1 200 OK\r\n{page}"), "proxy_invalid"),
        ("SSH-2.0-proxy-secret\r\n\r\n".into(), "proxy_invalid"),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "proxy-secret".repeat(4000)), "proxy_invalid"),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(2000), "proxy_invalid"),
        ("HTTP/1.1 200 OK\r\nX: proxy-secret\r\n".into(), "proxy_unreachable"),
        (String::new(), "proxy_unreachable"),
    ] {
        let bytes = answer.clone();
        let proxy = FakeServer::start(move |_| Reply::raw(bytes.clone()).close());
        let sidecar = setup.sidecar(&proxy.url(), "");
        let refused = get(sidecar.proxy, "/");
        let shown = &answer[..answer.len().min(80)];
        assert_eq!((refused.status, refused.reason().as_deref()), (502, Some(reason)), "{shown:?}");
        assert!(
            !(refused.head + &String::from_utf8_lossy(&refused.body)).contains("proxy-secret"),
            "{shown:?}"
        );
        let counted = format!("attache_own_answers_total{{reason=\"{reason}\",route=\"main\"}}");
        assert!((sidecar.metric(&counted) - 1.0).abs() < f64::EPSILON);
    }
}

#[test]
fn a_proxy_that_is_not_there_or_says_nothing_is_told_apart() {
    let setup = Setup::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = setup.sidecar(&format!("http://{nobody}"), "");
    assert_eq!(get(sidecar.proxy, "/").reason().as_deref(), Some("proxy_unreachable"));
    let sidecar = setup.sidecar("http://proxy.invalid:3128", "");
    assert!(matches!(
        get(sidecar.proxy, "/").reason().as_deref(),
        Some("proxy_unreachable" | "upstream_connect_timeout")
    ));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = setup.sidecar(&format!("http://{}", silent.local_addr().unwrap()), "");
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.status, answer.reason().as_deref()), (504, Some("upstream_connect_timeout")));
}
