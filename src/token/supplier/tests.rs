//! What a kept token belongs to, and a store that does not open at once.

use std::sync::Arc;

use tokio::time;

use super::*;
use crate::token::source::{
    SourceConfig,
    scripted::{Scripted, Step},
};

#[test]
fn a_token_that_is_bound_to_a_certificate_is_kept_for_that_certificate_only() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = |method: &str| {
        let source = format!(
            "{{\"client_id\":\"c\",\"client_auth\":\"{method}\",\"client_certificate\":\"{}\"}}",
            file.path().display()
        );
        let source = SourceConfig::ClientCredentials(serde_json::from_str(&source).unwrap());
        CredentialConfig { source, common: Default::default() }
    };
    let digests = || [digest(&config("tls_client_auth")), digest(&config("private_key_jwt"))];
    std::fs::write(file.path(), "one").unwrap();
    let [bound, free] = digests();
    std::fs::write(file.path(), "two").unwrap();
    let [bound_now, free_now] = digests();
    assert!(bound != bound_now && free == free_now);
}

#[test]
fn a_kept_token_belongs_to_all_that_its_request_depends_on_and_to_nothing_else() {
    let digest_with = |more: &str| {
        let endpoint = "\"token_endpoint\":\"https://idp.example/t\"";
        let json = format!("{{\"type\":\"client_credentials\",\"client_id\":\"c\",{endpoint}{more}}}");
        digest(&serde_json::from_str(&json).unwrap())
    };
    for (key, value) in [("scope", "\"x\""), ("audience", "\"x\""), ("resource", "[\"x\"]")] {
        assert_ne!(digest_with(&format!(",\"{key}\":{value}")), digest_with(""), "{key}");
    }
    for (key, value) in [("token_wait", "\"1s\""), ("required", "false"), ("max_requests_per_hour", "7")] {
        assert_eq!(digest_with(&format!(",\"{key}\":{value}")), digest_with(""), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_whose_disk_hangs_keeps_nobody_from_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let script = Scripted::new([Step::Token { lifetime: Duration::from_secs(60) }]);
    let store = Store::build(&folder.path().join("store"), None).unwrap();
    let hung = Arc::clone(&store.disk).lock_owned().await;
    let mut supplier = Supplier::of(Source::Scripted(script)).limited(9).stored(store);
    let now = Clock::default().now();
    let limit = Duration::from_secs(2);
    let (opened, ()) = tokio::join!(supplier.open(now, true), time::advance(limit));
    opened.unwrap();
    supplier.note(now).await.unwrap();
    supplier.fetch().await.unwrap();
    assert_eq!(supplier.status().store, Some("stalled"));
    drop(hung);
    supplier.open(now, true).await.unwrap();
    let hung = Arc::clone(&supplier.store.as_ref().unwrap().disk).lock_owned().await;
    let (noted, ()) = tokio::join!(supplier.note(now), time::advance(limit));
    noted.unwrap();
    supplier.fetch().await.unwrap();
    tokio::join!(supplier.tend(), time::advance(limit));
    assert_eq!(supplier.status().store, Some("stalled"));
    drop(hung);
    supplier.tend().await;
    assert_eq!(supplier.status().store, Some("ok"));
}

#[tokio::test]
async fn a_store_that_a_refresh_token_waits_for_is_opened_beside_the_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let (initial, path) = (folder.path().join("initial"), folder.path().join("store"));
    for (file, content) in [(&initial, "first"), (&path, "garbage")] {
        std::fs::write(file, content).unwrap();
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let json = format!(
        "{{\"type\":\"refresh_token\",\"client_id\":\"c\",\"client_auth\":\"none\",\"store\":\"{}\",\
         \"token_endpoint\":\"https://idp.example/t\",\"refresh_token\":{{\"file\":\"{}\"}}}}",
        path.display(),
        initial.display()
    );
    let clock = Clock::default();
    let mut supplier = Supplier::build(&serde_json::from_str(&json).unwrap(), &clock).unwrap();
    let now = clock.now();
    supplier.open(now, true).await.unwrap_err();
    assert!(!supplier.reopen(now).await);
    std::fs::remove_file(&path).unwrap();
    assert!(supplier.reopen(now).await, "a token can be asked for now");
    assert!(!supplier.reopen(now).await, "that is told once");
    assert_eq!(supplier.status().store, Some("ok"));
}
