//! F6: whatever a provider answers, with a token held and without.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::with;
use crate::support::{Authority, FakeServer, Files, Reply, Sidecar, TlsServer, credential, echo, get, token};

/// The faults, and the word that is told about each.
fn faults() -> Vec<(&'static str, Reply)> {
    let raw = |text: &str| Reply::raw(text).close();
    let json = |body: &str| Reply::json(200, body);
    vec![
        ("status", Reply::text(500, "")),
        ("status", Reply::text(502, "<html>")),
        ("oauth_error", Reply::json(503, "{\"error\":\"temporarily_unavailable\"}")),
        ("broken_answer", Reply::nothing()),
        ("broken_answer", raw("\u{15}\u{3}\u{1}garbage\r\n\r\n")),
        ("broken_answer", raw("HTTP/1.1 200 X\r\nContent-Length: 500\r\n\r\n{\"access_token\":\"stolen\"")),
        ("malformed_answer", Reply::text(200, "")),
        ("malformed_answer", Reply::text(200, "<html>sign in</html>")),
        ("malformed_answer", json("{\"access_token\":\"cut")),
        ("malformed_answer", json("{}")),
        ("oauth_error", json("{\"error\":\"invalid_client\"}")),
        ("malformed_answer", raw("HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")),
        ("malformed_answer", json("[]")),
        ("malformed_answer", json("{\"access_token\":7,\"token_type\":\"Bearer\"}")),
        ("malformed_answer", json("{\"access_token\":\"a\\r\\nX: y\",\"token_type\":\"Bearer\"}")),
        ("malformed_answer", json("{\"access_token\":\"t\",\"token_type\":\"mac\"}")),
        ("malformed_answer", json("{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":0}")),
        ("answer_too_large", Reply::raw("HTTP/1.1 200 X\r\nContent-Length: 1073741824\r\n\r\n").endless()),
        ("answer_too_large", Reply::raw("HTTP/1.1 200 X\r\nConnection: close\r\n\r\n").endless()),
    ]
}

/// A provider that shows the fault while it is broken.
fn provider(fault: Reply, broken: &Arc<AtomicBool>) -> FakeServer {
    let broken = Arc::clone(broken);
    FakeServer::start(move |request| match broken.load(Ordering::Acquire) {
        true => fault.clone(),
        false => token(request.number, 3600),
    })
}

#[test]
fn f6_without_a_token_each_fault_is_retried_callers_get_503_and_it_heals() {
    let upstream = echo();
    let rows: Vec<_> = faults()
        .into_iter()
        .map(|(word, fault)| {
            let broken = Arc::new(AtomicBool::new(true));
            let provider = provider(fault.clone(), &broken);
            let sidecar = Sidecar::to(&upstream.url(), &provider, "");
            (word, fault, broken, provider, sidecar)
        })
        .collect();
    for (word, fault, broken, provider, sidecar) in &rows {
        provider.wait_for(2);
        let answer = get(sidecar.proxy, "/");
        assert_eq!(
            (answer.status, answer.reason().as_deref()),
            (503, Some("token_unavailable")),
            "{fault:?}"
        );
        let status = sidecar.status();
        assert_eq!(status["last_error"]["reason"], *word, "{fault:?}");
        assert_eq!(status["state"], "waiting", "{fault:?}");
        broken.store(false, Ordering::Release);
    }
    assert!(upstream.received().is_empty());
    for (_, fault, _, provider, sidecar) in &rows {
        sidecar.ready();
        assert_eq!(get(sidecar.proxy, "/").status, 200, "{fault:?}");
        // What the kernel holds for the two ends of a connection, and never much of a GiB.
        let most = 32 * 1024 * 1024 * provider.received().len();
        assert!(provider.endless_written() < most, "{}", provider.endless_written());
        assert!(provider.received().len() < 8, "{fault:?}");
    }
}

#[test]
fn f6_with_a_token_no_request_notices_any_fault() {
    let upstream = FakeServer::start(|request| match request.line() {
        "GET /revoked HTTP/1.1" => Reply::text(401, ""),
        _ => Reply::text(200, request.fields("authorization")[0]),
    });
    let rows: Vec<_> = faults()
        .into_iter()
        .map(|(word, fault)| {
            let broken = Arc::new(AtomicBool::new(false));
            let provider = provider(fault.clone(), &broken);
            let sidecar = Sidecar::to(&upstream.url(), &provider, "");
            (word, fault, broken, provider, sidecar)
        })
        .collect();
    for (word, fault, broken, provider, sidecar) in &rows {
        sidecar.ready();
        broken.store(true, Ordering::Release);
        // A 401 is what makes it ask long before the token ends.
        assert_eq!(get(sidecar.proxy, "/revoked").status, 401, "{fault:?}");
        provider.wait_for(2);
        for _ in 0..10 {
            let answer = get(sidecar.proxy, "/");
            assert_eq!((answer.status, answer.text().as_str()), (200, "Bearer token-1"), "{fault:?}");
        }
        let status = sidecar.status();
        assert_eq!((&status["state"], &status["last_error"]["reason"]), (&"failing".into(), &(*word).into()));
        broken.store(false, Ordering::Release);
    }
    for (_, fault, _, provider, sidecar) in &rows {
        while sidecar.status()["state"] != "fresh" {
            thread::yield_now();
        }
        let newest = format!("Bearer token-{}", provider.received().len());
        assert_eq!(get(sidecar.proxy, "/").text(), newest, "{fault:?}");
    }
}

#[test]
fn f6_a_redirect_to_another_host_is_never_followed() {
    let thief = FakeServer::start(|request| token(request.number, 3600));
    for code in [301, 302, 303, 307, 308] {
        let location = format!("{}/token", thief.url());
        let provider = FakeServer::start(move |_| {
            Reply::raw(format!("HTTP/1.1 {code} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
        });
        let upstream = echo();
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        while sidecar.status()["last_error"].is_null() {
            thread::yield_now();
        }
        assert_eq!(sidecar.status()["last_error"]["reason"], "redirected");
    }
    assert_eq!(thief.connections(), 0);
}

/// Speaks no TLS to those who do.
fn without_tls() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    address
}

#[test]
fn f6_an_endpoint_whose_tls_is_garbage_is_retried_and_looked_for_again() {
    let (garbage, broken) = (without_tls(), Arc::new(AtomicBool::new(true)));
    let state = Arc::clone(&broken);
    let provider = FakeServer::start(move |request| {
        let own = format!("http://{}", request.fields("host")[0]);
        match request.line().starts_with("GET ") {
            false => token(1, 3600),
            true => {
                let base =
                    if state.load(Ordering::Acquire) { format!("https://{garbage}") } else { own.clone() };
                let metadata = format!("{{\"issuer\":\"{own}\",\"token_endpoint\":\"{base}/token\"}}");
                Reply::json(200, &metadata)
            }
        }
    });
    let upstream = echo();
    let issuer = provider.url();
    let lines = format!("issuer = \"{issuer}\"\nclient_id = \"c\"\nclient_auth = \"none\"");
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    provider.wait_for(2);
    assert_eq!(sidecar.status()["last_error"]["reason"], "tls");
    assert_eq!(get(sidecar.proxy, "/").status, 503);
    broken.store(false, Ordering::Release);
    sidecar.ready();
    assert_eq!(get(sidecar.proxy, "/").status, 200);
}

#[test]
fn f17_a_clock_five_minutes_off_changes_nothing_and_is_shown() {
    let provider = FakeServer::start(|_| {
        let ahead = std::time::SystemTime::now() + std::time::Duration::from_secs(300);
        let body = "{\"access_token\":\"t\",\"expires_in\":3600}";
        Reply::raw(format!(
            "HTTP/1.1 200 X\r\nDate: {}\r\nContent-Length: {}\r\n\r\n{body}",
            httpdate::fmt_http_date(ahead),
            body.len()
        ))
    });
    let upstream = echo();
    let sidecar = Sidecar::run(&format!(
        "{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    ));
    sidecar.ready();
    let skew = sidecar.metric("attache_provider_clock_skew_seconds{credential=\"main\"}");
    assert!((297.0..=301.0).contains(&skew), "{skew}");
    let left = sidecar.status()["expires_in_seconds"].as_u64().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    assert_eq!(provider.received().len(), 1);
}

#[test]
fn f24_another_authority_of_the_provider_is_believed_once_it_is_on_disk() {
    let (old, new) = (Authority::new("authority"), Authority::new("authority"));
    let provider = TlsServer::start(&new, false, |_, _| {
        (200, "{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":3600}".to_owned())
    });
    let (files, upstream) = (Files::new(), echo());
    let path = files.write("ca.pem", &old.pem);
    let lines = format!(
        "token_endpoint = \"{}/token\"\nclient_id = \"c\"\nclient_auth = \"none\"\nca_file = \"{}\"",
        provider.url(),
        path.display()
    );
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    while sidecar.status()["last_error"]["reason"] != "tls" {
        thread::yield_now();
    }
    files.write("ca.pem", &new.pem);
    sidecar.ready();
    assert!(get(sidecar.proxy, "/").text().contains("Bearer t"));
}
