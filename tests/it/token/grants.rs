//! Grants other than the client's own credentials: what arrives at the provider.

use std::fs;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::{form, refresh::revoking, secret_file};
use crate::support::{FakeServer, Sidecar, echo, get, provider};

fn run(kind: &str, provider: &FakeServer, lines: &str, upstream: &FakeServer) -> Sidecar {
    Sidecar::run(&format!(
        "[credentials.main]\ntype = \"{kind}\"\ntoken_endpoint = \"{}/token\"\nclient_auth = \"none\"\n{lines}\n\
         [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        provider.url(),
        upstream.url()
    ))
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn token_exchange_sends_the_newest_subject_token_and_the_actor_token() {
    let (subject, actor) = (secret_file("subject-1\n"), secret_file("actor+&"));
    let (provider, upstream) = (provider(), revoking());
    let lines = format!(
        "subject_token = {{ file = \"{}\" }}\nactor_token = {{ file = \"{}\" }}\n\
         actor_token_type = \"urn:ietf:params:oauth:token-type:access_token\"\n\
         requested_token_type = \"urn:ietf:params:oauth:token-type:access_token\"\naudience = \"orders\"",
        subject.path().display(),
        actor.path().display()
    );
    let sidecar = run("token_exchange", &provider, &lines, &upstream);
    sidecar.ready();
    assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"));
    fs::write(subject.path(), "subject-2").unwrap();
    get(sidecar.proxy, "/revoked");
    let received = provider.wait_for(2);
    for (request, token) in received.iter().zip(["subject-1", "subject-2"]) {
        assert!(request.fields("authorization").is_empty());
        assert_eq!(
            form(&request.body),
            pairs(&[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("audience", "orders"),
                ("subject_token", token),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ("actor_token", "actor+&"),
                ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ])
        );
    }
}

#[test]
fn jwt_bearer_sends_an_assertion_that_it_signed() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (key, provider, upstream) = (secret_file(&pair.serialize_pem()), provider(), echo());
    let lines = format!(
        "assertion_key = {{ file = \"{}\" }}\nassertion_key_id = \"k\"\nassertion_issuer = \"account@x\"\n\
         assertion_subject = \"user@x\"\nassertion_audience = \"https://provider.example/token\"\n\
         assertion_claims = {{ scope = \"a b\" }}",
        key.path().display()
    );
    let sidecar = run("jwt_bearer", &provider, &lines, &upstream);
    sidecar.ready();
    let form = form(&provider.received()[0].body);
    assert_eq!(form[..1], pairs(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")]));
    assert_eq!((form.len(), form[1].0.as_str()), (2, "assertion"));
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["https://provider.example/token"]);
    let key = DecodingKey::from_ec_der(pair.public_key_raw());
    let token = jsonwebtoken::decode::<Value>(&form[1].1, &key, &validation).unwrap();
    assert_eq!(token.header.kid.as_deref(), Some("k"));
    for (claim, value) in [("iss", "account@x"), ("sub", "user@x"), ("scope", "a b")] {
        assert_eq!(token.claims[claim], value);
    }
}

#[test]
fn jwt_bearer_sends_an_assertion_that_stands_in_a_file() {
    let (file, provider, upstream) = (secret_file("a.b.c\n"), provider(), echo());
    let lines = format!("client_id = \"c\"\nassertion = {{ file = \"{}\" }}", file.path().display());
    let sidecar = run("jwt_bearer", &provider, &lines, &upstream);
    sidecar.ready();
    assert_eq!(
        form(&provider.received()[0].body),
        pairs(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", "a.b.c"),
            ("client_id", "c"),
        ])
    );
}

#[test]
fn password_sends_the_user_and_its_newest_password() {
    let (password, provider, upstream) = (secret_file("p&1"), provider(), echo());
    let lines = format!("username = \"ro bot\"\npassword = {{ file = \"{}\" }}", password.path().display());
    let sidecar = run("password", &provider, &lines, &upstream);
    sidecar.ready();
    assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"));
    fs::write(password.path(), "p&2").unwrap();
    for (request, password) in provider.wait_for(2).iter().zip(["p&1", "p&2"]) {
        let expected = pairs(&[("grant_type", "password"), ("username", "ro bot"), ("password", password)]);
        assert_eq!(form(&request.body), expected);
    }
}
