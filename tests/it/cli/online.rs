//! What needs the network: `check --online` and `token`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    thread,
};

use tempfile::TempDir;

use super::{attache, reload::server, text as text_of};
use crate::support::{FakeServer, Reply, Rotation};

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
    let (out, message) = text_of(&output);
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
        (format!("token_endpoint = \"http://{}/t\"", nobody()), ["firewall", "nothing accepts a connection"]),
        (format!("token_endpoint = \"https://{garbage}/t\""), ["TLS", "does not speak TLS"]),
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

/// A provider with all endpoints, whose metadata lists these methods and whose endpoints answer so.
fn provider(listed: &'static str, token: (u16, &'static str), about: (u16, &'static str)) -> FakeServer {
    FakeServer::start(move |request| {
        let own = format!("http://{}", request.fields("host")[0]);
        match request.line().split(' ').nth(1).unwrap() {
            "/token" => Reply::json(token.0, token.1),
            "/userinfo" | "/introspect" => Reply::json(about.0, about.1),
            _ => Reply::json(
                200,
                &format!(
                    "{{\"issuer\":\"{own}\",\"token_endpoint\":\"{own}/token\",\
                     \"userinfo_endpoint\":\"{own}/userinfo\",\"introspection_endpoint\":\"{own}/introspect\",\
                     \"token_endpoint_auth_methods_supported\":[\"{listed}\"]}}"
                ),
            ),
        }
    })
}

const GRANTED: (u16, &str) = (200, "{\"access_token\":\"hunter2\",\"expires_in\":60,\"scope\":\"a openid\"}");

#[test]
fn a_walk_tells_each_step_and_names_the_one_that_failed() {
    let upstream = server("upstream");
    let upstream = format!("http://{}", upstream.address);
    let secret = "client_secret = { env = \"SECRET\" }\nscope = \"a b\"";
    for (listed, token, lines) in [
        (
            "private_key_jwt",
            (401, "{\"error\":\"invalid_client\"}"),
            &[
                "credential orders: failed at client authentication",
                "ok      discovery: token endpoint at http://127.0.0.1:",
                "failed  client authentication: invalid_client with client_secret_basic; the provider's metadata lists \
                 only private_key_jwt\n    hint: set `client_auth`",
            ][..],
        ),
        (
            "client_secret_basic",
            GRANTED,
            &[
                "credential orders: failed at granted scope (narrowed_scope)",
                "ok      dns: 127.0.0.1 is 127.0.0.1\n  ok      tcp: connected to 127.0.0.1:",
                "ok      client authentication: client_secret_basic\n  ok      grant: a token for 60 s",
                "failed  granted scope: the provider did not grant `b`",
            ],
        ),
    ] {
        let provider = provider(listed, token, (404, ""));
        let (_folder, file) = config(&format!("issuer = \"{}\"\n{secret}", provider.url()), &upstream);
        let text = fs::read_to_string(&file).unwrap().replace("client_auth = \"none\"\n", "");
        fs::write(&file, text).unwrap();
        let arguments = ["check", "--online", "--config", file.to_str().unwrap()];
        let output = attache(&arguments).env("SECRET", "hunter2").output().unwrap();
        let (out, message) = text_of(&output);
        assert_eq!(output.status.code(), Some(1), "{out}{message}");
        assert!(lines.iter().all(|line| out.contains(line)), "{out}");
        assert!(!out.contains("hunter2") && !message.contains("hunter2"));
    }
}

#[test]
fn a_walk_to_github_begins_with_the_connection() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let (refusing, upstream) = (FakeServer::start(|_| Reply::text(404, "")), server("upstream"));
    for (api, lines) in [
        (refusing.url(), "  ok      tcp: connected to 127.0.0.1:"),
        (refusing.url(), "  failed  token: there is no token for the installation"),
        (format!("http://{}", nobody()), "  failed  tcp: nothing accepts a connection at 127.0.0.1:"),
    ] {
        let (folder, file) = config("token_endpoint = \"http://localhost:1/t\"", "http://localhost:1");
        let pem = folder.path().join("app.pem");
        fs::write(&pem, key.serialize_pem()).unwrap();
        fs::set_permissions(&pem, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            "[credentials.github]\ntype = \"github_app\"\nclient_id = \"a\"\ninstallation_id = 1\napi_url = \"{api}\"\n\
             app_key = {{ file = \"{}\" }}\n[routes.a]\nupstream = \"http://{}\"\ncredential = \"github\"\n",
            pem.display(),
            upstream.address
        );
        fs::write(&file, text).unwrap();
        let (code, out, message) = run(&["check", "--online"], &file);
        assert!(code == Some(1) && out.contains(lines), "{out}{message}");
    }
}

