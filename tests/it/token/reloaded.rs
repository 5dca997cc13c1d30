//! What a section that has changed goes on with.

use std::collections::BTreeMap;

use attache::token::{Credential, CredentialConfig, Manager, Phase, State};
use tokio::time::Instant;

use super::refresh::environment;
use crate::support::{FakeServer, Reply, token};

/// Gives one token, and is down from then on.
fn provider() -> FakeServer {
    FakeServer::start(|request| match request.number {
        1 => token(1, 3600),
        _ => Reply::text(503, ""),
    })
}

fn section(provider: &FakeServer, more: &str) -> BTreeMap<String, CredentialConfig> {
    let json = format!(
        "{{\"type\":\"client_credentials\",\"client_id\":\"c\",\"client_auth\":\"none\",\"token_endpoint\":\"{}/token\"{more}}}",
        provider.url()
    );
    [("main".to_owned(), serde_json::from_str(&json).unwrap())].into()
}

#[tokio::test]
async fn a_change_that_cannot_matter_to_the_token_leaves_it_in_use_while_the_provider_is_down() {
    let (provider, environment) = (provider(), environment());
    let first = section(&provider, ",\"max_requests_per_hour\":60");
    let mut manager = Manager::build(&first, &environment).unwrap();
    manager.start();
    let held = manager.credential("main").unwrap().wait().await.unwrap();
    let before = manager.statuses().remove(0);
    for more in [
        ",\"max_requests_per_hour\":60,\"token_wait\":\"1s\"",
        ",\"max_requests_per_hour\":2,\"token_wait\":\"1s\"",
        ",\"max_requests_per_hour\":2,\"required\":false",
    ] {
        let new = Manager::build_after(Some(&manager), &section(&provider, more), &environment).unwrap();
        assert!(new.credential("main").unwrap().current().is_none(), "it may not come into force");
        new.start();
        let current =
            new.credential("main").unwrap().current().expect("it is there before a request can come");
        assert_eq!((current.header(), current.generation()), (held.header(), held.generation()));
        manager = new;
        // Once its refresher has begun, it is the refresher that tells.
        while manager.statuses()[0].supply.quota.is_none() {
            tokio::task::yield_now().await;
        }
        let status = manager.statuses().remove(0);
        assert_eq!(status.supply.quota.unwrap().sent, 1, "{more}");
        assert_eq!((status.expires_at, status.last_error), (before.expires_at, None));
        assert_eq!(status.lifetime_seconds, before.lifetime_seconds);
        let next = status.next_attempt_in_seconds.unwrap();
        assert!(before.next_attempt_in_seconds.unwrap() - next < 60, "{next}");
    }
    assert_eq!(provider.received().len(), 1);
    let shown = String::from_utf8(environment.metrics.render()).unwrap();
    assert!(shown.contains("attache_credential_ready{credential=\"main\"} 1"), "{shown}");
}

#[tokio::test]
async fn such_a_change_forgets_no_failure_and_asks_no_sooner() {
    let (provider, environment) = (provider(), environment());
    let old = Manager::build(&section(&provider, ""), &environment).unwrap();
    old.start();
    let credential = old.credential("main").unwrap();
    let held = credential.wait().await.unwrap();
    credential.reject(held.generation());
    let planned = backing_off(&credential).await;
    let before = old.statuses().remove(0);
    let new =
        Manager::build_after(Some(&old), &section(&provider, ",\"required\":false"), &environment).unwrap();
    new.start();
    drop(old);
    // As long as its refresher has not begun, and then.
    while new.credential("main").unwrap().phase() == Phase::Fetching {
        let status = new.statuses().remove(0);
        assert_eq!((status.state, &status.last_error), (State::Failing, &before.last_error));
        tokio::task::yield_now().await;
    }
    let Phase::BackingOff(next) = new.credential("main").unwrap().phase() else { panic!("it rests") };
    let status = new.statuses().remove(0);
    assert_eq!((status.state, status.last_error), (State::Failing, before.last_error));
    assert!(next >= planned);
    assert_eq!(provider.received().len(), 2);
}

#[tokio::test]
async fn a_limit_that_is_raised_while_it_holds_a_request_back_lets_it_go() {
    let (provider, environment) = (FakeServer::start(|request| token(request.number, 3600)), environment());
    let limit = |count| section(&provider, &format!(",\"max_requests_per_hour\":{count}"));
    let old = Manager::build(&limit(1), &environment).unwrap();
    old.start();
    let credential = old.credential("main").unwrap();
    let held = credential.wait().await.unwrap();
    credential.reject(held.generation());
    backing_off(&credential).await;
    assert_eq!(provider.received().len(), 1);
    let new = Manager::build_after(Some(&old), &limit(60), &environment).unwrap();
    new.start();
    drop(old);
    let credential = new.credential("main").unwrap();
    while credential.phase() != Phase::Resting {
        tokio::task::yield_now().await;
    }
    assert_eq!(provider.received().len(), 2);
    assert_ne!(credential.current().unwrap().header(), held.header());
}

/// Until when it does, once an attempt has failed.
async fn backing_off(credential: &Credential) -> Instant {
    loop {
        if let Phase::BackingOff(next) = credential.phase() {
            return next;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_that_may_matter_to_the_token_asks_for_a_new_one() {
    for more in [",\"scope\":\"less\"", ",\"default_lifetime\":\"1m\"", ",\"parameters\":{\"a\":\"b\"}"] {
        let (provider, environment) = (provider(), environment());
        let old = Manager::build(&section(&provider, ""), &environment).unwrap();
        old.start();
        old.credential("main").unwrap().wait().await.unwrap();
        let new = Manager::build_after(Some(&old), &section(&provider, more), &environment).unwrap();
        new.start();
        drop(old);
        assert!(new.credential("main").unwrap().wait().await.is_err(), "{more}");
        assert_eq!(provider.received().len(), 2, "{more}");
    }
}
