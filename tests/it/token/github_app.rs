//! An installation of a GitHub App, as GitHub's own API has it.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::secret_file;
use crate::support::{FakeServer, Reply, Sidecar, echo, get};

fn github(status: u16) -> FakeServer {
    FakeServer::start(move |request| {
        assert_eq!(request.line(), "POST /api/v3/app/installations/42/access_tokens HTTP/1.1");
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let body = json!({ "token": "ghs_secret", "expires_at": "2099-01-01T00:00:00Z", "permissions": {} });
        let (body, kind) = (body.to_string(), "application/json");
        Reply::raw(format!(
            "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    })
}

fn sidecar(github: &FakeServer, key: &rcgen::KeyPair, more: &str, upstream: &FakeServer) -> Sidecar {
    // Read at the start, and whenever it changes: gone, the last good one stays.
    let file = secret_file(&key.serialize_pem());
    Sidecar::run(&format!(
        "[credentials.main]\ntype = \"github_app\"\nclient_id = \"Iv1\"\ninstallation_id = 42\n\
         app_key = {{ file = \"{}\" }}\napi_url = \"{}/api/v3/\"\n{more}\n\
         [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        file.path().display(),
        github.url(),
        upstream.url()
    ))
}

#[test]
fn an_installation_gets_its_token_for_a_jwt_that_the_app_has_signed() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    for (more, body) in [
        ("", Value::Null),
        (
            "repositories = [\"orders\"]\npermissions = { contents = \"read\" }",
            json!({ "repositories": ["orders"], "permissions": { "contents": "read" } }),
        ),
    ] {
        let (github, upstream) = (github(201), echo());
        let sidecar = sidecar(&github, &key, more, &upstream);
        assert!(get(sidecar.proxy, "/").text().contains("Bearer ghs_secret"));
        let asked = github.received().remove(0);
        let jwt = asked.fields("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_aud = false;
        let public = DecodingKey::from_rsa_der(key.public_key_raw());
        let claims = jsonwebtoken::decode::<Value>(&jwt, &public, &validation).unwrap().claims;
        assert_eq!(claims["iss"], "Iv1");
        let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert!((120..600).contains(&life), "GitHub allows ten minutes");
        assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap_or_default(), body);
        let left = sidecar.status()["expires_in_seconds"].as_u64().unwrap();
        assert!(left > 365 * 86400, "{left}");
    }
}

#[test]
fn what_github_refuses_is_told_as_what_it_is() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    for (status, reason, hint) in [
        (404, "installation", "installation_id"),
        (422, "installation", "permissions"),
        (401, "status", "client_id"),
        (503, "status", "again"),
    ] {
        let (github, upstream) = (github(status), echo());
        let sidecar = sidecar(&github, &key, "", &upstream);
        while sidecar.status()["last_error"].is_null() {
            std::thread::yield_now();
        }
        let error = &sidecar.status()["last_error"];
        assert_eq!(error["reason"], reason, "{error}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
        assert_eq!(get(sidecar.proxy, "/").status, 503);
    }
}

#[test]
fn a_jwt_that_github_refuses_is_signed_by_githubs_clock() {
    // Ours is ten minutes behind, and then ten minutes ahead.
    for ahead in [600, -600] {
        let github = FakeServer::start(move |request| {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().saturating_add_signed(ahead);
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
            let jwt = request.fields("authorization")[0].strip_prefix("Bearer ").unwrap();
            let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(jwt).unwrap().claims;
            let valid = claims["iat"].as_u64().unwrap() <= now && now < claims["exp"].as_u64().unwrap();
            let body = "{\"token\":\"ghs_secret\",\"expires_at\":\"2099-01-01T00:00:00Z\"}";
            let (status, length) = (if valid { 201 } else { 401 }, body.len());
            Reply::raw(format!(
                "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
        });
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let upstream = echo();
        let sidecar = sidecar(&github, &key, "", &upstream);
        sidecar.ready();
        assert_eq!(github.received().len(), 2, "{ahead}");
    }
}
