//! Credentials that cannot work are refused before anything is sent, with the key at fault and without what is in it.

use std::io::Write as _;

use attache::{app, config};

use super::secret_file;

const CLIENT: &str = "type = \"client_credentials\"\nclient_id = \"c\"\n";
const EXCHANGE: &str = "type = \"token_exchange\"\ntoken_endpoint = \"https://a.example/t\"\n";
const APP: &str = "type = \"github_app\"\nclient_id = \"c\"\ninstallation_id = 42\n";
const BEARER: &str =
    "type = \"jwt_bearer\"\ntoken_endpoint = \"https://a.example/t\"\nclient_auth = \"none\"\n";

/// The message about these lines; `KEY`, `CURVE` and `TEXT` stand for files with an RSA key, a P-256 key and a secret.
fn refusal(lines: &str) -> String {
    let pem = |kind| secret_file(&rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem());
    let files = [
        ("KEY", pem(&rcgen::PKCS_RSA_SHA256)),
        ("CURVE", pem(&rcgen::PKCS_ECDSA_P256_SHA256)),
        ("TEXT", secret_file("hunter2")),
        ("COLON", secret_file("hunter2:")),
    ];
    let mut lines = lines.to_owned();
    for (name, file) in &files {
        lines = lines.replace(name, &format!("{{ file = \"{}\" }}", file.path().display()));
    }
    let text = format!(
        "[credentials.main]\n{lines}\n[routes.main]\nupstream = \"https://b.example\"\ncredential = \"main\"\n"
    );
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let message = match config::load(Some(file.path()), []) {
        Ok(config) => match app::check(&config) {
            Ok(()) => String::new(),
            Err(invalid) => invalid.to_string(),
        },
        Err(error) => error.to_string(),
    };
    assert!(!message.contains("hunter2"), "{message}");
    message
}

#[test]
fn what_a_client_authentication_lacks_or_would_ignore_is_refused() {
    let issuer = "issuer = \"https://a.example\"\n";
    let endpoint = "token_endpoint = \"https://a.example/t\"\n";
    for (lines, key) in [
        (format!("{issuer}client_auth = \"private_key_jwt\""), "private_key"),
        (format!("{issuer}client_auth = \"private_key_jwt\"\nprivate_key = TEXT"), "private_key"),
        (
            format!(
                "{issuer}client_auth = \"private_key_jwt\"\nprivate_key = CURVE\nsigning_alg = \"RS256\""
            ),
            "private_key",
        ),
        (
            format!("{issuer}client_auth = \"private_key_jwt\"\nprivate_key = KEY\nsigning_alg = \"HS256\""),
            "private_key",
        ),
        // Nobody to address the assertion to.
        (format!("{endpoint}client_auth = \"private_key_jwt\"\nprivate_key = KEY"), "issuer"),
        (format!("{issuer}client_auth = \"client_secret_jwt\""), "client_secret"),
        (
            format!(
                "{issuer}client_auth = \"client_secret_jwt\"\nclient_secret = TEXT\nsigning_alg = \"RS256\""
            ),
            "signing_alg",
        ),
        (format!("{issuer}client_auth = \"client_assertion\""), "client_assertion"),
        (format!("{issuer}client_auth = \"none\"\nprivate_key = KEY"), "private_key"),
        (format!("{issuer}client_auth = \"none\"\nclient_secret = TEXT"), "client_secret"),
        (format!("{issuer}client_secret = TEXT\nkey_id = \"k\""), "key_id"),
        (format!("{issuer}client_auth = \"none\"\nintrospect = \"10ms\""), "introspect"),
        (format!("{endpoint}client_auth = \"none\"\nintrospect = \"60s\""), "introspection_endpoint"),
        (format!("{endpoint}client_auth = \"none\"\nverify = true\naudience = \"a\""), "verify"),
        (format!("{issuer}client_auth = \"none\"\nverify = true"), "verify"),
        (format!("{issuer}client_auth = \"none\"\nverify_audience = \"a\""), "verify_audience"),
        (format!("{issuer}client_auth = \"tls_client_auth\""), "client_certificate"),
        (
            format!("{issuer}client_auth = \"tls_client_auth\"\nclient_certificate = \"/no\""),
            "client_certificate",
        ),
        (format!("{issuer}client_secret = TEXT\nclient_certificate = \"/no\""), "client_certificate"),
        (format!("{issuer}client_secret = TEXT\nclient_private_key = KEY"), "client_private_key"),
        (
            format!(
                "{issuer}client_auth = \"private_key_jwt\"\nprivate_key = KEY\nclient_certificate = \"/no\""
            ),
            "client_certificate",
        ),
        (
            format!("{issuer}client_secret = TEXT\nparameters = {{ assertion = \"x\" }}"),
            "parameters.assertion",
        ),
    ] {
        let message = refusal(&format!("{CLIENT}{lines}"));
        assert!(message.contains(&format!("credentials.main.{key}")), "{lines}: {message}");
    }
    let right = format!("{CLIENT}{issuer}client_auth = \"private_key_jwt\"\nprivate_key = CURVE");
    assert_eq!(refusal(&right), "");
}

#[test]
fn what_a_grant_lacks_or_would_ignore_is_refused() {
    for (lines, key) in [
        (format!("{EXCHANGE}client_auth = \"none\""), "subject_token"),
        (format!("{EXCHANGE}subject_token = TEXT\nclient_secret = TEXT"), "client_id"),
        ("type = \"basic\"\nuser = TEXT".to_owned(), "password"),
        ("type = \"basic\"\nuser = COLON\npassword = TEXT".to_owned(), "user"),
        (format!("{APP}app_key = CURVE"), "app_key"),
        (format!("{APP}app_key = KEY\napi_url = \"http://a.example\""), "api_url"),
        (BEARER.to_owned(), "assertion"),
        (format!("{BEARER}assertion = TEXT\nassertion_key = KEY"), "assertion_key"),
        (
            format!("{BEARER}assertion_key = TEXT\nassertion_issuer = \"i\"\nassertion_audience = \"a\""),
            "assertion_key",
        ),
        (format!("{BEARER}assertion_key = KEY\nassertion_audience = \"a\""), "assertion_issuer"),
        (format!("{BEARER}assertion_key = KEY\nassertion_issuer = \"i\""), "assertion_audience"),
        (
            format!(
                "{BEARER}assertion_key = KEY\nassertion_issuer = \"i\"\nassertion_audience = \"a\"\n\
                 assertion_claims = {{ exp = \"1\" }}"
            ),
            "assertion_claims.exp",
        ),
    ] {
        let message = refusal(&lines);
        assert!(message.contains(&format!("credentials.main.{key}")), "{lines}: {message}");
    }
    assert_eq!(refusal(&format!("{EXCHANGE}client_auth = \"none\"\nsubject_token = TEXT")), "");
}
