//! TLS towards an upstream: an authority of its own, a client certificate, a server name, all of which may be replaced.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::support::{Answer, Authority, Caller, Files, PATIENCE, Sidecar, TlsUpstream, get, mark, provider};

/// The fields of what a [`TlsUpstream`] tells: the number of the connection, the name, the certificate.
fn told(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().split(' ').map(str::to_owned).collect()
}

/// Asks until the answer is what is waited for; the one that was.
fn ask_until(proxy: SocketAddr, holds: impl Fn(&Answer) -> bool) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = get(proxy, "/");
        if holds(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", answer.text());
        std::thread::yield_now();
    }
}

#[test]
fn a_client_certificate_is_shown_and_a_changed_one_follows_without_a_failed_request() {
    let (servers, clients, files, provider) =
        (Authority::new("an authority"), Authority::new("an authority"), Files::new(), provider());
    let issue = || {
        let (certificate, key) = clients.issue("checkout");
        // Certificate first: for a moment the two do not belong together.
        files.write("client.pem", &certificate);
        (mark(&certificate), key)
    };
    let upstream = TlsUpstream::start(&servers, "localhost", Some(&clients));
    let (first, key) = issue();
    files.write("client.key", &key);
    files.write("ca.pem", &servers.pem);
    let folder = files.path("");
    let folder = folder.display();
    let tls = format!(
        "[routes.main.tls]\nca_file = \"{folder}ca.pem\"\ncertificate = \"{folder}client.pem\"\n\
         private_key = {{ file = \"{folder}client.key\" }}"
    );
    let sidecar = Sidecar::to(&upstream.url(), &provider, &tls);
    let mut caller = Caller::connect(sidecar.proxy);
    let mut ask = || {
        caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        told(&caller.answer())
    };
    let (before, again) = (ask(), ask());
    assert_eq!(before, ["1", "localhost", first.as_str()]);
    assert_eq!(again, before, "the connection is kept");

    let (second, key) = issue();
    let outcome = |outcome: &str| {
        let upstream = upstream.url().replace("https://", "");
        format!("attache_upstream_tls_reloads_total{{outcome=\"{outcome}\",upstream=\"{upstream}\"}}")
    };
    let begun = Instant::now();
    while sidecar.metric(&outcome("rejected")) < 1.0 {
        assert_eq!(ask()[2], first, "a certificate without its key changes nothing");
        assert!(begun.elapsed() < PATIENCE);
    }
    files.write("client.key", &key);
    let begun = Instant::now();
    while ask()[2] != second {
        assert!(begun.elapsed() < PATIENCE, "the new certificate is not used");
    }
    assert!((sidecar.metric(&outcome("replaced")) - 1.0).abs() < f64::EPSILON);
    assert_ne!(ask()[0], before[0], "the old connection is not used any more");
    let upstream = upstream.url().replace("https://", "");
    let ends =
        format!("attache_upstream_client_certificate_end_timestamp_seconds{{upstream=\"{upstream}\"}}");
    let begun = Instant::now();
    while sidecar.metric(&ends) < 1.0 {
        assert!(begun.elapsed() < PATIENCE, "the end of the certificate is not told");
    }
}

#[test]
fn f24_another_authority_is_believed_once_it_is_on_disk() {
    let (old, new, files, provider) =
        (Authority::new("an authority"), Authority::new("an authority"), Files::new(), provider());
    let upstream = TlsUpstream::start(&old, "localhost", None);
    let path = files.write("ca.pem", &old.pem);
    let tls = format!("[routes.main.tls]\nca_file = \"{}\"", path.display());
    let sidecar = Sidecar::to(&upstream.url(), &provider, &tls);
    told(&get(sidecar.proxy, "/"));
    upstream.renew(&new, "localhost");
    files.write("ca.pem", &new.pem);
    let refused = |answer: &Answer| answer.reason().as_deref() == Some("upstream_tls");
    // Kept connections are closed with the old authority, and those that are made in between fail.
    ask_until(sidecar.proxy, |answer| !refused(answer) && told(answer)[0] != "1");
    // The old one is not believed any more: a request for an upgrade gets a new connection.
    upstream.renew(&old, "localhost");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(refused(&caller.answer()));
}

#[test]
fn a_server_name_of_its_own_is_asked_for_and_verified() {
    let (authority, files, provider) = (Authority::new("an authority"), Files::new(), provider());
    let upstream = TlsUpstream::start(&authority, "orders.test", None);
    let path = files.write("ca.pem", &authority.pem);
    let tls = |more: &str| format!("[routes.main.tls]\nca_file = \"{}\"\n{more}", path.display());
    let own = Sidecar::to(&upstream.url(), &provider, &tls("server_name = \"orders.test\""));
    assert_eq!(told(&get(own.proxy, "/"))[1], "orders.test");
    let none = Sidecar::to(&upstream.url(), &provider, &tls(""));
    assert_eq!(get(none.proxy, "/").reason().as_deref(), Some("upstream_tls"));
}

#[test]
fn without_the_certificate_that_an_upstream_asks_for_the_answer_is_a_502() {
    let (authority, files, provider) = (Authority::new("an authority"), Files::new(), provider());
    let upstream = TlsUpstream::start(&authority, "localhost", Some(&authority));
    let path = files.write("ca.pem", &authority.pem);
    let tls = format!("[routes.main.tls]\nca_file = \"{}\"", path.display());
    let sidecar = Sidecar::to(&upstream.url(), &provider, &tls);
    // With TLS 1.3 the refusal comes after the handshake, in place of an answer.
    let reason = get(sidecar.proxy, "/").reason();
    assert!(matches!(reason.as_deref(), Some("upstream_tls" | "upstream_closed")), "{reason:?}");
}
