//! Every wrong configuration gets one message that names the file, the key and the cure, exit code 78, and never shows
//! what was written.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use tempfile::TempDir;

use super::{attache, text};

/// Stands in every wrong place; no message may hold it.
const SECRET: &str = "hunter2";

/// A configuration that is right, as long as the files of [`folder`] are there.
const RIGHT: &str = r#"
[credentials.orders]
type = "client_credentials"
token_endpoint = "https://login.example.com/token"
client_id = "checkout"
client_secret = { file = "DIR/secret" }

[routes.orders]
upstream = "https://orders.internal"
credential = "orders"
"#;

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content, mode) in [("secret", SECRET, 0o600), ("empty", "", 0o600), ("open", SECRET, 0o644)] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    folder
}

/// Checks `file` and runs it, and returns the message, which must be the refusal of a configuration.
fn refused(file: Option<&Path>, environment: &[(&str, &str)]) -> String {
    let message = refused_by("check", file, environment);
    assert_eq!(refused_by("run", file, environment), message);
    message
}

fn refused_by(command: &str, file: Option<&Path>, environment: &[(&str, &str)]) -> String {
    let mut command = attache(&[command]);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let (out, message) = text(&output);
    let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    assert_eq!(output.status.code(), Some(78), "{text}{environment:?}{out}{message}");
    assert!(out.is_empty(), "{out}");
    assert!(message.starts_with("error: "), "{message}");
    assert!(!message.contains(SECRET), "{message}");
    message
}

fn assert_holds(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// Right, with `from` replaced by `to`, and the parts of its message.
struct Wrong {
    from: &'static str,
    to: &'static str,
    parts: &'static [&'static str],
}

const fn wrong(from: &'static str, to: &'static str, parts: &'static [&'static str]) -> Wrong {
    Wrong { from, to, parts }
}

const KEYS: &[Wrong] = &[
    wrong("[routes.orders]", "[route.orders]", &["`route`: unknown key", "did you mean `routes`?"]),
    wrong(
        "upstream =",
        "upstrem =",
        &["attache.toml`, line 9: `routes.orders.upstrem`: unknown key", "did you mean `upstream`?"],
    ),
    wrong("client_id =", "client-id =", &["`credentials.orders.client-id`", "did you mean `client_id`?"]),
    wrong(
        "client_id =",
        "colour = 'hunter2'\nclient_id =",
        &["`credentials.orders.colour`", "the keys here are"],
    ),
    wrong(
        "client_id = \"checkout\"",
        "",
        &["line 2: `credentials.orders.client_id`: this required key is missing"],
    ),
    wrong("type = \"client_credentials\"", "", &["`credentials.orders.type`", "`client_credentials`"]),
    wrong(
        "\"client_credentials\"",
        "\"client_credential\"",
        &["orders.type`", "did you mean `client_credentials`?"],
    ),
    wrong(
        "upstream = \"https://orders.internal\"",
        "",
        &["`routes.orders.upstream`", "missing", "Where requests go"],
    ),
    wrong("credential = \"orders\"", "", &["`routes.orders.credential`", "missing"]),
    wrong("[routes.orders]", "[routes.Orders]", &["`routes.Orders`", "lower-case"]),
    wrong("[routes.orders]", "[routes.a__b]", &["`routes.a__b`", "single `_`"]),
];

