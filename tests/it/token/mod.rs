//! The way of a token, over real sockets.

mod assertions;
mod client_auth;
mod discovery;
mod faults;
mod file;
mod github_app;
mod grants;
mod injected;
mod introspect;
mod metadata;
mod moved;
mod mutual_tls;
mod quota;
mod refresh;
mod refused;
mod reloaded;
mod secrets;
mod shared;
mod store;
mod verify;

use std::io::Write as _;

use crate::support::FakeServer;

/// A credential of `provider` with these lines instead of the usual ones, and a route to `upstream`.
fn with(lines: &str, upstream: &FakeServer) -> String {
    format!(
        "[credentials.main]\ntype = \"client_credentials\"\n{lines}\n[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        upstream.url()
    )
}

/// The fields of a form, in their order.
fn form(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).into_owned().collect()
}

/// A file that holds a secret.
fn secret_file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}
