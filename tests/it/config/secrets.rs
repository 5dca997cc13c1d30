//! Whatever somebody writes where a reference to a secret belongs, no message shows it.

use std::fs;

use attache::config::load;
use proptest::prelude::*;
use tempfile::TempDir;

const SECRET: &str = "hunter2";

fn message(name: &str, text: &str, environment: &[(String, String)]) -> Option<String> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    let error = load(Some(&file), environment.iter().cloned()).err()?;
    Some(format!("{error} {error:?} {}", error.cure().unwrap_or_default()))
}

fn toml(secret: &str) -> String {
    format!(
        "[credentials.a]\ntype = \"client_credentials\"\nclient_id = \"a\"\nclient_secret = {secret}\n\
         [routes.a]\nupstream = \"https://a.example\"\ncredential = \"a\"\n"
    )
}

fn yaml(secret: &str) -> String {
    format!(
        "credentials:\n  a:\n    type: client_credentials\n    client_id: a\n    client_secret: {secret}\n\
         routes:\n  a:\n    upstream: https://a.example\n    credential: a\n"
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_secret_in_place_of_its_reference_is_never_shown(
        before in "[ {}\\[\\]\"':,#=&*!|>%@?a1-]{0,6}",
        after in "[ {}\\[\\]\"':,#=&*!|>%@?a1-]{0,6}",
    ) {
        let written = format!("{before}{SECRET}{after}");
        let variable = [("ATTACHE__CREDENTIALS__A__CLIENT_SECRET".to_owned(), written.clone())];
        let right = "{ file = \"/run/secrets/a\" }";
        let messages = [
            message("a.toml", &toml(&written), &[]),
            message("a.yaml", &yaml(&written), &[]),
            message("a.toml", &toml(right), &variable),
        ];
        for message in messages.into_iter().flatten() {
            prop_assert!(!message.contains(SECRET), "{message}");
        }
    }
}
