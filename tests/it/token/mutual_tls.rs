//! Clients that are known by their certificate (RFC 8705).

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::time::Instant;

use super::{form, verify, with};
use crate::cli::attache;
use crate::support::{Authority, PATIENCE, Seen, Sidecar, TlsServer, echo, get};

fn write(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

fn der(pem: &str) -> Option<Vec<u8>> {
    Some(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec())
}

/// A folder with the authority's certificate and a client's.
fn folder(authority: &Authority, client: &(String, String)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("ca.pem", &authority.pem), ("client.pem", &client.0), ("client.key", &client.1)] {
        write(&folder.path().join(name), text);
    }
    folder
}

fn lines(provider: &str, folder: &Path, method: &str) -> String {
    let folder = folder.display();
    format!(
        "{provider}\nclient_id = \"check out\"\nclient_auth = \"{method}\"\nca_file = \"{folder}/ca.pem\"\n\
         client_certificate = \"{folder}/client.pem\"\nclient_private_key = {{ file = \"{folder}/client.key\" }}"
    )
}

fn tokens(seen: &Seen, _: SocketAddr) -> (u16, String) {
    assert!(seen.line.starts_with("POST "));
    (200, "{\"access_token\":\"bound\",\"token_type\":\"Bearer\",\"expires_in\":3600}".to_owned())
}

