//! How what is injected stands in a request: another header, another scheme, Basic.

use std::fs;

use super::secret_file;
use crate::support::{FakeServer, Sidecar, echo, get};

fn header(answer: &str, name: &str) -> Vec<String> {
    let fields = answer.lines().filter_map(|line| line.split_once(": "));
    fields
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

fn sidecar(credential: &str, inject: &str, upstream: &FakeServer) -> Sidecar {
    Sidecar::run(&format!(
        "[credentials.main]\n{credential}\n[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n{inject}\n",
        upstream.url()
    ))
}

#[test]
fn a_token_stands_in_the_header_and_the_format_of_the_route() {
    let key = secret_file("key-1\n");
    let file = format!("type = \"file\"\ntoken = {{ file = \"{}\" }}", key.path().display());
    for (inject, name, value) in [
        ("", "authorization", "Bearer key-1"),
        ("inject = { header = \"X-Api-Key\", format = \"{token}\" }", "x-api-key", "key-1"),
        ("inject = { format = \"Token {token}\" }", "authorization", "Token key-1"),
        ("inject = { header = \"private-token\" }", "private-token", "Bearer key-1"),
        (
            "inject = { format = \"Token token=\\\"{token}\\\", v=1\" }",
            "authorization",
            "Token token=\"key-1\", v=1",
        ),
    ] {
        let upstream = echo();
        let sidecar = sidecar(&file, inject, &upstream);
        let answer = get(sidecar.proxy, "/");
        assert_eq!(header(&answer.text(), name), [value], "{inject}");
        assert_eq!(header(&answer.text(), "authorization").is_empty(), name != "authorization");
    }
}

#[test]
fn basic_is_made_of_two_secrets_and_follows_either() {
    let (user, password) = (secret_file("Aladdin\n"), secret_file("open sesame"));
    let credential = format!(
        "type = \"basic\"\nuser = {{ file = \"{}\" }}\npassword = {{ file = \"{}\" }}",
        user.path().display(),
        password.path().display()
    );
    let upstream = echo();
    let sidecar = sidecar(&credential, "", &upstream);
    // The example of RFC 7617 §2.
    let sent = || header(&get(sidecar.proxy, "/").text(), "authorization");
    assert_eq!(sent(), ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
    // A user name that cannot be sent changes nothing; then a password with everything in it does.
    fs::write(user.path(), "a:b").unwrap();
    fs::write(password.path(), "pä:ss").unwrap();
    while sent() == ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="] {
        fs::write(user.path(), "Aladdin").unwrap();
        std::thread::yield_now();
    }
    assert_eq!(sent(), ["Basic QWxhZGRpbjpww6Q6c3M="]);
    // In a header of its own, without the scheme.
    let upstream = echo();
    let sidecar =
        self::sidecar(&credential, "inject = { header = \"x-auth\", format = \"{token}\" }", &upstream);
    assert_eq!(header(&get(sidecar.proxy, "/").text(), "x-auth"), ["QWxhZGRpbjpww6Q6c3M="]);
}
