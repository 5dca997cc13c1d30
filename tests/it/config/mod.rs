//! Tests of `config`: layers, and what they become.

mod reference;
mod secrets;

use std::fs;

use attache::config::{Config, load, load_with_origin};
use tempfile::TempDir;

const TOML: &str = r#"
[log]
format = "json"
[proxy]
workers = 2
allowed_hosts = ["a", "b"]
idle_timeout = "90s"
[credentials.my-orders]
type = "client_credentials"
issuer = "https://login.example.com"
client_id = "a b"
client_auth = "none"
parameters = { k = "v" }
token_wait = "1s"
[routes.my-orders]
upstream = "https://orders.internal"
credential = "my-orders"
strip_prefix = true
inject = { header = "x-api-key", format = "{token}" }
"#;

const YAML: &str = r#"
log: { format: json }
proxy:
  workers: 2
  allowed_hosts: [a, b]
  idle_timeout: 90s
  required_header:
credentials:
  my-orders: &shared
    type: client_credentials
    issuer: https://login.example.com
    client_id: a b
    client_auth: none
    parameters: { k: v }
    token_wait: 1s
routes:
  my-orders:
    upstream: https://orders.internal
    credential: my-orders
    strip_prefix: true
    inject: { header: x-api-key, format: "{token}" }
"#;

fn loaded(name: &str, text: &str, environment: &[(&str, &str)]) -> Config {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    load(Some(&file), variables(environment)).unwrap()
}

