//! Clients that authenticate with a signed assertion, verified by another library.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::Value;

use super::{form, refresh::revoking, secret_file, with};
use crate::support::{FakeServer, Reply, Sidecar, echo, get, token};

/// A provider that fails twice, so that there are three attempts.
fn provider() -> FakeServer {
    FakeServer::start(|request| match request.line().starts_with("GET ") {
        true => {
            let own = format!("http://{}", request.fields("host")[0]);
            Reply::json(200, &format!("{{\"issuer\":\"{own}\",\"token_endpoint\":\"{own}/token\"}}"))
        }
        false if request.number < 4 => Reply::text(503, ""),
        false => token(1, 3600),
    })
}

/// The assertion in a form, after checking what stands beside it.
fn assertion(body: &[u8]) -> String {
    let form = form(body);
    let find = |name: &str| {
        let mut values = form.iter().filter(|(key, _)| key == name);
        let value = values.next().unwrap_or_else(|| panic!("{name} of {form:?}")).1.clone();
        assert!(values.next().is_none(), "{name} stands twice");
        value
    };
    assert_eq!(find("client_id"), "check out");
    assert_eq!(find("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert!(!form.iter().any(|(key, _)| key == "client_secret"));
    find("client_assertion")
}

fn verify(jwt: &str, key: &DecodingKey, alg: Algorithm, audience: &str) -> (Header, Value) {
    let mut validation = Validation::new(alg);
    validation.set_audience(&[audience]);
    validation.leeway = 0;
    let token = jsonwebtoken::decode::<Value>(jwt, key, &validation).unwrap();
    (token.header, token.claims)
}

#[test]
fn private_key_jwt_signs_a_new_assertion_for_the_issuer_with_every_algorithm() {
    let rows = [
        (&rcgen::PKCS_RSA_SHA256, "RS256", Algorithm::RS256),
        (&rcgen::PKCS_RSA_SHA256, "PS256", Algorithm::PS256),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256", Algorithm::ES256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384", Algorithm::ES384),
        (&rcgen::PKCS_ED25519, "EdDSA", Algorithm::EdDSA),
    ];
    let upstream = Arc::new(echo());
    let row = |(kind, alg, expected): (&'static rcgen::SignatureAlgorithm, &'static str, Algorithm)| {
        let upstream = Arc::clone(&upstream);
        thread::spawn(move || {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let key = match expected {
                Algorithm::RS256 | Algorithm::PS256 => DecodingKey::from_rsa_der(pair.public_key_raw()),
                Algorithm::EdDSA => DecodingKey::from_ed_der(pair.public_key_raw()),
                _ => DecodingKey::from_ec_der(pair.public_key_raw()),
            };
            let (file, provider) = (secret_file(&pair.serialize_pem()), provider());
            let lines = format!(
                "issuer = \"{}\"\nclient_id = \"check out\"\nclient_auth = \"private_key_jwt\"\n\
                 private_key = {{ file = \"{}\" }}\nkey_id = \"k 1\"\nsigning_alg = \"{alg}\"",
                provider.url(),
                file.path().display()
            );
            let sidecar = Sidecar::run(&with(&lines, &upstream));
            sidecar.ready();
            let received = provider.received();
            let asked = received.iter().filter(|request| request.line().starts_with("POST "));
            let mut seen = Vec::new();
            for request in asked {
                assert!(request.fields("authorization").is_empty());
                let (header, claims) = verify(&assertion(&request.body), &key, expected, &provider.url());
                assert_eq!(header.kid.as_deref(), Some("k 1"));
                assert_eq!((&claims["iss"], &claims["sub"]), (&"check out".into(), &"check out".into()));
                assert_eq!(claims["aud"], provider.url());
                assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
                // 128 bits in Base64.
                let id = claims["jti"].as_str().unwrap().to_owned();
                assert_eq!(id.len(), 22);
                assert!(!seen.contains(&id));
                seen.push(id);
            }
            assert!(seen.len() >= 3);
        })
    };
    for thread in rows.map(row) {
        thread.join().unwrap();
    }
}

#[test]
fn client_secret_jwt_signs_with_the_secret_and_old_servers_get_the_endpoint_as_audience() {
    let (secret, provider, upstream) = (secret_file("Hunter2"), crate::support::provider(), echo());
    let lines = format!(
        "token_endpoint = \"{}/token\"\nclient_id = \"check out\"\nclient_auth = \"client_secret_jwt\"\n\
         client_secret = {{ file = \"{}\" }}\nsigning_alg = \"HS512\"\ncompat = {{ audience = \"token_endpoint\" }}",
        provider.url(),
        secret.path().display()
    );
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    let jwt = assertion(&provider.received()[0].body);
    let audience = format!("{}/token", provider.url());
    let (header, claims) = verify(&jwt, &DecodingKey::from_secret(b"Hunter2"), Algorithm::HS512, &audience);
    assert_eq!((header.kid, &claims["aud"]), (None, &audience.into()));
}

#[test]
fn an_assertion_of_somebody_else_is_read_again_for_the_next_token_request() {
    let (file, provider, upstream) = (secret_file("first.jwt\n"), crate::support::provider(), revoking());
    let lines = format!(
        "token_endpoint = \"{}/token\"\nclient_id = \"check out\"\nclient_auth = \"client_assertion\"\n\
         client_assertion = {{ file = \"{}\" }}",
        provider.url(),
        file.path().display()
    );
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    sidecar.ready();
    fs::write(file.path(), "second.jwt\n").unwrap();
    get(sidecar.proxy, "/revoked");
    let received = provider.wait_for(2);
    let sent: Vec<_> = received.iter().map(|request| assertion(&request.body)).collect();
    assert_eq!(sent, ["first.jwt", "second.jwt"]);
}

#[test]
fn f13_a_new_private_key_is_used_within_ten_seconds_and_garbage_is_not() {
    let pair = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (old, new) = (pair(), pair());
    let (file, provider, upstream) = (secret_file(&old.serialize_pem()), provider(), echo());
    let lines = format!(
        "issuer = \"{}\"\nclient_id = \"check out\"\nclient_auth = \"private_key_jwt\"\n\
         private_key = {{ file = \"{}\" }}",
        provider.url(),
        file.path().display()
    );
    // The provider fails at first, so there are attempts while the file holds no key at all.
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    provider.wait_for(2);
    fs::write(file.path(), "half a key").unwrap();
    sidecar.ready();
    let asked = provider.received().len();
    fs::write(file.path(), new.serialize_pem()).unwrap();
    let begun = tokio::time::Instant::now();
    let received = provider.wait_for(asked + 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    for (at, request) in
        received.iter().enumerate().filter(|(_, request)| request.line().starts_with("POST "))
    {
        let signed_by = if at < asked { &old } else { &new };
        let key = DecodingKey::from_ec_der(signed_by.public_key_raw());
        verify(&assertion(&request.body), &key, Algorithm::ES256, &provider.url());
    }
    assert_eq!(get(sidecar.proxy, "/").status, 200);
}

/// A provider whose clock is five minutes ahead, and that refuses what is not signed by that clock.
fn strict(name: &'static str) -> FakeServer {
    FakeServer::start(move |request| {
        let theirs = SystemTime::now() + Duration::from_secs(300);
        let date = httpdate::fmt_http_date(theirs);
        let now = theirs.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let form = form(&request.body);
        let jwt = &form.iter().find(|(key, _)| key == name).unwrap().1;
        let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(jwt).unwrap().claims;
        let valid = claims["iat"].as_u64().unwrap() <= now && now < claims["exp"].as_u64().unwrap();
        let (status, body) = match valid {
            true => (200, "{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":3600}"),
            false => (401, "{\"error\":\"invalid_client\"}"),
        };
        let length = body.len();
        Reply::raw(format!("HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}"))
    })
}

#[test]
fn f17_an_assertion_that_is_refused_is_signed_by_the_providers_clock_and_the_token_lives_as_long_as_it_says()
{
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (file, upstream) = (secret_file(&key.serialize_pem()), echo());
    let path = file.path().display();
    for (name, kind, lines) in [
        (
            "client_assertion",
            "client_credentials",
            format!(
                "client_id = \"c\"\nclient_auth = \"private_key_jwt\"\nprivate_key = {{ file = \"{path}\" }}"
            ),
        ),
        (
            "assertion",
            "jwt_bearer",
            format!(
                "client_auth = \"none\"\nassertion_issuer = \"i\"\nassertion_key = {{ file = \"{path}\" }}"
            ),
        ),
    ] {
        let provider = strict(name);
        let url = provider.url();
        let sidecar = Sidecar::run(&format!(
            "[credentials.main]\ntype = \"{kind}\"\nissuer = \"{url}\"\ntoken_endpoint = \"{url}/token\"\n{lines}\n\
             [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
            upstream.url()
        ));
        sidecar.ready();
        assert_eq!(provider.received().len(), 2, "{kind}");
        let left = sidecar.status()["expires_in_seconds"].as_u64().unwrap();
        assert!((3580..=3600).contains(&left), "{kind}: {left}");
        let skew = sidecar.metric("attache_provider_clock_skew_seconds{credential=\"main\"}");
        assert!((297.0..=301.0).contains(&skew), "{kind}: {skew}");
    }
}
