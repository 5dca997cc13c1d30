//! What needs the network: `check --online` and `token`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    thread,
};

use tempfile::TempDir;

use super::{attache, reload::server, text};

/// Answers every request with these bytes and closes.
fn answering(bytes: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut some = [0; 4096];
            let _ = stream.read(&mut some).and_then(|_| stream.write_all(bytes.as_bytes()));
        }
    });
    address
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(provider: &str, upstream: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("attache.toml");
    let text = format!(
        "[credentials.orders]\ntype = \"client_credentials\"\n{provider}\nclient_id = \"a\"\nclient_auth = \"none\"\n\
         [routes.orders]\nupstream = \"{upstream}\"\ncredential = \"orders\"\n"
    );
    fs::write(&file, text).unwrap();
    (folder, file)
}

fn run(arguments: &[&str], file: &std::path::Path) -> (Option<i32>, String, String) {
    let output = attache(arguments).arg("--config").arg(file).output().unwrap();
    let (out, message) = text(&output);
    (output.status.code(), out, message)
}

#[test]
fn a_walk_over_what_works_says_ok_and_shows_no_token() {
    let (idp, upstream) = (server("hunter2"), server("upstream"));
    let provider = format!("token_endpoint = \"http://{}/t\"", idp.address);
    let (_folder, file) = config(&provider, &format!("http://{}", upstream.address));
    let (code, out, message) = run(&["check", "--online"], &file);
    assert_eq!(code, Some(0), "{message}");
    let upstream = format!("upstream {}: ok", upstream.address);
    assert!(out.contains("credential orders: ok, a token for 3") && out.contains(&upstream), "{out}");
    assert!(!out.contains("hunter2") && !message.contains("hunter2"));
}

#[test]
fn a_walk_names_the_step_that_failed_and_the_cure() {
    let refusing = answering(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 26\r\nconnection: close\r\n\r\n\
         {\"error\":\"invalid_client\"}\n",
    );
    let not_there = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let garbage = answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n<html");
    for (provider, parts) in [
        (format!("token_endpoint = \"http://{refusing}/t\""), ["invalid_client", "client_auth"]),
        (format!("token_endpoint = \"http://{not_there}/t\""), ["status 404", "token_endpoint"]),
        (format!("issuer = \"http://{not_there}\""), ["metadata", "exactly"]),
        (format!("token_endpoint = \"http://{garbage}/t\""), ["not a token", "token endpoint"]),
        (format!("token_endpoint = \"http://{}/t\"", nobody()), ["cannot be reached", "firewall"]),
        (format!("token_endpoint = \"https://{garbage}/t\""), ["TLS", "ca_file"]),
    ] {
        let (_folder, file) = config(&provider, &format!("http://{}", nobody()));
        let (code, out, message) = run(&["check", "--online"], &file);
        assert_eq!(code, Some(1), "{out}{message}");
        assert!(out.contains("credential orders: failed") && out.contains("hint: "), "{out}");
        assert!(parts.iter().all(|part| out.contains(part)), "{parts:?}: {out}");
        assert!(
            out.contains("failed (upstream_unreachable)") && message.contains("2 of these failed"),
            "{out}{message}"
        );
        let (code, out, message) = run(&["token", "orders"], &file);
        assert!(code == Some(1) && out.is_empty() && message.contains(parts[0]), "{message}");
    }
}

#[test]
fn an_upstream_without_tls_behind_an_https_url_is_told() {
    let idp = server("idp");
    let upstream = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let (_folder, file) =
        config(&format!("token_endpoint = \"http://{}/t\"", idp.address), &format!("https://{upstream}"));
    let (code, out, _) = run(&["check", "--online"], &file);
    assert!(code == Some(1) && out.contains("failed (upstream_tls)") && out.contains("tls.ca_file"), "{out}");
}

#[test]
fn a_token_is_printed_alone_and_an_unknown_name_is_told() {
    let idp = server("idp");
    let (_folder, file) =
        config(&format!("token_endpoint = \"http://{}/t\"", idp.address), "http://localhost:1");
    assert_eq!(run(&["token", "orders"], &file), (Some(0), "idp-1\n".to_owned(), String::new()));
    let (code, out, message) = run(&["token", "order"], &file);
    assert!(code == Some(1) && out.is_empty() && message.contains("there are: orders"), "{message}");
}
