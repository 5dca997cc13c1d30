//! Credentials of type `file`.

use std::{fs, thread};

use super::secret_file;
use crate::support::{FakeServer, Reply, Sidecar, echo, get};

fn sidecar(token: &std::path::Path, upstream: &FakeServer, lines: &str) -> Sidecar {
    Sidecar::run(&format!(
        "[credentials.main]\ntype = \"file\"\ntoken = {{ file = \"{}\" }}\n[routes.main]\nupstream = \"{}\"\n\
         credential = \"main\"\n{lines}\n",
        token.display(),
        upstream.url()
    ))
}

#[test]
fn a_key_from_a_file_is_injected_and_a_new_one_within_ten_seconds() {
    let (file, upstream) = (secret_file("one\n"), echo());
    let inject = "inject = { header = \"x-api-key\", format = \"Key {token}\" }";
    let sidecar = sidecar(file.path(), &upstream, inject);
    let key = || get(sidecar.proxy, "/").text();
    assert!(key().to_ascii_lowercase().contains("x-api-key: key one\r\n"), "{}", key());
    fs::write(file.path(), "two").unwrap();
    let begun = tokio::time::Instant::now();
    while !key().to_ascii_lowercase().contains("x-api-key: key two\r\n") {
        assert!(begun.elapsed().as_secs() < 10);
        thread::yield_now();
    }
    fs::write(file.path(), "").unwrap();
    assert!(key().to_ascii_lowercase().contains("x-api-key: key two\r\n"));
}

#[test]
fn a_request_refused_with_a_key_is_not_sent_again_with_the_same_key() {
    let (file, upstream) = (secret_file("one"), FakeServer::start(|_| Reply::text(401, "no")));
    let sidecar = sidecar(file.path(), &upstream, "");
    assert_eq!(get(sidecar.proxy, "/").status, 401);
    assert_eq!(upstream.received().len(), 1);
}
