//! A refresh token whose provider, or whose client, is another one in the configuration than it was.

use super::{
    refresh::{Place, failed},
    secret_file,
};
use crate::support::{FakeServer, Rotation, Sidecar, echo};

fn run(place: &Place, provider: &str, client_id: &str, upstream: &FakeServer, more: &str) -> Sidecar {
    Sidecar::run(&format!(
        "[credentials.main]\ntype = \"refresh_token\"\n{provider}\nclient_id = \"{client_id}\"\nclient_auth = \"none\"\n\
         refresh_token = {{ file = \"{}\" }}\nstore = \"{}\"\n{more}\n\
         [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        place.path("initial"),
        place.path("store"),
        upstream.url()
    ))
}

#[test]
fn an_issuer_beside_the_same_endpoint_changes_nothing_and_the_spent_token_is_never_presented_again() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    run(&place, &endpoint, "c", &upstream, "").ready();
    // What an earlier version wrote lacks what tells the token from whom it is presented to.
    let written: serde_json::Value = serde_json::from_str(&place.store()).unwrap();
    let mut earlier = written.clone();
    for digest in ["initial", "audience"] {
        assert!(earlier["refresh"].as_object_mut().unwrap().remove(digest).is_some(), "{written}");
    }
    std::fs::write(place.path("store"), earlier.to_string()).unwrap();
    let both = format!("issuer = \"{}\"\n{endpoint}", provider.url());
    run(&place, &both, "c", &upstream, "").ready();
    let issuer = format!("issuer = \"{}\"", provider.url());
    for (provider, client_id) in [(&issuer, "c"), (&endpoint, "d")] {
        let sidecar = run(&place, provider, client_id, &upstream, "");
        failed(&sidecar, "store");
        let error = sidecar.status()["last_error"].to_string();
        assert!(error.contains("another provider") && error.contains("bring back"), "{error}");
    }
    assert_eq!(rotation.presented(), ["first", "refresh-2"]);
    let sidecar = run(&place, &endpoint, "d", &upstream, "");
    failed(&sidecar, "store");
    rotation.accept("anew");
    place.initial("anew");
    sidecar.ready();
    assert_eq!((rotation.presented().len(), rotation.reused()), (3, 0));
}

#[test]
fn what_another_provider_gave_is_not_presented_when_a_new_token_is_refused() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    run(&place, &endpoint, "c", &upstream, "").ready();
    place.initial("no good");
    let sidecar = run(&place, &endpoint, "d", &upstream, "");
    failed(&sidecar, "refresh_token_refused");
    provider.wait_for(2);
    assert_eq!(rotation.presented(), ["first", "no good"]);
}

#[test]
fn the_fallback_grant_takes_over_where_the_token_came_from_another_provider() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    run(&place, &endpoint, "c", &upstream, "").ready();
    run(&place, &endpoint, "d", &upstream, "fallback = \"client_credentials\"").ready();
    assert_eq!(rotation.presented(), ["first", "client_credentials"]);
}

#[test]
fn an_access_token_in_the_store_is_used_as_long_as_the_refresh_token_speaks_for_the_same_account() {
    let (place, rotation, key) = (Place::new(), Rotation::new("first"), secret_file(&"k".repeat(32)));
    let (provider, upstream) = (rotation.serve(), echo());
    let sealed = format!("store_key = {{ file = \"{}\" }}", key.path().display());
    for _ in 0..2 {
        place.run(&provider, &upstream, &sealed).ready();
        assert_eq!(rotation.presented(), ["first"], "a restart needs no token request");
    }
    rotation.accept("of another account");
    place.initial("of another account");
    place.run(&provider, &upstream, &sealed).ready();
    assert_eq!(rotation.presented(), ["first", "of another account"]);
}

#[test]
fn what_is_never_presented_takes_nothing_of_the_limit() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let endpoint = format!("token_endpoint = \"{}/token\"", provider.url());
    run(&place, &endpoint, "c", &upstream, "").ready();
    let sidecar = run(&place, &endpoint, "d", &upstream, "max_requests_per_hour = 5");
    failed(&sidecar, "store");
    assert_eq!(sidecar.status()["quota"]["sent"], 0);
    rotation.accept("anew");
    place.initial("anew");
    sidecar.ready();
    assert_eq!(sidecar.status()["quota"]["sent"], 1);
}
