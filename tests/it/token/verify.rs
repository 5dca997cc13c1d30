//! `verify = true`: a token that its issuer has not signed for us is never used.

use std::thread;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use super::with;
use crate::support::{FakeServer, Reply, Sidecar, echo, get};

pub(super) fn key() -> EncodingKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    EncodingKey::from_ec_der(&pair.serialize_der())
}

pub(super) fn public(key: &EncodingKey) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, Algorithm::ES256).unwrap()).unwrap();
    jwk["kid"] = "k1".into();
    jwk
}

pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn jwt(key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

/// A provider that signs nothing itself: it serves this key, and what `token` makes of its own address.
fn provider(key: &EncodingKey, token: impl Fn(&str) -> String + Send + Sync + 'static) -> FakeServer {
    let keys = json!({ "keys": [{ "kty": "unknown" }, public(key)] }).to_string();
    FakeServer::start(move |request| {
        let own = format!("http://{}", request.fields("host")[0]);
        match request.line() {
            "GET /keys HTTP/1.1" => Reply::json(200, &keys),
            line if line.starts_with("GET ") => {
                let endpoints = format!("\"token_endpoint\":\"{own}/token\",\"jwks_uri\":\"{own}/keys\"");
                Reply::json(200, &format!("{{\"issuer\":\"{own}\",{endpoints}}}"))
            }
            _ => {
                let token = token(&own);
                Reply::json(200, &json!({ "access_token": token, "expires_in": 3600 }).to_string())
            }
        }
    })
}

fn sidecar(provider: &FakeServer, upstream: &FakeServer) -> Sidecar {
    let lines = format!(
        "issuer = \"{}\"\nclient_id = \"c\"\nclient_auth = \"none\"\nverify = true\nresource = [\"https://other\", \"https://api\"]",
        provider.url()
    );
    Sidecar::run(&with(&lines, upstream))
}

#[test]
fn a_token_that_the_issuer_has_signed_for_us_is_used() {
    for (kid, audience) in [
        (Some("k1"), json!("https://api")),
        (None, json!("https://api")),
        (Some("k1"), json!(["https://x", "https://api"])),
    ] {
        let key = key();
        let signer = key.clone();
        let provider = provider(&key, move |own| {
            let claims = json!({ "iss": own, "aud": audience, "exp": now() + 3600, "nbf": now() });
            jwt(&signer, kid, &claims)
        });
        let upstream = echo();
        let sidecar = sidecar(&provider, &upstream);
        assert_eq!(get(sidecar.proxy, "/").status, 200);
        let keys = provider.received().iter().filter(|request| request.line().contains("/keys")).count();
        assert_eq!(keys, 1);
    }
}

/// `token` gets the issuer's key, its name, and the claims of a good token.
fn refused(token: impl Fn(&EncodingKey, Value) -> String + Send + Sync + 'static) -> String {
    let key = key();
    let signer = key.clone();
    let provider = provider(&key, move |own| {
        let good = json!({ "iss": own, "aud": "https://api", "exp": now() + 3600 });
        token(&signer, good)
    });
    let upstream = echo();
    let sidecar = sidecar(&provider, &upstream);
    while sidecar.status()["last_error"].is_null() {
        thread::yield_now();
    }
    let error = &sidecar.status()["last_error"];
    assert_eq!(error["reason"], "unverified_token", "{error}");
    assert_eq!(get(sidecar.proxy, "/").status, 503);
    assert!(upstream.received().is_empty());
    error["message"].as_str().unwrap().to_owned()
}

fn changed(name: &'static str, value: Value) -> String {
    refused(move |key, mut claims| {
        claims[name] = value.clone();
        jwt(key, Some("k1"), &claims)
    })
}

#[test]
fn claims_that_are_not_for_us_now_are_refused() {
    assert!(changed("iss", "http://localhost".into()).contains("`iss`"));
    assert!(changed("aud", "https://elsewhere".into()).contains("`aud`"));
    assert!(changed("aud", Value::Null).contains("lacks"));
    assert!(changed("exp", (now() - 1).into()).contains("`exp`"));
    assert!(changed("exp", "soon".into()).contains("lacks"));
    assert!(changed("nbf", (now() + 600).into()).contains("`nbf`"));
}

#[test]
fn a_signature_that_is_not_the_issuers_is_refused_however_it_is_made() {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = move |header: Value, claims: &Value, signature: &str| {
        format!("{}.{}.{signature}", encode(&header), encode(claims))
    };
    assert!(refused(|_, claims| jwt(&key(), Some("k1"), &claims)).contains("signature"));
    assert!(refused(|_, claims| jwt(&key(), None, &claims)).contains("signature"));
    assert!(refused(|key, claims| jwt(key, Some("k2"), &claims)).contains("no key"));
    for alg in ["none", "None", "nOnE"] {
        let message = refused(move |_, claims| unsigned(json!({ "alg": alg, "kid": "k1" }), &claims, ""));
        assert!(message.contains("believed"), "{message}");
    }
    // The public key as a shared secret, in each form that a careless verifier might take it.
    for form in ["x", "jwk"] {
        let message = refused(move |key, claims| {
            let public = public(key);
            let secret =
                if form == "x" { public["x"].as_str().unwrap().to_owned() } else { public.to_string() };
            let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
        });
        assert!(message.contains("believed"), "{message}");
    }
    let critical = refused(move |key, claims| {
        let good = jwt(key, Some("k1"), &claims);
        let (_, rest) = good.split_once('.').unwrap();
        let header = encode(&json!({ "alg": "ES256", "kid": "k1", "crit": ["x"], "x": 1 }));
        format!("{header}.{rest}")
    });
    assert!(critical.contains("critical"), "{critical}");
    for opaque in ["opaque", "a.b", "a.b.c.d.e", "..", "e30.e30.e30"] {
        assert!(refused(move |_, _| opaque.to_owned()).contains("not a signed JWT"));
    }
}
