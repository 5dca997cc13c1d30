//! What a running sidecar writes: one line a token, none a request, and never a query, a header or a body.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::attache;
use crate::support::{
    Authority, Caller, FakeServer, Files, Reply, credential, echo, frame, get, provider, token,
};

/// Runs the program with JSON lines; returns where it listens and its lines.
fn run(
    lines: &str,
    upstream: &FakeServer,
    provider: &FakeServer,
) -> (Child, SocketAddr, impl Iterator<Item = Value> + use<>) {
    run_with(lines, upstream, &credential(provider))
}

fn run_with(
    lines: &str,
    upstream: &FakeServer,
    credential: &str,
) -> (Child, SocketAddr, impl Iterator<Item = Value> + use<>) {
    run_filtered("info", lines, upstream, credential)
}

fn run_filtered(
    filter: &str,
    lines: &str,
    upstream: &FakeServer,
    credential: &str,
) -> (Child, SocketAddr, impl Iterator<Item = Value> + use<>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("attache.toml");
    let configuration = format!(
        "[log]\nformat = \"json\"\nfilter = \"{filter}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[proxy]\nlisten = \"127.0.0.1:0\"\n{lines}\n{credential}\
         [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        upstream.url()
    );
    fs::write(&file, configuration).unwrap();
    let mut command: Command = attache(&["run", "--config"]);
    let mut child = command.arg(&file).stderr(Stdio::piped()).spawn().unwrap();
    let reader = BufReader::new(child.stderr.take().unwrap());
    let mut lines = reader.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let listening = lines.find(|line| line.to_string().contains("listening")).unwrap();
    let text = listening.to_string();
    let proxy = text.split("\"proxy\":\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    // Read once, at the start.
    drop(folder);
    (child, proxy, lines)
}

fn request(proxy: SocketAddr) {
    let mut caller = Caller::connect(proxy);
    caller.send("POST /orders?q=marker HTTP/1.1\r\nHost: localhost\r\nX-Marker: marker\r\nContent-Length: 6\r\n\r\nmarker");
    assert_eq!(caller.answer().status, 200);
    caller.send("GET /orders HTTP/1.1\r\nHost: evil.marker\r\n\r\n");
    assert_eq!(caller.answer().status, 421);
}

fn rest(mut child: Child, lines: impl Iterator<Item = Value>) -> Vec<String> {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    lines
}

#[test]
fn one_line_a_token_and_none_a_request() {
    let (provider, upstream) = (provider(), echo());
    let (child, proxy, lines) = run("", &upstream, &provider);
    for _ in 0..10 {
        request(proxy);
    }
    let lines = rest(child, lines);
    assert_eq!(lines.iter().filter(|line| line.contains("token refreshed")).count(), 1, "{lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| !line.contains("orders") && !line.contains("marker") && !line.contains("token-1"))
    );
}

#[test]
fn a_method_of_client_authentication_that_the_provider_does_not_list_is_warned_of_once() {
    for (listed, warned) in [("private_key_jwt", true), ("none", false)] {
        let provider = FakeServer::start(move |request| match request.line().starts_with("GET ") {
            true => {
                let own = format!("http://{}", request.fields("host")[0]);
                let methods = format!("\"token_endpoint_auth_methods_supported\":[\"{listed}\",\"marker\"]");
                let endpoint = format!("\"token_endpoint\":\"{own}/token\"");
                Reply::json(200, &format!("{{\"issuer\":\"{own}\",{endpoint},{methods}}}"))
            }
            // Fails at first, so that there are several attempts.
            false if request.number < 4 => Reply::text(503, ""),
            false => token(1, 3600),
        });
        let credential = credential(&provider).replace("token_endpoint", "issuer").replace("/token\"", "\"");
        let upstream = echo();
        let (child, proxy, lines) = run_with("", &upstream, &credential);
        while get(proxy, "/").status != 200 {
            std::thread::yield_now();
        }
        let lines = rest(child, lines);
        let told: Vec<_> = lines.iter().filter(|line| line.contains("lists only private_key_jwt")).collect();
        assert_eq!(told.len(), usize::from(warned), "{lines:?}");
        assert!(told.iter().all(|line| line.contains("WARN") && line.contains("\"client_auth\":\"none\"")));
        assert!(lines.iter().all(|line| !line.contains("marker")));
    }
}

#[test]
fn what_is_refused_before_it_is_a_request_has_one_line_for_each_reason() {
    for (level, expected) in [("off", 0), ("errors", 3), ("all", 3)] {
        let (provider, upstream) = (provider(), echo());
        let switch = format!("access_log = \"{level}\"\nmax_connections = 1\nmax_header_bytes = 8192");
        let (child, proxy, lines) = run(&switch, &upstream, &provider);
        let large = format!("GET /marker HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(10_000));
        for (sent, reason) in [("marker\r\n\r\n", "malformed_request"), (&large, "head_too_large")].repeat(3)
        {
            // The place of the connection before may not be free yet.
            loop {
                let mut caller = Caller::connect(proxy);
                caller.send(sent);
                let answer = caller.answer();
                if answer.reason().as_deref() == Some(reason) {
                    break;
                }
                assert_eq!(answer.reason().as_deref(), Some("too_many_connections"));
            }
        }
        let _kept = loop {
            let mut caller = Caller::connect(proxy);
            caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            if caller.answer().status == 200 {
                break caller;
            }
        };
        for _ in 0..3 {
            let mut caller = Caller::connect(proxy);
            assert_eq!(caller.answer().reason().as_deref(), Some("too_many_connections"));
        }
        let lines = rest(child, lines);
        let refused: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("attache::access") && !line.contains("\"status\":200"))
            .collect();
        assert_eq!(refused.len(), expected, "{refused:?}");
        let reasons = [("malformed_request", 400), ("head_too_large", 431), ("too_many_connections", 503)];
        for (reason, status) in reasons.into_iter().take(expected) {
            let is_it = |line: &&&String| line.contains(reason) && line.contains(&status.to_string());
            assert_eq!(refused.iter().filter(is_it).count(), 1, "{reason}: {refused:?}");
        }
        assert!(lines.iter().all(|line| !line.contains("marker")), "{lines:?}");
    }
}

#[test]
fn the_access_log_tells_path_status_and_reason_and_nothing_else_of_a_request() {
    for (level, expected) in [("all", 2), ("errors", 1)] {
        let (provider, upstream) = (provider(), echo());
        let switch = format!("access_log = \"{level}\"");
        let (child, proxy, lines) = run(&switch, &upstream, &provider);
        request(proxy);
        let lines = rest(child, lines);
        let access: Vec<_> = lines.iter().filter(|line| line.contains("attache::access")).collect();
        assert_eq!(access.len(), expected, "{lines:?}");
        assert!(access.iter().any(|line| line.contains("foreign_host") && line.contains("421")));
        assert_eq!(
            access.iter().any(|line| line.contains("\"route\":\"main\"") && line.contains("200")),
            level == "all"
        );
        assert!(lines.iter().all(|line| !line.contains("marker") && !line.contains("token-1")), "{lines:?}");
    }
}

#[test]
fn why_an_upstream_fails_is_told_once_and_not_with_every_request() {
    let (provider, upstream) = (provider(), FakeServer::start(|_| Reply::nothing()));
    let (child, proxy, lines) = run("", &upstream, &provider);
    for _ in 0..5 {
        assert_eq!(get(proxy, "/").status, 502);
    }
    let lines = rest(child, lines);
    let told: Vec<_> = lines.iter().filter(|line| line.contains("upstream_closed")).collect();
    assert_eq!(told.len(), 1, "{lines:?}");
    assert!(told[0].contains("WARN") && told[0].contains("main"), "{told:?}");
}

#[test]
fn what_an_upstream_adds_to_a_goaway_is_not_told() {
    // RFC 9113 §6.8: it may be anything; here it is what the upstream was sent before.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!(
        "[routes.odd]\npath = \"/odd\"\nupstream = \"http://{}\"\nprotocol = \"h2c\"\ncredential = \"main\"\n",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let told = [&[0, 0, 0, 0, 0, 0, 0, 11][..], b"Bearer token-1"].concat();
            stream.write_all(&frame(7, 0, 0, &told)).unwrap();
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    });
    let (provider, upstream) = (provider(), echo());
    let (child, proxy, lines) = run(&route, &upstream, &provider);
    assert_eq!(get(proxy, "/odd").status, 502);
    let lines = rest(child, lines);
    let told: Vec<_> = lines.iter().filter(|line| line.contains("cannot connect to the upstream")).collect();
    assert_eq!(told.len(), 1, "{lines:?}");
    assert!(told[0].contains("does not speak HTTP/2") && !told[0].contains("token-1"), "{told:?}");
}

