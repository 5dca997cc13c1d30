//! Which URLs are built, and what is refused.

use super::*;

fn config(json: &str) -> MetadataConfig {
    serde_json::from_str(json).unwrap()
}

fn url(json: &str) -> Result<String, String> {
    match Metadata::build(&config(json), Clock::default()) {
        Ok(metadata) => Ok(metadata.url.to_string()),
        Err(invalid) => Err(invalid.key().to_owned()),
    }
}

#[test]
fn each_cloud_is_asked_where_it_has_its_server() {
    let base = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts";
    for (json, expected) in [
        (r#"{"server":"google"}"#, format!("{base}/default/token")),
        (
            r#"{"server":"google","identity":"a@b.example","scope":"x  y"}"#,
            format!("{base}/a@b.example/token?scopes=x%2Cy"),
        ),
        (
            r#"{"server":"google","audience":"https://o.example"}"#,
            format!("{base}/default/identity?audience=https%3A%2F%2Fo.example&format=full"),
        ),
        (
            r#"{"server":"azure","audience":"api://o","identity":"id"}"#,
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=api%3A%2F%2Fo\
             &client_id=id"
                .to_owned(),
        ),
        (r#"{"server":"generic","url":"http://[fe80::1]/t"}"#, "http://[fe80::1]/t".to_owned()),
        (r#"{"server":"generic","url":"http://[fd00:ec2::254]/t"}"#, "http://[fd00:ec2::254]/t".to_owned()),
        (r#"{"server":"generic","url":"https://m.example/t"}"#, "https://m.example/t".to_owned()),
        (r#"{"server":"generic","url":"http://LocalHost:42356/t"}"#, "http://localhost:42356/t".to_owned()),
    ] {
        assert_eq!(url(json), Ok(expected), "{json}");
    }
}

#[test]
fn plain_http_leaves_this_machine_for_nobody() {
    for host in [
        "m.example",
        // Names that somebody else may lead elsewhere.
        "localhost.",
        "a.localhost",
        "localhost.example",
        "metadata.google.internal",
        "10.0.0.1",
        "[fd00:ec2::255]",
        "[::2]",
    ] {
        let json = format!(r#"{{"server":"generic","url":"http://{host}/t"}}"#);
        assert_eq!(url(&json), Err("url".into()), "{host}");
    }
    for bad in ["ftp://127.0.0.1/", "http://u@127.0.0.1/", "http://127.0.0.1/#f", "127.0.0.1"] {
        assert_eq!(url(&format!(r#"{{"server":"generic","url":"{bad}"}}"#)), Err("url".into()), "{bad}");
    }
}

#[test]
fn what_a_server_does_not_use_is_a_mistake() {
    for (json, key) in [
        (r#"{"server":"azure"}"#, "audience"),
        (r#"{"server":"azure","audience":"a","scope":"s"}"#, "scope"),
        (r#"{"server":"google","audience":"a","scope":"s"}"#, "scope"),
        (r#"{"server":"google","headers":{"a":"b"}}"#, "headers"),
        (r#"{"server":"google","token_field":"x"}"#, "token_field"),
        (r#"{"server":"generic"}"#, "url"),
        (r#"{"server":"generic","url":"https://m.example","audience":"a"}"#, "audience"),
        (r#"{"server":"generic","url":"https://m.example","headers":{"host":"b"}}"#, "headers"),
        (r#"{"server":"generic","url":"https://m.example","headers":{"a b":"b"}}"#, "headers"),
        (r#"{"server":"azure_app_service","audience":"a"}"#, "secret_headers.env"),
    ] {
        assert_eq!(url(json), Err(key.into()), "{json}");
    }
}