const TYPES: &[Wrong] = &[
    wrong(
        "{ file = \"DIR/secret\" }",
        "\"hunter2\"",
        &["client_secret`: expected a reference such as { file =", "hint"],
    ),
    wrong("{ file = \"DIR/secret\" }", "[\"hunter2\"]", &["client_secret`: expected a reference"]),
    wrong("{ file = \"DIR/secret\" }", "{ hunter2 = \"\" }", &["client_secret`: expected a reference"]),
    wrong("{ file = \"DIR/secret\" }", "{ file = 7 }", &["client_secret.file`: expected text"]),
    wrong("\"checkout\"", "7", &["`credentials.orders.client_id`: expected text in quotes"]),
    wrong("client_id", "scope = [\"hunter2\"]\nclient_id", &["`credentials.orders.scope`: expected text"]),
    wrong(
        "client_id",
        "resource = \"hunter2\"\nclient_id",
        &["`credentials.orders.resource`: expected a list"],
    ),
    wrong("client_id", "resource = [1]\nclient_id", &["`credentials.orders.resource.0`: expected text"]),
    wrong(
        "client_id",
        "token_wait = 5\nclient_id",
        &["`credentials.orders.token_wait`: expected a duration"],
    ),
    wrong("client_id", "token_wait = \"5 hunter2\"\nclient_id", &["token_wait`: expected a duration"]),
    wrong(
        "client_id",
        "required = \"yes\"\nclient_id",
        &["`credentials.orders.required`: expected true or false"],
    ),
    wrong("client_id", "client_auth = \"hunter2\"\nclient_id", &["client_auth`: expected one of", "`none`"]),
    wrong(
        "[routes.orders]",
        "[proxy]\nworkers = -1\n[routes.orders]",
        &["`proxy.workers`: expected a whole number"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nworkers = 1.5\n[routes.orders]",
        &["`proxy.workers`: expected a whole number"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\naccess_log = \"loud\"\n[routes.orders]",
        &["`proxy.access_log`", "`off`"],
    ),
    wrong(
        "[routes.orders]",
        "[routes.intl]\npath = \"/intl\"\nupstream = \"https://bücher.example\"\ncredential = \"none\"\n[routes.orders]",
        &["`routes.intl.upstream`: is not a URL", "ASCII form (`xn--"],
    ),
    wrong(
        "[routes.orders]",
        "[traces]\nsample_ratio = 1.5\n[routes.orders]",
        &["`traces.sample_ratio`: expected a number from 0 to 1"],
    ),
    wrong(
        "[routes.orders]",
        "[traces]\nheaders = { authorization = \"hunter2\" }\n[routes.orders]",
        &["`traces.headers.authorization`: expected a reference"],
    ),
    wrong(
        "[routes.orders]",
        "[traces]\nendpoint = \"http://hunter2:hunter2@collector.example:4318\"\n[routes.orders]",
        &["`traces.endpoint`", "plain text", "use https"],
    ),
    wrong(
        "[routes.orders]",
        "[routes]\norders = \"hunter2\"\n[routes.o]",
        &["`routes.orders`: expected a section"],
    ),
    wrong(
        "[credentials.orders]",
        "credentials = \"hunter2\"\n[proxy]",
        &["`credentials`: expected a section"],
    ),
];

const SECTIONS: &[Wrong] = &[
    wrong(
        "credential = \"orders\"",
        "credential = \"order\"",
        &["`routes.orders.credential`", "did you mean `orders`?"],
    ),
    wrong("credential = \"orders\"", "credential = \"x\"", &["`routes.orders.credential`", "add a section"]),
    wrong("[routes.orders]", "[log]\nfilter = \"a=loudly\"\n[routes.orders]", &["`log.filter`", "info"]),
    wrong(
        "[routes.orders]",
        "[proxy]\nlisten = \"7080\"\n[routes.orders]",
        &["`proxy.listen`", "127.0.0.1:7080"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nlisten = \"host.example:1\"\n[routes.orders]",
        &["`proxy.listen`", "address"],
    ),
    wrong("[routes.orders]", "[admin]\nlisten = \"127.0.0.1:99999\"\n[routes.orders]", &["`admin.listen`"]),
    wrong(
        "[routes.orders]",
        "[admin]\nlisten = \"127.0.0.1:7080\"\n[routes.orders]",
        &["`admin.listen`", "`proxy.listen` already"],
    ),
    wrong(
        "credential = \"orders\"",
        "credential = \"orders\"\nlisten = \"0.0.0.0:7090\"",
        &["`routes.orders.listen`", "`admin.listen` already"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nlisten = \"unix:attache.sock\"\n[routes.orders]",
        &["`proxy.listen`", "whole path", "unix:/run/attache"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nlisten = \"unix:@attache\"\n[routes.orders]",
        &["`proxy.listen`", "abstract"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nlisten = \"unix:/a\"\n[admin]\nlisten = \"unix:/a\"\n[routes.orders]",
        &["`admin.listen`", "`proxy.listen` already"],
    ),
    wrong("[routes.orders]", "[proxy.unix]\nmode = \"rw\"\n[routes.orders]", &["`proxy.unix.mode`", "octal"]),
    wrong(
        "[routes.orders]",
        "[admin.unix]\nmode = \"0444\"\n[routes.orders]",
        &["`admin.unix.mode`", "nobody"],
    ),
    wrong(
        "[routes.orders]",
        "[credentials.none]\ntype = \"file\"\ntoken = { env = \"X\" }\n[routes.orders]",
        &["`credentials.none`", "another name"],
    ),
    wrong(
        "credential = \"orders\"",
        "credential = \"orders\"\nunix = { allowed_uids = [1000] }",
        &["`routes.orders.unix`", "no meaning", "listen"],
    ),
    wrong(
        "credential = \"orders\"",
        "credential = \"orders\"\nlisten = \"unix:/a\"\nunix = { mode = \"8\" }",
        &["`routes.orders.unix.mode`", "octal"],
    ),
];

const PARTS: &[Wrong] = &[
    wrong("https://orders.internal", "orders.internal", &["`routes.orders.upstream`"]),
    wrong("https://orders.internal", "ftp://orders.internal", &["`routes.orders.upstream`"]),
    wrong(
        "https://orders.internal",
        "http://orders.internal",
        &["`routes.orders.upstream`", "unsafe_plaintext"],
    ),
    wrong("https://orders.internal", "https://user:hunter2@orders.internal", &["`routes.orders.upstream`"]),
    wrong("https://login.example.com", "login.example.com", &["`credentials.orders.token_endpoint`"]),
    wrong(
        "https://login.example.com",
        "http://login.example.com",
        &["orders.token_endpoint`", "unsafe_plaintext"],
    ),
    wrong("token_endpoint = \"https://login.example.com/token\"", "", &["`credentials.orders", "issuer"]),
    wrong("client_secret = { file = \"DIR/secret\" }", "", &["`credentials.orders.client_secret`"]),
    wrong(
        "DIR/secret",
        "DIR/missing",
        &["`credentials.orders.client_secret.file`", "DIR/missing", "create the file"],
    ),
    wrong("DIR/secret", "DIR/empty", &["`credentials.orders.client_secret.file`", "is empty"]),
    wrong("DIR/secret", "DIR/open", &["`credentials.orders.client_secret.file`", "every user", "chmod o-r"]),
    wrong("DIR/secret", "DIR", &["`credentials.orders.client_secret.file`", "not a regular file"]),
    wrong(
        "{ file = \"DIR/secret\" }",
        "{ env = \"NO_SUCH\" }",
        &["client_secret.env`", "`NO_SUCH`", "set the variable"],
    ),
    wrong(
        "{ file = \"DIR/secret\" }",
        "{ file = \"DIR/secret\", env = \"X\" }",
        &["client_secret`", "either"],
    ),
    wrong(
        "client_id",
        "http_proxy = \"http://u:hunter2@p\"\nclient_id",
        &["`credentials.orders.http_proxy`", "http://proxy.example.com:3128"],
    ),
    wrong(
        "https://login.example.com/token\"",
        "http://127.0.0.1:8080/token\"\nhttp_proxy = \"http://p\"",
        &["`credentials.orders.http_proxy`", "would read the secret"],
    ),
    wrong(
        "client_id",
        "parameters = { subject_token_type = \"hunter2\" }\nclient_id",
        &["`credentials.orders.parameters.subject_token_type`", "sets itself"],
    ),
    wrong("client_id", "ca_file = \"DIR/secret\"\nclient_id", &["`credentials.orders.ca_file`"]),
    wrong("client_id", "default_lifetime = \"0s\"\nclient_id", &["`credentials.orders.default_lifetime`"]),
    wrong("credential =", "path = \"orders\"\ncredential =", &["`routes.orders.path`"]),
    wrong("credential =", "host = \"https://x\"\ncredential =", &["`routes.orders.host`"]),
    wrong(
        "credential =",
        "tls = { ca_file = \"DIR/missing\" }\ncredential =",
        &["`routes.orders.tls.ca_file`"],
    ),
    wrong("credential =", "inject = { header = \"a b\" }\ncredential =", &["`routes.orders.inject.header`"]),
    wrong(
        "credential =",
        "inject = { format = \"Bearer\" }\ncredential =",
        &["`routes.orders.inject.format`"],
    ),
    wrong("credential =", "connect_timeout = \"0s\"\ncredential =", &["`routes.orders.connect_timeout`"]),
    wrong("credential =", "max_connections = 0\ncredential =", &["`routes.orders.max_connections`"]),
    wrong("credential =", "replay = \"never\"\ncredential =", &["`routes.orders.replay`", "idempotent"]),
    wrong(
        "credential =",
        "tls = { certificate = \"DIR/secret\" }\ncredential =",
        &["`routes.orders.tls.private_key`", "is missing"],
    ),
    wrong(
        "credential =",
        "tls = { private_key = { file = \"DIR/secret\" } }\ncredential =",
        &["`routes.orders.tls.certificate`", "is missing"],
    ),
    wrong(
        "credential =",
        "tls = { certificate = \"DIR/secret\", private_key = { file = \"DIR/secret\" } }\ncredential =",
        &["`routes.orders.tls.private_key`", "no certificate"],
    ),
    wrong(
        "credential =",
        "tls = { certificate = \"DIR/secret\", private_key = { file = \"DIR/open\" } }\ncredential =",
        &["`routes.orders.tls.private_key.file`", "chmod o-r"],
    ),
    wrong(
        "credential =",
        "tls = { server_name = \"https://x\" }\ncredential =",
        &["`routes.orders.tls.server_name`", "without a scheme"],
    ),
    wrong(
        "credential =",
        "http_proxy = \"hunter2:3128\"\ncredential =",
        &["`routes.orders.http_proxy`", "http://proxy.example.com:3128"],
    ),
    wrong(
        "credential =",
        "http_proxy = \"http://u:hunter2@p\"\ncredential =",
        &["`routes.orders.http_proxy`", "http_proxy_auth"],
    ),
    wrong(
        "credential =",
        "http_proxy = \"http://p\"\nhttp_proxy_auth = { username = \"u\", password = { file = \"DIR/secret\" } }\ncredential =",
        &["`routes.orders.http_proxy_auth.password`", "unsafe_plaintext"],
    ),
    wrong(
        "[routes.orders]",
        "[routes.other]\nupstream = \"https://b.example\"\ncredential = \"orders\"\n[routes.orders]",
        &["`routes.other.path`", "`orders`"],
    ),
    wrong("[routes.orders]", "[proxy]\nmax_connections = 0\n[routes.orders]", &["`proxy.max_connections`"]),
    wrong("[routes.orders]", "[proxy]\nmax_header_bytes = 1\n[routes.orders]", &["`proxy.max_header_bytes`"]),
    wrong(
        "[routes.orders]",
        "[proxy]\nheader_timeout = \"0s\"\n[routes.orders]",
        &["`proxy.header_timeout`"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nrequired_header = \"a b\"\n[routes.orders]",
        &["`proxy.required_header`"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nallowed_origins = [\"https://a/b\"]\n[routes.orders]",
        &["`proxy.allowed_origins"],
    ),
    wrong(
        "[routes.orders]",
        "[proxy]\nallowed_hosts = [\"https://a\"]\n[routes.orders]",
        &["`proxy.allowed_hosts"],
    ),
];

const SYNTAX: &[Wrong] = &[
    wrong("{ file = \"DIR/secret\" }", "hunter2", &["is not TOML: line 6, column"]),
    wrong("{ file = \"DIR/secret\" }", "\"hunter2", &["is not TOML: line 6, column"]),
    wrong(
        "client_id =",
        "client_id = \"hunter2\"\nclient_id =",
        &["is not TOML: line 6, column", "duplicate key"],
    ),
];

#[test]
fn a_wrong_file_is_refused_with_file_key_and_cure() {
    let folder = folder();
    let file = folder.path().join("attache.toml");
    let mut missing = Vec::new();
    for Wrong { from, to, parts } in [KEYS, TYPES, SECTIONS, PARTS, SYNTAX].into_iter().flatten() {
        assert!(RIGHT.contains(from), "{from}");
        let text = RIGHT.replacen(from, to, 1).replace("DIR", folder.path().to_str().unwrap());
        fs::write(&file, text).unwrap();
        let message = refused(Some(&file), &[]);
        for part in ["attache.toml`", "hint: "].iter().chain(*parts) {
            let part = part.replace("DIR", folder.path().to_str().unwrap());
            if !message.contains(&part) {
                missing.push(format!("`{part}` is not in: {message}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn nothing_is_bound_before_the_configuration_is_known_to_be_right() {
    let folder = folder();
    let file = folder.path().join("attache.toml");
    // A port that is taken: whoever tried to bind it first would fail with exit code 1.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::write(&file, RIGHT.replace("DIR/secret", folder.path().join("empty").to_str().unwrap())).unwrap();
    let environment =
        [("ATTACHE__PROXY__LISTEN", address.as_str()), ("ATTACHE__ADMIN__LISTEN", "127.0.0.1:0")];
    assert_holds(&refused_by("run", Some(&file), &environment), &["is empty"]);
}

#[test]
fn a_secret_in_the_wrong_place_of_a_yaml_file_is_not_shown() {
    let folder = folder();
    let file = folder.path().join("attache.yaml");
    let right =
        "credentials:\n  orders:\n    type: client_credentials\n    client_id: checkout\n    client_secret: ";
    for (secret, part) in [
        ("hunter2", "`credentials.orders.client_secret`: expected a reference such as { file ="),
        ("{hunter2}", "`credentials.orders.client_secret`: expected a reference"),
        ("{ file: [hunter2] }", "`credentials.orders.client_secret.file`: expected text"),
        ("\"hunter2", "is not YAML: line"),
        ("hunter2: hunter2", "is not YAML: line 5"),
        ("!!int hunter2", "is not YAML: line 5"),
        ("*hunter2", "is not YAML: line"),
    ] {
        fs::write(&file, format!("{right}{secret}\n")).unwrap();
        assert_holds(&refused(Some(&file), &[]), &["attache.yaml`", part]);
    }
}

#[test]
fn a_wrong_variable_is_refused_by_its_name() {
    let folder = folder();
    let file = folder.path().join("attache.toml");
    fs::write(&file, RIGHT.replace("DIR", folder.path().to_str().unwrap())).unwrap();
    for (name, value, parts) in [
        (
            "ATTACHE__CREDENTIALS__ORDERS__CLIENT_SECRET",
            "hunter2",
            &["client_secret`: expected a reference"][..],
        ),
        ("ATTACHE__CREDENTIALS__ORDERS__CLIENT_SECRET", "{ file = hunter2 }", &["expected a reference"]),
        ("ATTACHE__CREDENTIALS__ORDERS__CLIENT_SECRET__FIEL", "hunter2", &["expected a reference"]),
        ("ATTACHE__CREDENTIALS__ORDERS__CLIENT_SECRT", "hunter2", &["did you mean `client_secret`?"]),
        ("ATTACHE__PROXY__WORKERS", "hunter2", &["`proxy.workers`: expected a whole number"]),
        ("ATTACHE__PROXY__ALLOWED_HOSTS", "hunter2", &["`proxy.allowed_hosts`: expected a list"]),
        (
            "ATTACHE__ROUTES__ORDERS__STRIP_PREFIX",
            "hunter2",
            &["`routes.orders.strip_prefix`: expected true or"],
        ),
        ("ATTACHE__LOG__FORMAT", "hunter2", &["`log.format`: expected one of `json`, `logfmt` and `text`"]),
        ("ATTACHE__PROXY____LISTEN", "hunter2", &["does not name a key"]),
        ("ATTACHE__", "hunter2", &["does not name a key"]),
        ("ATTACHE__PORT", "hunter2", &["`port`: unknown key"]),
    ] {
        let message = refused(Some(&file), &[(name, value)]);
        assert_holds(&message, &[&format!("`{name}`"), "hint: "]);
        assert_holds(&message, parts);
    }
    let twice = [("ATTACHE__LOG__FORMAT", "json"), ("ATTACHE__log__format", "text")];
    assert_holds(&refused(Some(&file), &twice), &["set the same key"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("attache.conf"), "").unwrap();
    fs::write(path("binary.toml"), b"a = \"hunter2\xff\"").unwrap();
    fs::write(path("list.yaml"), "- hunter2\n").unwrap();
    fs::create_dir(path("folder.toml")).unwrap();
    for (name, part) in [
        ("missing.toml", "correct the path"),
        ("attache.conf", "`.toml`, `.yaml` or `.yml`"),
        ("binary.toml", "is not UTF-8"),
        ("folder.toml", "is a directory"),
        ("list.yaml", "does not hold sections"),
    ] {
        assert_holds(&refused(Some(&path(name)), &[]), &[name, part, "hint: "]);
    }
}

#[test]
fn without_a_route_the_smallest_configuration_is_shown() {
    let folder = folder();
    for name in ["empty.toml", "empty.yaml", "comment.yaml"] {
        let file = folder.path().join(name);
        fs::write(&file, if name == "comment.yaml" { "# nothing\n---\n" } else { "" }).unwrap();
        assert_holds(&refused(Some(&file), &[]), &[name, "no route", "upstream = \"https://"]);
    }
    assert_holds(&refused(None, &[]), &["in the environment no route", "[routes.orders]"]);
}