#[test]
fn the_certificate_is_shown_at_the_alias_and_stands_for_the_secret() {
    for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
        let authority = Authority::new("authority");
        let client = authority.issue("checkout");
        let bound = TlsServer::start(&authority, true, tokens);
        let alias = format!("{}/token", bound.url());
        let issuer = TlsServer::start(&authority, false, move |seen, own| {
            assert!(seen.line.starts_with("GET "));
            let own = format!("https://localhost:{}", own.port());
            let aliases = format!("\"mtls_endpoint_aliases\":{{\"token_endpoint\":\"{alias}\"}}");
            (200, format!("{{\"issuer\":\"{own}\",\"token_endpoint\":\"{own}/token\",{aliases}}}"))
        });
        let folder = folder(&authority, &client);
        let upstream = echo();
        let provider = format!("issuer = \"{}\"", issuer.url());
        let sidecar = Sidecar::run(&with(&lines(&provider, folder.path(), method), &upstream));
        assert!(get(sidecar.proxy, "/").text().contains("Bearer bound"));
        let seen = bound.wait_for(1).remove(0);
        assert_eq!((seen.certificate, seen.authorization), (der(&client.0), None));
        let fields = [("grant_type", "client_credentials"), ("client_id", "check out")];
        assert_eq!(form(&seen.body), fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

#[test]
fn a_new_certificate_is_shown_within_ten_seconds_for_a_new_token() {
    let authority = Authority::new("authority");
    let (old, new) = (authority.issue("old"), authority.issue("new"));
    let provider = TlsServer::start(&authority, true, tokens);
    let (folder, upstream) = (folder(&authority, &old), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    let sidecar = Sidecar::run(&with(&lines(&endpoint, folder.path(), "tls_client_auth"), &upstream));
    sidecar.ready();
    let begun = Instant::now();
    write(&folder.path().join("client.pem"), &new.0);
    write(&folder.path().join("client.key"), &new.1);
    let seen = provider.wait_for(2);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let shown: Vec<_> = seen.into_iter().map(|seen| seen.certificate).collect();
    assert_eq!(shown, [der(&old.0), der(&new.0)]);
    assert_eq!(get(sidecar.proxy, "/").status, 200);
}

#[test]
fn a_new_certificate_is_shown_even_while_the_authority_cannot_be_read() {
    let authority = Authority::new("authority");
    let (old, new) = (authority.issue("old"), authority.issue("new"));
    let provider = TlsServer::start(&authority, true, tokens);
    let (folder, upstream) = (folder(&authority, &old), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    let sidecar = Sidecar::run(&with(&lines(&endpoint, folder.path(), "tls_client_auth"), &upstream));
    sidecar.ready();
    fs::remove_file(folder.path().join("ca.pem")).unwrap();
    write(&folder.path().join("client.pem"), &new.0);
    write(&folder.path().join("client.key"), &new.1);
    let shown: Vec<_> = provider.wait_for(2).into_iter().map(|seen| seen.certificate).collect();
    assert_eq!(shown, [der(&old.0), der(&new.0)], "the last good authority is believed meanwhile");
}

#[test]
fn the_end_of_the_certificate_in_use_is_told_in_the_status_and_in_the_metrics() {
    let authority = Authority::new("authority");
    let day = Duration::from_secs(24 * 3600);
    let (old, new) = (authority.issue_with_left("old", 3 * day), authority.issue_with_left("new", 300 * day));
    let provider = TlsServer::start(&authority, true, tokens);
    let (folder, upstream) = (folder(&authority, &old), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    let sidecar = Sidecar::run(&with(&lines(&endpoint, folder.path(), "tls_client_auth"), &upstream));
    sidecar.ready();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // By its metric, which is there after the status is.
    let left = |which: &str| {
        let series = format!("attache_client_certificate_{which}_timestamp_seconds{{credential=\"main\"}}");
        (sidecar.metric(&series) - now as f64) / day.as_secs_f64()
    };
    let wait_for = |days: f64| {
        let begun = Instant::now();
        while (left("end") - days).abs() > 0.01 {
            assert!(begun.elapsed() < PATIENCE, "{} days", left("end"));
            std::thread::yield_now();
        }
    };
    wait_for(3.0);
    assert!((left("start") + 362.0).abs() < 0.01);
    let told = sidecar.status()["client_certificate"]["ends_at"].as_u64().unwrap();
    assert!((now + 3 * 24 * 3600).abs_diff(told) < 600);
    write(&folder.path().join("client.pem"), &new.0);
    write(&folder.path().join("client.key"), &new.1);
    wait_for(300.0);
}

#[test]
fn a_certificate_that_the_provider_does_not_know_is_told_as_such() {
    let authority = Authority::new("authority");
    let stranger = Authority::new("stranger").issue("checkout");
    let provider = TlsServer::start(&authority, true, tokens);
    let (folder, upstream) = (folder(&authority, &stranger), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    let sidecar = Sidecar::run(&with(&lines(&endpoint, folder.path(), "tls_client_auth"), &upstream));
    while sidecar.status()["last_error"].is_null() {
        std::thread::yield_now();
    }
    let error = &sidecar.status()["last_error"];
    assert_eq!(error["reason"], "client_certificate", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("client_certificate"));
}

/// A provider that lets nobody in without a certificate, wherever he goes; its tokens are signed by `key`.
fn closed(authority: &Authority) -> TlsServer {
    let key = verify::key();
    let keys = serde_json::json!({ "keys": [verify::public(&key)] }).to_string();
    TlsServer::start(authority, true, move |seen, own| {
        let own = format!("https://localhost:{}", own.port());
        let body = match seen.line.split(' ').nth(1).unwrap() {
            "/keys" => keys.clone(),
            "/userinfo" => "{\"sub\":\"checkout\"}".to_owned(),
            "/token" => {
                let end = verify::now() + 3600;
                let claims = serde_json::json!({ "iss": own, "aud": "https://api", "exp": end });
                let token = verify::jwt(&key, Some("k1"), &claims);
                serde_json::json!({ "access_token": token, "expires_in": 3600 }).to_string()
            }
            _ => serde_json::json!({
                "issuer": own, "token_endpoint": format!("{own}/token"), "jwks_uri": format!("{own}/keys"),
                "userinfo_endpoint": format!("{own}/userinfo"),
            })
            .to_string(),
        };
        (200, body)
    })
}

fn verified(provider: &TlsServer, folder: &Path) -> String {
    let provider = format!("issuer = \"{}\"\nscope = \"openid\"", provider.url());
    format!(
        "{}\nverify = true\nverify_audience = \"https://api\"",
        lines(&provider, folder, "tls_client_auth")
    )
}

#[test]
fn a_provider_that_demands_the_certificate_on_its_whole_host_sees_it_on_the_way_to_its_keys() {
    let authority = Authority::new("authority");
    let (old, new) = (authority.issue("checkout"), authority.issue("checkout"));
    let (provider, upstream) = (closed(&authority), echo());
    let folder = folder(&authority, &old);
    let sidecar = Sidecar::run(&with(&verified(&provider, folder.path()), &upstream));
    sidecar.ready();
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    let seen = provider.wait_for(4);
    assert!(seen.iter().any(|seen| seen.line.starts_with("GET /keys ")));
    assert!(seen.iter().all(|seen| seen.certificate == der(&old.0)));
    drop(sidecar);
    // For people, too.
    let file = folder.path().join("attache.toml");
    fs::write(&file, with(&verified(&provider, folder.path()), &upstream)).unwrap();
    write(&folder.path().join("client.pem"), &new.0);
    write(&folder.path().join("client.key"), &new.1);
    for (arguments, says) in
        [(&["check", "--online"][..], "credential main: ok"), (&["whoami", "main"], "checkout")]
    {
        let output = attache(arguments).arg("--config").arg(&file).output().unwrap();
        let (out, message) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{out}{message}");
        assert!(out.contains(says), "{out}");
    }
    let seen = provider.wait_for(5);
    assert!(seen[4..].iter().all(|seen| seen.certificate == der(&new.0)));
    assert!(seen.iter().any(|seen| seen.line.starts_with("GET /userinfo ")));
}