fn variables(environment: &[(&str, &str)]) -> Vec<(String, String)> {
    environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn toml_and_yaml_say_the_same() {
    let toml = loaded("a.toml", TOML, &[]);
    assert_eq!(toml, loaded("a.yaml", YAML, &[]));
    assert_eq!(toml, loaded("a.yml", YAML, &[]));
    assert_eq!(toml, loaded("a.toml", &format!("\u{feff}{TOML}"), &[]));
}

#[test]
fn the_environment_stands_over_the_file_and_the_file_over_the_defaults() {
    let config = loaded(
        "a.toml",
        TOML,
        &[
            ("ATTACHE__PROXY__WORKERS", "3"),
            ("ATTACHE__PROXY__ALLOWED_HOSTS", "[\"c\"]"),
            ("ATTACHE__ROUTES__MY_ORDERS__STRIP_PREFIX", "false"),
            ("ATTACHE__ROUTES__MY-ORDERS__HOST", "7"),
            ("ATTACHE__ROUTES__MY_ORDERS__INJECT__HEADER", "x-key"),
            ("ATTACHE__CREDENTIALS__MY_ORDERS__PARAMETERS__OTHER", "w"),
            ("ATTACHE_PORT", "tcp://10.0.0.1:7080"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!((config.proxy.workers, config.proxy.max_connections), (3, 16_384));
    assert_eq!(config.proxy.allowed_hosts, ["c"]);
    let route = &config.routes["my-orders"];
    assert_eq!((route.strip_prefix, route.host.as_deref()), (false, Some("7")));
    assert_eq!((route.inject.header.as_str(), route.inject.format.as_deref()), ("x-key", Some("{token}")));
    assert_eq!((config.routes.len(), config.credentials.len()), (1, 1));
}

#[test]
fn the_environment_alone_is_enough() {
    let environment = variables(&[
        ("ATTACHE__CREDENTIALS__A_B__TYPE", "client_credentials"),
        ("ATTACHE__CREDENTIALS__A_B__CLIENT_ID", "007"),
        ("ATTACHE__CREDENTIALS__A_B__CLIENT_SECRET__FILE", "/run/secrets/x"),
        ("ATTACHE__ROUTES__A_B", "{ upstream = \"https://a.example\", credential = \"x\" }"),
        ("ATTACHE__ROUTES__A_B__CREDENTIAL", "a_b"),
    ]);
    let config = load(None, environment).unwrap();
    assert_eq!(config.routes["a_b"].credential, "a_b");
    let attache::token::source::SourceConfig::ClientCredentials(source) = &config.credentials["a_b"].source
    else {
        panic!("it is of another type")
    };
    assert_eq!(source.client_id, "007");
    assert_eq!(source.oauth.client_secret.as_ref().unwrap().file.as_deref(), Some("/run/secrets/x".as_ref()));
}

#[test]
fn a_made_up_key_of_a_variable_keeps_its_case_unless_the_file_has_it_in_another() {
    let config = loaded(
        "a.toml",
        TOML,
        &[
            ("ATTACHE__CREDENTIALS__MY_ORDERS__PARAMETERS__K", "w"),
            ("ATTACHE__CREDENTIALS__MY_ORDERS__PARAMETERS__accessType", "offline"),
            ("ATTACHE__CREDENTIALS__HELPER__TYPE", "exec"),
            ("ATTACHE__CREDENTIALS__HELPER__COMMAND", "[\"/bin/true\"]"),
            ("ATTACHE__CREDENTIALS__HELPER__ENVIRONMENT__HOME", "/tmp"),
            ("ATTACHE__CREDENTIALS__HELPER__SECRET_ENVIRONMENT__API_KEY__ENV", "NAME"),
            ("ATTACHE__TRACES__HEADERS__X-Key__FILE", "/x"),
        ],
    );
    use attache::token::source::SourceConfig;
    let (SourceConfig::ClientCredentials(orders), SourceConfig::Exec(helper)) =
        (&config.credentials["my-orders"].source, &config.credentials["helper"].source)
    else {
        panic!("they are of other types")
    };
    let parameters: Vec<_> = orders.oauth.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(parameters, [("accessType", "offline"), ("k", "w")]);
    assert_eq!(helper.environment["HOME"], "/tmp");
    assert_eq!(helper.secret_environment["API_KEY"].env.as_deref(), Some("NAME"));
    assert_eq!(config.traces.headers["X-Key"].file.as_deref(), Some("/x".as_ref()));
}

#[test]
fn a_reference_in_the_environment_replaces_the_one_in_the_file() {
    let file = TOML.replace("client_auth = \"none\"", "client_secret = { file = \"/x\" }");
    for variable in [
        ("ATTACHE__CREDENTIALS__MY_ORDERS__CLIENT_SECRET__ENV", "NAME"),
        ("ATTACHE__CREDENTIALS__MY_ORDERS__CLIENT_SECRET", "{ env = \"NAME\" }"),
    ] {
        let config = loaded("a.toml", &file, &[variable]);
        let attache::token::source::SourceConfig::ClientCredentials(source) =
            &config.credentials["my-orders"].source
        else {
            panic!("it is of another type")
        };
        let secret = source.oauth.client_secret.as_ref().unwrap();
        assert_eq!((&secret.file, secret.env.as_deref()), (&None, Some("NAME")));
    }
}

#[test]
fn a_name_that_could_mean_two_is_taken_as_it_stands() {
    let more = "[routes.a-b_c]\nupstream = \"https://x\"\ncredential = \"my-orders\"\n[routes.a_b-c]\nupstream = \"https://x\"\n\
                credential = \"my-orders\"\n";
    let environment = [
        ("ATTACHE__ROUTES__A_B_C__UPSTREAM", "https://y"),
        ("ATTACHE__ROUTES__A_B_C__CREDENTIAL", "my-orders"),
    ];
    let config = loaded("a.toml", &format!("{TOML}{more}"), &environment);
    assert_eq!(config.routes["a_b_c"].upstream, "https://y");
    assert_eq!(config.routes["a-b_c"].upstream, "https://x");
}

#[test]
fn keys_that_weaken_a_promise_are_told() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.toml");
    let secret = "client_secret = { file = \"/x\", unsafe_world_readable = true }";
    let text = TOML.replace("client_auth = \"none\"", secret) + "unsafe_plaintext = false\n";
    fs::write(&file, text).unwrap();
    let loaded = load_with_origin(Some(&file), variables(&[])).unwrap();
    assert_eq!(loaded.unsafe_keys, ["credentials.my-orders.client_secret.unsafe_world_readable"]);
}