#[test]
fn the_filter_decides_what_is_logged() {
    for (filter, told) in [("info", true), ("info,attache::token=off", false)] {
        let (provider, upstream) = (provider(), echo());
        let (child, proxy, lines) = run_filtered(filter, "", &upstream, &credential(&provider));
        request(proxy);
        let lines = rest(child, lines);
        assert_eq!(lines.iter().any(|line| line.contains("token refreshed")), told, "{filter}: {lines:?}");
        assert!(lines.iter().any(|line| line.contains("draining")), "{lines:?}");
    }
}

#[test]
fn a_sample_of_the_good_requests_gets_a_line_and_every_error_does() {
    let (provider, upstream) = (provider(), echo());
    let switches = "access_log = \"all\"\naccess_log_sample = 0.0\naccess_log_query = true";
    let (child, proxy, lines) = run(switches, &upstream, &provider);
    for _ in 0..5 {
        assert_eq!(get(proxy, "/good").status, 200);
    }
    let mut caller = Caller::connect(proxy);
    caller.send("GET /orders?q=wanted HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(caller.answer().status, 421);
    let lines = rest(child, lines);
    let access: Vec<_> = lines.iter().filter(|line| line.contains("attache::access")).collect();
    assert_eq!(access.len(), 1, "{lines:?}");
    assert!(access[0].contains("\"query\":\"q=wanted\""), "{access:?}");
}

#[test]
fn logfmt_is_pairs_and_a_caller_cannot_add_one() {
    let (provider, upstream) = (provider(), echo());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("attache.toml");
    let configuration = format!(
        "[log]\nformat = \"logfmt\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[proxy]\nlisten = \"127.0.0.1:0\"\naccess_log = \"all\"\n{}\
         [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    );
    fs::write(&file, configuration).unwrap();
    let mut child = attache(&["run", "--config"]).arg(&file).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = lines.find(|line| line.contains("msg=listening")).unwrap();
    let proxy = listening.split("proxy=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(get(proxy, "/a=b&level=error").status, 200);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let access = lines.find(|line| line.contains("target=attache::access")).unwrap();
    assert!(
        access.starts_with("ts=") && access.contains(" level=info ") && access.contains(" status=200 "),
        "{access}"
    );
    assert!(access.contains(" method=GET path=\"/a=b&level=error\" route=main "), "{access}");
    assert!(lines.last().is_some(), "the end is told as well");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_client_certificate_that_ends_soon_is_told_once_towards_the_provider_and_towards_an_upstream() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (certificate, key) = authority.issue_with_left("checkout", Duration::from_secs(3 * 24 * 3600));
    let (certificate, key) = (files.write("client.pem", &certificate), files.write("client.key", &key));
    let (certificate, key) = (certificate.display(), key.display());
    // Nobody listens there any more: that the provider is down has nothing to do with it.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let credential = format!(
        "[credentials.main]\ntype = \"client_credentials\"\ntoken_endpoint = \"https://{nobody}/token\"\nclient_id = \"c\"\n\
         client_auth = \"tls_client_auth\"\nclient_certificate = \"{certificate}\"\n\
         client_private_key = {{ file = \"{key}\" }}\n"
    );
    let route = format!(
        "[routes.mutual]\npath = \"/mutual\"\nupstream = \"https://{nobody}\"\ncredential = \"main\"\n\
         [routes.mutual.tls]\ncertificate = \"{certificate}\"\nprivate_key = {{ file = \"{key}\" }}\n"
    );
    let upstream = echo();
    let (mut child, _, lines) = run_with(&route, &upstream, &credential);
    let told = lines.map(|line| line.to_string()).filter(|line| line.contains("ends soon"));
    let mut told: Vec<_> = told.take(2).collect();
    // That of the upstream is looked at every few seconds.
    told.sort_by_key(|line| line.contains("upstream"));
    assert!(
        told[0].contains("the client's certificate ends soon") && told[0].contains("\"main\""),
        "{told:?}"
    );
    assert!(
        told[1].contains("for this upstream ends soon") && told[1].contains(&nobody.to_string()),
        "{told:?}"
    );
    assert!(told.iter().all(|line| line.contains("WARN") && line.contains("\"left_s\":2591")), "{told:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