#[test]
fn whoami_asks_userinfo_then_introspection_then_the_token_itself() {
    // {"sub":"me"}, signed by nobody.
    let jwt: (u16, &str) = (200, "{\"access_token\":\"e30.eyJzdWIiOiJtZSJ9.x\",\"expires_in\":60}");
    let about = (200, "{\"active\":true,\"sub\":\"me\",\"token\":\"hunter2\"}");
    for (scope, token, about, says, verified) in [
        ("a openid", GRANTED, about, "the provider's userinfo endpoint", true),
        ("a", GRANTED, about, "the provider's introspection endpoint", true),
        ("a", jwt, (403, ""), "the token's own claims, not verified", false),
    ] {
        let provider = provider("none", token, about);
        let (_folder, file) =
            config(&format!("issuer = \"{}\"\nscope = \"{scope}\"", provider.url()), "http://localhost:1");
        let (code, out, message) = run(&["whoami", "orders"], &file);
        assert_eq!(code, Some(0), "{message}");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&told["according_to"], &told["verified"]), (&says.into(), &verified.into()), "{message}");
        assert_eq!(told["identity"]["sub"], "me");
        assert!(!out.contains("hunter2") && message.is_empty() == verified, "{out}{message}");
        let asked = provider.received();
        let last = asked.last().unwrap();
        match scope {
            "a openid" => assert_eq!(last.fields("authorization"), ["Bearer hunter2"]),
            _ => assert!(last.line().starts_with("POST /introspect ")),
        }
    }
    let opaque = provider("none", GRANTED, (404, ""));
    let (_folder, file) = config(&format!("issuer = \"{}\"", opaque.url()), "http://localhost:1");
    let (code, out, message) = run(&["whoami", "orders"], &file);
    assert!(code == Some(1) && out.is_empty() && message.contains("opaque"), "{out}{message}");
    let inactive = provider("none", GRANTED, (200, "{\"active\":false}"));
    let (_folder, file) = config(&format!("issuer = \"{}\"", inactive.url()), "http://localhost:1");
    let (code, _, message) = run(&["whoami", "orders"], &file);
    assert!(code == Some(1) && message.contains("not active"), "{message}");
}

#[test]
fn whoami_of_a_password_is_the_user_who_signed_in() {
    let provider = provider("none", GRANTED, (200, "{\"sub\":\"robot\"}"));
    let (folder, file) = config(&format!("issuer = \"{}\"", provider.url()), "http://localhost:1");
    let password = folder.path().join("password");
    fs::write(&password, "secret").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let signed_in = format!(
        "type = \"password\"\nscope = \"openid\"\nusername = \"robot\"\npassword = {{ file = \"{}\" }}",
        password.display()
    );
    let text = fs::read_to_string(&file).unwrap().replace("type = \"client_credentials\"", &signed_in);
    fs::write(&file, text).unwrap();
    let (code, out, message) = run(&["whoami", "orders"], &file);
    assert!(
        code == Some(0) && out.contains("\"sub\": \"robot\"") && out.contains("userinfo"),
        "{out}{message}"
    );
}

#[test]
fn the_proxy_variables_of_the_environment_are_ignored() {
    let (idp, proxy) = (server("idp"), FakeServer::start(|_| Reply::text(502, "")));
    let (_folder, file) =
        config(&format!("token_endpoint = \"http://{}/t\"", idp.address), "http://localhost:1");
    let mut command = attache(&["token", "orders", "--config", file.to_str().unwrap()]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env(name, proxy.url());
    }
    assert_eq!(text_of(&command.output().unwrap()).0, "idp-1\n");
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn a_proxy_that_does_not_lead_to_the_upstream_is_told_with_the_cure() {
    let idp = server("idp");
    let wants_a_name = answering("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
    let forbids = answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    let no_proxy = answering("220 mail.example ESMTP\r\n\r\n");
    for (proxy, reason, cure) in [
        (nobody(), "proxy_unreachable", "check `http_proxy`"),
        (wants_a_name, "proxy_authentication", "http_proxy_auth"),
        (forbids, "proxy_refused", "rules"),
        (no_proxy, "proxy_invalid", "port of `http_proxy`"),
    ] {
        let upstream = format!("https://a.example\"\nhttp_proxy = \"http://{proxy}");
        let (_folder, file) = config(&format!("token_endpoint = \"http://{}/t\"", idp.address), &upstream);
        let (code, out, _) = run(&["check", "--online"], &file);
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains(&format!("failed ({reason})")) && out.contains(cure), "{out}");
    }
}

#[test]
fn no_refresh_token_is_spent_as_long_as_the_next_one_cannot_be_kept() {
    let (rotation, upstream) = (Rotation::new("first"), server("upstream"));
    let provider = rotation.serve();
    let (folder, file) = config("", "");
    let place = |name: &str| folder.path().join(name);
    fs::write(place("initial"), "first").unwrap();
    fs::set_permissions(place("initial"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "[credentials.orders]\ntype = \"refresh_token\"\ntoken_endpoint = \"{}/token\"\nclient_id = \"a\"\n\
         client_auth = \"none\"\nrefresh_token = {{ file = \"{}\" }}\nstore = \"{}\"\n\
         [routes.orders]\nupstream = \"http://{}\"\ncredential = \"orders\"\n",
        provider.url(),
        place("initial").display(),
        place("store").display(),
        upstream.address
    );
    fs::write(&file, text).unwrap();
    // Where the next version would be written there is a folder: not even root can write there.
    fs::create_dir(place("store.new")).unwrap();
    for arguments in [&["check", "--online"][..], &["token", "orders"], &["whoami", "orders"]] {
        let (code, out, message) = run(arguments, &file);
        assert_eq!(code, Some(1), "{out}{message}");
        let told = if arguments.len() == 2 && arguments[0] == "check" { &out } else { &message };
        assert!(told.contains("cannot be written") && told.contains("make room"), "{out}{message}");
    }
    assert!(rotation.presented().is_empty() && !place("store").exists());
    fs::remove_dir(place("store.new")).unwrap();
    assert_eq!(run(&["token", "orders"], &file).1, "token-2\n");
    let (code, out, _) = run(&["check", "--online"], &file);
    assert!(code == Some(0) && out.contains("credential orders: ok"), "{out}");
    assert_eq!(rotation.presented(), ["first", "refresh-2"]);
}
