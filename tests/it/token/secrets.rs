//! Secrets: replaced while it runs, and never shown.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use super::{form, with};
use crate::support::{FakeServer, Reply, Sidecar, echo, get, token};

/// Makes `folder/..data` point to a new folder that holds the secret, as the kubelet does.
fn mount(folder: &Path, version: &str, secret: &str) {
    let data = folder.join(version);
    fs::create_dir(&data).unwrap();
    fs::write(data.join("secret"), secret).unwrap();
    fs::set_permissions(data.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&data, folder.join("..next")).unwrap();
    fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
}

fn lines(provider: &FakeServer, secret: &Path) -> String {
    format!(
        "token_endpoint = \"{}/token\"\nclient_id = \"c\"\nclient_auth = \"client_secret_post\"\n\
         client_secret = {{ file = \"{}\" }}",
        provider.url(),
        secret.display()
    )
}

#[test]
fn f13_a_secret_that_is_swapped_by_a_symbolic_link_is_used_within_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "..1", "old");
    symlink("..data/secret", folder.path().join("secret")).unwrap();
    let provider = FakeServer::start(|request| token(request.number, 3600));
    let upstream = echo();
    let sidecar = Sidecar::run(&with(&lines(&provider, &folder.path().join("secret")), &upstream));
    sidecar.ready();
    mount(folder.path(), "..2", "new");
    let swapped = Instant::now();
    let received = provider.wait_for(2);
    assert!(swapped.elapsed() < Duration::from_secs(10));
    let secret = |number: usize| form(&received[number].body).pop().unwrap().1;
    assert_eq!((secret(0), secret(1)), ("old".into(), "new".into()));
    assert_eq!(get(sidecar.proxy, "/").status, 200);
}

#[test]
fn no_secret_and_no_token_is_in_status_or_metrics_whatever_the_provider_says() {
    let (secret, token) = ("Hunter2-secret", "eyJ-token");
    let file = super::secret_file(secret);
    let provider = FakeServer::start(move |request| match request.number {
        // A provider that gives back what it was sent.
        1 => Reply::json(400, &format!("{{\"error\":\"{secret}\",\"error_description\":\"{secret}\"}}")),
        _ => Reply::json(200, &format!("{{\"access_token\":\"{token}\",\"scope\":\"{secret}\"}}")),
    });
    let upstream = echo();
    let sidecar = Sidecar::run(&with(&lines(&provider, file.path()), &upstream));
    let look = || {
        for page in ["/status", "/metrics", "/readyz", "/healthz"] {
            let answer = get(sidecar.admin, page);
            for hidden in [secret, token] {
                assert!(!answer.text().contains(hidden) && !answer.head.contains(hidden), "{page}");
            }
        }
    };
    provider.wait_for(2);
    look();
    sidecar.ready();
    look();
    assert!(get(sidecar.proxy, "/").text().contains(token));
}
