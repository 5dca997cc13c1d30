//! The store under a running sidecar: a disk that fails, another process, a restart.

use std::{fs, thread, time::Duration};

use tokio::time::Instant;

use super::{
    refresh::{Place, failed},
    secret_file, with,
};
use crate::support::{FakeServer, Reply, Rotation, Sidecar, echo, get, token};

const FAILING: &str = "attache_token_store_failing{credential=\"main\"}";

#[test]
fn f15_a_store_that_cannot_be_written_fails_no_request_and_is_tried_every_five_seconds() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let provider = rotation.serve();
    let upstream = FakeServer::start(|request| match request.line() {
        "GET /revoked HTTP/1.1" => Reply::text(401, ""),
        _ => Reply::text(200, request.fields("authorization")[0]),
    });
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    let before = place.store();
    // Where the next version would be written there is a folder: not even root can write there.
    let obstacle = place.folder.path().join("store.new");
    fs::create_dir(&obstacle).unwrap();
    get(sidecar.proxy, "/revoked");
    provider.wait_for(2);
    while sidecar.metric(FAILING) < 1.0 {
        assert_eq!(get(sidecar.proxy, "/").status, 200);
    }
    assert_eq!(sidecar.status()["store"], "unwritable");
    assert_eq!(get(sidecar.proxy, "/").text(), "Bearer token-3", "what came is in use");
    assert_eq!(place.store(), before, "the old file is as it was");
    fs::remove_dir(&obstacle).unwrap();
    let freed = Instant::now();
    while sidecar.metric(FAILING) > 0.0 {
        assert_eq!(get(sidecar.proxy, "/").status, 200);
    }
    assert!(freed.elapsed() < Duration::from_secs(8), "{:?}", freed.elapsed());
    assert!(place.store().contains("\"refresh-3\""));
    drop(sidecar);
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first", "refresh-2", "refresh-3"]);
}

#[test]
fn a_second_process_waits_for_the_store_and_presents_nothing_meanwhile() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let first = place.run(&provider, &upstream, "");
    first.ready();
    let second = place.run(&provider, &upstream, "");
    failed(&second, "store");
    assert_eq!(second.status()["store"], "in_use");
    assert_eq!(rotation.presented(), ["first"]);
    drop(first);
    second.ready();
    assert_eq!(rotation.presented(), ["first", "refresh-2"]);
}

/// A credential with a sealed store.
fn cached(provider: &FakeServer, folder: &std::path::Path, key: &std::path::Path, more: &str) -> String {
    format!(
        "token_endpoint = \"{}/token\"\nclient_id = \"c\"\nclient_auth = \"none\"\nstore = \"{}\"\n\
         store_key = {{ file = \"{}\" }}\n{more}",
        provider.url(),
        folder.join("store").display(),
        key.display()
    )
}

#[test]
fn a_crash_loop_spends_one_token_request() {
    let (folder, key) = (tempfile::tempdir().unwrap(), secret_file(&"k".repeat(32)));
    let provider = FakeServer::start(|request| token(request.number, 3600));
    let upstream = echo();
    let run =
        |more: &str| Sidecar::run(&with(&cached(&provider, folder.path(), key.path(), more), &upstream));
    for start in 0..4 {
        let sidecar = run("");
        sidecar.ready();
        assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"), "start {start}");
        // The one that asked has to have kept it.
        while !folder.path().join("store").exists() {
            thread::yield_now();
        }
    }
    assert_eq!(provider.received().len(), 1);
    // Any other configuration asks for a token of its own.
    let sidecar = run("scope = \"other\"");
    sidecar.ready();
    assert!(get(sidecar.proxy, "/").text().contains("Bearer token-2"));
    let bytes = fs::read(folder.path().join("store")).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"token-"));
}

#[test]
fn a_token_in_the_store_that_has_expired_is_not_used() {
    let (folder, key) = (tempfile::tempdir().unwrap(), secret_file(&"k".repeat(32)));
    let provider = FakeServer::start(|request| token(request.number, 1));
    let upstream = echo();
    for start in 1..3 {
        let lines = cached(&provider, folder.path(), key.path(), "");
        let sidecar = Sidecar::run(&with(&lines, &upstream));
        sidecar.ready();
        let seen = provider.received().len();
        provider.wait_for(seen + 1);
        assert!(seen >= start);
    }
}

#[test]
fn a_store_of_a_cache_that_is_garbage_costs_one_token_request_and_nothing_else() {
    let (folder, key) = (tempfile::tempdir().unwrap(), secret_file(&"k".repeat(32)));
    let path = folder.path().join("store");
    fs::write(&path, "garbage").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let provider = FakeServer::start(|request| token(request.number, 3600));
    let upstream = echo();
    let sidecar = Sidecar::run(&with(&cached(&provider, folder.path(), key.path(), ""), &upstream));
    sidecar.ready();
    while sidecar.status()["store"] != "ok" || fs::read(&path).unwrap() == b"garbage" {
        thread::yield_now();
    }
    assert_eq!(get(sidecar.proxy, "/").status, 200);
}

#[test]
fn what_is_wrong_with_a_store_is_said_before_anything_is_bound() {
    let key = secret_file(&"k".repeat(32));
    let folder = tempfile::tempdir().unwrap();
    let base = "type = \"client_credentials\"\ntoken_endpoint = \"http://127.0.0.1:1/t\"\nclient_id = \"c\"\nclient_auth = \"none\"";
    let key = format!("store_key = {{ file = \"{}\" }}", key.path().display());
    let store = format!("store = \"{}\"", folder.path().join("s").display());
    let route = "[routes.r]\nupstream = \"http://127.0.0.1:1\"\ncredential = \"a\"";
    let refresh = base.replace("client_credentials", "refresh_token");
    let initial = secret_file("first");
    let initial = format!("refresh_token = {{ file = \"{}\" }}", initial.path().display());
    for (credentials, at) in [
        (format!("[credentials.a]\n{base}\n{store}"), "credentials.a.store_key"),
        (format!("[credentials.a]\n{base}\n{key}"), "credentials.a.store_key"),
        (
            format!("[credentials.a]\n{base}\nmax_requests_per_hour = 0"),
            "credentials.a.max_requests_per_hour",
        ),
        (format!("[credentials.a]\n{base}\n{key}\nstore = \"/nowhere/s\""), "credentials.a.store"),
        (format!("[credentials.a]\n{refresh}\n{initial}"), "credentials.a.store"),
        (
            format!(
                "[credentials.a]\n{base}\n{store}\n{key}\n[credentials.b]\n{base}\nscope = \"x\"\n{store}\n{key}"
            ),
            "credentials.b.store",
        ),
    ] {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        fs::write(file.path(), format!("{credentials}\n{route}")).unwrap();
        let config = attache::config::load(Some(file.path()), []).unwrap();
        let invalid = attache::app::check(&config).unwrap_err();
        assert_eq!(invalid.key(), at);
        assert!(invalid.cure().is_some() || at.ends_with("hour"), "{invalid}");
    }
}
