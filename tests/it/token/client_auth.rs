//! What arrives at the provider: how the client authenticates, and what it asks for.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{form, secret_file, with};
use crate::support::{FakeServer, Reply, Sidecar, echo, get, provider};

/// Every character that some encoding gets wrong.
const DIFFICULT: &str = "a b+%:&=?\"~/#;,é€\\";

/// The authorization field and the form of the token request that these lines make.
fn arrives(lines: &str) -> (Option<String>, Vec<(String, String)>) {
    let (provider, upstream) = (provider(), echo());
    let lines = format!("token_endpoint = \"{}/token\"\n{lines}", provider.url());
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    let received = provider.received();
    assert_eq!(received[0].line(), "POST /token HTTP/1.1");
    assert_eq!(received[0].fields("content-type"), ["application/x-www-form-urlencoded"]);
    let authorization = received[0].fields("authorization");
    assert!(authorization.len() <= 1);
    (authorization.first().map(|value| (*value).to_owned()), form(&received[0].body))
}

fn basic(authorization: Option<String>) -> String {
    let encoded = authorization.unwrap().strip_prefix("Basic ").unwrap().to_owned();
    String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn basic_arrives_with_every_difficult_character_of_id_and_secret() {
    let secret = secret_file(DIFFICULT);
    let path = secret.path().display();
    let lines = format!("client_id = '{DIFFICULT}'\nclient_secret = {{ file = \"{path}\" }}");
    let (authorization, form) = arrives(&lines);
    let pair_sent = basic(authorization);
    let (id, sent) = pair_sent.split_once(':').unwrap();
    for part in [id, sent] {
        // As a server undoes it (RFC 6749 appendix B).
        let decoded = form_urlencoded::parse(format!("v={part}").as_bytes()).next().unwrap().1.into_owned();
        assert_eq!(decoded, DIFFICULT);
        assert!(!part.contains(':') && part.is_ascii());
    }
    assert_eq!(form, [pair("grant_type", "client_credentials")]);
}

#[test]
fn raw_basic_arrives_as_it_is() {
    let secret = secret_file(DIFFICULT);
    let path = secret.path().display();
    let lines = format!(
        "client_auth = \"client_secret_basic_raw\"\nclient_id = \"a b+%\"\nclient_secret = {{ file = \"{path}\" }}"
    );
    assert_eq!(basic(arrives(&lines).0), format!("a b+%:{DIFFICULT}"));
}

#[test]
fn post_and_none_stand_in_the_body_only() {
    let secret = secret_file(DIFFICULT);
    let path = secret.path().display();
    let id = format!("client_id = '{DIFFICULT}'");
    let grant = pair("grant_type", "client_credentials");
    let (authorization, form) = arrives(&format!(
        "client_auth = \"client_secret_post\"\n{id}\nclient_secret = {{ file = \"{path}\" }}"
    ));
    assert_eq!(authorization, None);
    assert_eq!(form, [grant.clone(), pair("client_id", DIFFICULT), pair("client_secret", DIFFICULT)]);
    let (authorization, form) = arrives(&format!("client_auth = \"none\"\n{id}"));
    assert_eq!(authorization, None);
    assert_eq!(form, [grant, pair("client_id", DIFFICULT)]);
}

#[test]
fn scope_audience_resources_and_parameters_arrive() {
    let (_, form) = arrives(
        "client_auth = \"none\"\nclient_id = \"c\"\nscope = \"a:read b/+ &=\"\naudience = \"https://api/?x=1&y\"\n\
         resource = [\"https://one/\", \"urn:two\"]\nparameters = { organization = \"o&=+ é\" }",
    );
    assert_eq!(
        form[1..],
        [
            pair("scope", "a:read b/+ &="),
            pair("audience", "https://api/?x=1&y"),
            pair("resource", "https://one/"),
            pair("resource", "urn:two"),
            pair("organization", "o&=+ é"),
            pair("client_id", "c"),
        ]
    );
}

#[test]
fn a_refused_client_is_told_in_the_status_with_how_it_asked_and_what_the_provider_lists() {
    let provider = FakeServer::start(|request| match request.line().starts_with("GET ") {
        true => {
            let own = format!("http://{}", request.fields("host")[0]);
            let methods =
                "\"token_endpoint_auth_methods_supported\":[\"private_key_jwt\",\"tls_client_auth\"]";
            Reply::json(
                200,
                &format!("{{\"issuer\":\"{own}\",\"token_endpoint\":\"{own}/token\",{methods}}}"),
            )
        }
        false => Reply::json(401, "{\"error\":\"invalid_client\"}"),
    });
    let (secret, upstream) = (secret_file("hunter2"), echo());
    let lines = format!(
        "issuer = \"{}\"\nclient_id = \"c\"\nclient_secret = {{ file = \"{}\" }}",
        provider.url(),
        secret.path().display()
    );
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    while sidecar.status()["last_error"].is_null() {
        std::thread::yield_now();
    }
    let error = &sidecar.status()["last_error"];
    assert_eq!(error["reason"], "oauth_error");
    assert_eq!(
        error["message"],
        "invalid_client with client_secret_basic; the provider's metadata lists only private_key_jwt, tls_client_auth"
    );
    assert!(error["hint"].as_str().unwrap().contains("`client_auth`"));
}

#[test]
fn a_client_that_is_refused_with_status_200_is_refused_all_the_same() {
    for code in ["invalid_client", "incorrect_client_credentials"] {
        let provider = FakeServer::start(move |_| Reply::json(200, &format!("{{\"error\":\"{code}\"}}")));
        let upstream = echo();
        let lines = format!(
            "token_endpoint = \"{}/token\"\nclient_id = \"c\"\nclient_auth = \"none\"",
            provider.url()
        );
        let sidecar = Sidecar::run(&with(&lines, &upstream));
        while sidecar.status()["last_error"].is_null() {
            std::thread::yield_now();
        }
        let error = &sidecar.status()["last_error"];
        assert_eq!(
            (&error["reason"], &error["message"]),
            (&"oauth_error".into(), &format!("{code} with none").into())
        );
        let rejected = "attache_token_refreshes_total{credential=\"main\",outcome=\"rejected\"}";
        assert!(sidecar.metric(rejected) >= 1.0);
    }
}
