//! Refresh tokens: rotation, the store, lost answers, the end of a family.

use std::{fs, path::Path, thread};

use attache::token::Manager;

use crate::support::{FakeServer, Mood, Reply, Rotation, Sidecar, echo, get, token};

/// A place for the initial token and the store, and the configuration that names them.
pub(super) struct Place {
    pub(super) folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.initial("first");
        place
    }

    pub(super) fn initial(&self, token: &str) {
        fs::write(self.folder.path().join("initial"), token).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(self.folder.path().join("initial"), mode).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(super) fn store(&self) -> String {
        fs::read_to_string(self.folder.path().join("store")).unwrap_or_default()
    }

    pub(super) fn run(&self, provider: &FakeServer, upstream: &FakeServer, more: &str) -> Sidecar {
        Sidecar::run(&format!(
            "[credentials.main]\ntype = \"refresh_token\"\ntoken_endpoint = \"{}/token\"\nclient_id = \"c\"\n\
             client_auth = \"none\"\nrefresh_token = {{ file = \"{}\" }}\nstore = \"{}\"\n{more}\n\
             [routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
            provider.url(),
            self.path("initial"),
            self.path("store"),
            upstream.url()
        ))
    }
}

/// Waits until the last error is this one.
pub(super) fn failed(sidecar: &Sidecar, reason: &str) {
    while sidecar.status()["last_error"]["reason"] != reason {
        thread::yield_now();
    }
}

/// Answers 401 to `/revoked`.
pub(super) fn revoking() -> FakeServer {
    FakeServer::start(|request| match request.line() {
        "GET /revoked HTTP/1.1" => Reply::text(401, ""),
        _ => Reply::text(200, request.fields("authorization")[0]),
    })
}

#[test]
fn promise_11_a_rotated_refresh_token_is_on_disk_before_its_access_token_is_used() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let provider = rotation.serve();
    let store = place.folder.path().join("store");
    let upstream = FakeServer::start(move |request| {
        let token = request.fields("authorization")[0].to_owned();
        let number = token.strip_prefix("Bearer token-").unwrap();
        let stored = fs::read_to_string(&store).unwrap();
        assert!(stored.contains(&format!("\"refresh-{number}\"")), "{token}");
        Reply::text(if number == "2" { 401 } else { 200 }, "")
    });
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    assert_eq!(get(sidecar.proxy, "/").status, 200, "refused once, replaced, sent again");
    assert_eq!(rotation.presented(), ["first", "refresh-2"]);
    assert_eq!(sidecar.metric("attache_token_store_failing{credential=\"main\"}"), 0.0);
    assert_eq!(sidecar.metric("attache_refresh_token_usable{credential=\"main\"}"), 1.0);
}

#[test]
fn f14_each_start_goes_on_where_the_last_one_ended() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    for number in 2..6 {
        let sidecar = place.run(&provider, &upstream, "");
        sidecar.ready();
        assert!(get(sidecar.proxy, "/").text().contains(&format!("token-{number}")));
    }
    assert_eq!(rotation.presented(), ["first", "refresh-2", "refresh-3", "refresh-4"]);
}

#[test]
fn an_answer_lost_in_transit_is_retried_exactly_once_and_then_slowly() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    rotation.moods([Mood::Loses]);
    let sidecar = place.run(&provider, &upstream, "");
    failed(&sidecar, "refresh_token_in_doubt");
    assert_eq!(rotation.presented(), ["first", "first"]);
    let status = sidecar.status();
    assert_eq!(status["refresh_token"]["state"], "in_doubt");
    assert!(status["next_attempt_in_seconds"].as_u64().unwrap() > 200, "{status}");
    assert!(!place.store().contains("refresh-"));
}

#[test]
fn one_lost_answer_is_made_good_by_the_retry() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    rotation.moods([Mood::Loses, Mood::Well]);
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first", "first"]);
    assert!(place.store().contains("\"refresh-3\""));
    assert_eq!(sidecar.status()["refresh_token"]["state"], "usable");
}

#[test]
fn a_provider_that_is_down_by_its_own_word_or_a_gateways_leaves_no_doubt() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    rotation.moods([503, 502, 504].map(Mood::Down).into_iter().chain([Mood::Well]));
    // The fallback does not take over for it: nothing may lead back from there.
    let sidecar = place.run(&provider, &upstream, "fallback = \"client_credentials\"");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first"; 4]);
    assert_eq!(sidecar.status()["refresh_token"]["state"], "usable");
}

#[test]
fn an_error_with_status_200_is_an_answer_and_leaves_no_doubt() {
    // A word that says that a later try can help, three times.
    let provider = FakeServer::start(|request| match request.number {
        1..=3 => Reply::json(200, "{\"error\":\"temporarily_unavailable\"}"),
        number => token(number, 3600),
    });
    let (place, upstream) = (Place::new(), echo());
    let sidecar = place.run(&provider, &upstream, "");
    failed(&sidecar, "oauth_error");
    sidecar.ready();
    assert_eq!(sidecar.status()["refresh_token"]["state"], "usable");
    assert_eq!(provider.received().len(), 4);
}

#[test]
fn a_refresh_token_that_github_refuses_is_refused() {
    let provider = FakeServer::start(|_| {
        Reply::json(200, "{\"error\":\"bad_refresh_token\",\"error_description\":\"incorrect or expired\"}")
    });
    let (place, upstream) = (Place::new(), echo());
    let sidecar = place.run(&provider, &upstream, "");
    failed(&sidecar, "refresh_token_refused");
    assert_eq!(sidecar.status()["refresh_token"]["state"], "refused");
}

#[test]
fn an_answer_that_a_gateway_loses_is_made_good_by_the_retry() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    rotation.moods([Mood::LosesAtGateway, Mood::Well]);
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first", "first"]);
    assert!(rotation.reused() == 0 && place.store().contains("\"refresh-3\""));
}

#[test]
fn a_refused_refresh_token_is_told_everywhere_and_a_new_one_heals_it() {
    let (place, rotation) = (Place::new(), Rotation::new("other"));
    let (provider, upstream) = (rotation.serve(), echo());
    let strict = "[admin]\nreadiness = \"strict\"";
    let sidecar = place.run(&provider, &upstream, &format!("required = true\n{strict}"));
    failed(&sidecar, "refresh_token_refused");
    let status = sidecar.status();
    assert_eq!(status["refresh_token"]["state"], "refused");
    assert!(status["last_error"]["hint"].as_str().unwrap().contains("refresh_token"));
    assert_eq!(sidecar.metric("attache_refresh_token_usable{credential=\"main\"}"), 0.0);
    let refused = "attache_token_refreshes_total{credential=\"main\",outcome=\"rejected\"}";
    assert_eq!(sidecar.metric(refused), 1.0);
    assert_eq!(get(sidecar.admin, "/readyz").status, 503);
    assert_eq!(get(sidecar.proxy, "/").status, 503);
    assert_eq!(rotation.presented(), ["first"], "it is not presented again soon");
    place.initial("other");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first", "other"]);
    assert_eq!(sidecar.metric("attache_refresh_token_usable{credential=\"main\"}"), 1.0);
    assert_eq!(get(sidecar.proxy, "/").status, 200);
}

#[test]
fn the_fallback_grant_takes_over_and_begins_a_new_family() {
    let (place, rotation) = (Place::new(), Rotation::new("other"));
    let (provider, upstream) = (rotation.serve(), echo());
    let sidecar = place.run(&provider, &upstream, "fallback = \"client_credentials\"");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first", "client_credentials"]);
    drop(sidecar);
    let sidecar = place.run(&provider, &upstream, "fallback = \"client_credentials\"");
    sidecar.ready();
    assert_eq!(rotation.presented(), ["first", "client_credentials", "refresh-2"]);
}

#[test]
fn the_fallback_can_be_a_user_and_its_password() {
    let (place, rotation) = (Place::new(), Rotation::new("other"));
    let (provider, upstream) = (rotation.serve(), echo());
    let more = format!(
        "fallback = \"password\"\nusername = \"robot\"\npassword = {{ file = \"{}\" }}",
        place.path("initial")
    );
    let sidecar = place.run(&provider, &upstream, &more);
    sidecar.ready();
    let form = super::form(&provider.received()[1].body);
    for field in [("grant_type", "password"), ("username", "robot"), ("password", "first")] {
        assert!(form.contains(&(field.0.into(), field.1.into())), "{field:?}");
    }
}

#[test]
fn a_new_initial_token_that_is_no_good_leaves_the_family_in_use() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), revoking());
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    place.initial("half of a tok");
    provider.wait_for(3);
    while sidecar.status()["state"] != "fresh" {
        thread::yield_now();
    }
    assert_eq!(rotation.presented(), ["first", "half of a tok", "refresh-2"]);
    rotation.accept("a whole one");
    place.initial("a whole one");
    // The fake counts a request when it has come, and notes its token a moment later.
    while rotation.presented().len() < 4 {
        thread::yield_now();
    }
    assert_eq!(rotation.presented()[3], "a whole one");
    assert_eq!(rotation.reused(), 0);
}

#[test]
fn when_a_family_ends_is_shown_once_the_provider_has_said_so_twice() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), revoking());
    rotation.fields(",\"refresh_token_expires_in\":86400");
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    assert!(sidecar.status()["refresh_token"]["ends_at"].is_null());
    get(sidecar.proxy, "/revoked");
    provider.wait_for(2);
    while sidecar.status()["refresh_token"]["ends_at"].is_null() {
        thread::yield_now();
    }
    let [began, ends] = ["start", "end"].map(|edge| {
        sidecar
            .metric(&format!("attache_refresh_token_family_{edge}_timestamp_seconds{{credential=\"main\"}}"))
    });
    assert!((86_390.0..=86_410.0).contains(&(ends - began)), "{began} {ends}");
}

#[test]
fn a_configured_lifetime_is_shown_from_the_first_token_on() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let sidecar = place.run(&provider, &upstream, "family_lifetime = \"720h\"");
    sidecar.ready();
    let family = &sidecar.status()["refresh_token"];
    let told = |name: &str| family[name].as_u64().unwrap();
    assert_eq!(told("ends_at") - told("began_at"), 720 * 3600);
}

#[test]
fn no_refresh_token_is_in_status_or_metrics() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    for page in ["/status", "/metrics", "/readyz"] {
        let text = get(sidecar.admin, page).text();
        assert!(!text.contains("refresh-2") && !text.contains("\"first\""), "{page}");
    }
    assert!(Path::new(&place.path("store")).exists());
}

#[test]
fn a_rotation_under_way_is_finished_before_the_process_ends() {
    let place = Place::new();
    // The provider has replaced the token, and answers once the end has begun.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let provider = FakeServer::start(move |_| {
        held.lock().unwrap().recv().unwrap();
        Reply::json(200, "{\"access_token\":\"t\",\"expires_in\":60,\"refresh_token\":\"refresh-2\"}")
    });
    let upstream = echo();
    let sidecar = place.run(&provider, &upstream, "");
    provider.wait_for(1);
    sidecar.trigger.advance(attache::shutdown::Stage::Leaving);
    while get(sidecar.admin, "/readyz").text().contains("\"draining\":false") {
        thread::yield_now();
    }
    release.send(()).unwrap();
    sidecar.ended();
    assert!(place.store().contains("\"refresh-2\""), "{}", place.store());
}

pub(super) fn environment() -> attache::token::Environment {
    use attache::{
        readiness::Readiness, telemetry::metrics::Metrics, telemetry::traces::Tracer, token::Clock,
    };
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    attache::token::Environment { clock: Clock::default(), readiness, metrics, traces: Tracer::default() }
}

/// The section of the place, with this scope.
fn section(
    place: &Place,
    provider: &FakeServer,
    scope: &str,
) -> std::collections::BTreeMap<String, attache::token::CredentialConfig> {
    let json = format!(
        "{{\"type\":\"refresh_token\",\"client_id\":\"c\",\"client_auth\":\"none\",\"scope\":\"{scope}\",\
         \"token_endpoint\":\"{}/token\",\"refresh_token\":{{\"file\":\"{}\"}},\"store\":\"{}\"}}",
        provider.url(),
        place.path("initial"),
        place.path("store")
    );
    [("main".to_owned(), serde_json::from_str(&json).unwrap())].into()
}

#[tokio::test]
async fn a_changed_section_goes_on_with_the_family_of_the_old_one() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, environment) = (rotation.serve(), environment());
    let old = Manager::build(&section(&place, &provider, "a"), &environment).unwrap();
    old.start();
    old.credential("main").unwrap().wait().await.unwrap();
    let new = Manager::build_after(Some(&old), &section(&place, &provider, "b"), &environment).unwrap();
    new.start();
    drop(old);
    new.credential("main").unwrap().wait().await.unwrap();
    assert_eq!(rotation.presented(), ["first", "refresh-2"]);
    new.finish().await;
}

#[tokio::test]
async fn a_changed_section_also_goes_on_with_what_the_disk_has_not_taken() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, environment) = (rotation.serve(), environment());
    let obstacle = place.folder.path().join("store.new");
    fs::create_dir(&obstacle).unwrap();
    let mut manager = Manager::build(&section(&place, &provider, "a"), &environment).unwrap();
    manager.start();
    manager.credential("main").unwrap().wait().await.unwrap();
    for scope in ["b", "c"] {
        let new =
            Manager::build_after(Some(&manager), &section(&place, &provider, scope), &environment).unwrap();
        new.start();
        manager = new;
        manager.credential("main").unwrap().wait().await.unwrap();
    }
    assert_eq!(rotation.presented(), ["first", "refresh-2", "refresh-3"]);
    assert_eq!(place.store(), "");
    fs::remove_dir(&obstacle).unwrap();
    manager.finish().await;
    assert!(place.store().contains("\"refresh-4\""));
}

#[tokio::test]
async fn a_section_that_is_gone_for_a_while_goes_on_with_what_the_disk_has_not_taken() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, environment) = (rotation.serve(), environment());
    let obstacle = place.folder.path().join("store.new");
    fs::create_dir(&obstacle).unwrap();
    let sections = section(&place, &provider, "a");
    let old = Manager::build(&sections, &environment).unwrap();
    old.start();
    old.credential("main").unwrap().wait().await.unwrap();
    let without = Manager::build_after(Some(&old), &Default::default(), &environment).unwrap();
    without.start();
    drop(old);
    let new = Manager::build_after(Some(&without), &sections, &environment).unwrap();
    new.start();
    new.credential("main").unwrap().wait().await.unwrap();
    assert_eq!(rotation.presented(), ["first", "refresh-2"]);
    fs::remove_dir(&obstacle).unwrap();
    new.finish().await;
    assert!(place.store().contains("\"refresh-3\""));
}

#[tokio::test]
async fn a_store_that_is_moved_by_a_reload_is_refused_and_nothing_is_presented() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, environment) = (rotation.serve(), environment());
    let sections = section(&place, &provider, "a");
    let old = Manager::build(&sections, &environment).unwrap();
    old.start();
    old.credential("main").unwrap().wait().await.unwrap();
    let mut elsewhere = sections.clone();
    elsewhere.get_mut("main").unwrap().common.store = Some(place.folder.path().join("elsewhere"));
    let invalid = Manager::build_after(Some(&old), &elsewhere, &environment).unwrap_err();
    assert_eq!(invalid.key(), "credentials.main.store");
    assert!(invalid.cure().unwrap().contains("move the file"), "{invalid}");
    // What was kept in memory only has no file that could be moved.
    let json = format!(
        "{{\"type\":\"refresh_token\",\"client_id\":\"c\",\"client_auth\":\"none\",\"unsafe_no_store\":true,\
         \"token_endpoint\":\"{}/token\",\"refresh_token\":{{\"file\":\"{}\"}}}}",
        provider.url(),
        place.path("initial")
    );
    let without = [("main".to_owned(), serde_json::from_str(&json).unwrap())].into();
    let forgetful = Manager::build(&without, &environment).unwrap();
    let invalid = Manager::build_after(Some(&forgetful), &sections, &environment).unwrap_err();
    assert!(invalid.cure().unwrap().contains("a new refresh token"), "{invalid}");
    // Under another name it is another credential, and the same section is the same one.
    let renamed = [("other".to_owned(), sections["main"].clone())].into();
    let new = Manager::build_after(Some(&old), &renamed, &environment).unwrap();
    new.start();
    drop(old);
    new.credential("other").unwrap().wait().await.unwrap();
    assert_eq!(rotation.presented(), ["first"]);
    new.finish().await;
}

#[tokio::test]
async fn a_section_that_becomes_another_credential_shows_nothing_of_the_one_before() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, environment) = (rotation.serve(), environment());
    let shown = || String::from_utf8(environment.metrics.render()).unwrap();
    let old = Manager::build(&section(&place, &provider, "a"), &environment).unwrap();
    old.start();
    old.credential("main").unwrap().wait().await.unwrap();
    while !shown().contains("attache_refresh_token_usable{credential=\"main\"} 1") {
        tokio::task::yield_now().await;
    }
    rotation.moods([Mood::Down(503)]);
    let json = format!(
        "{{\"type\":\"client_credentials\",\"client_id\":\"c\",\"client_auth\":\"none\",\"token_endpoint\":\"{}/token\"}}",
        provider.url()
    );
    let changed = [("main".to_owned(), serde_json::from_str(&json).unwrap())].into();
    let new = Manager::build_after(Some(&old), &changed, &environment).unwrap();
    assert!(
        shown().contains("attache_credential_ready{credential=\"main\"} 1"),
        "it may not come into force"
    );
    new.start();
    drop(old);
    let shown = shown();
    assert!(shown.contains("attache_credential_ready{credential=\"main\"} 0"), "{shown}");
    for gone in ["attache_refresh_token", "attache_token_store_failing"] {
        assert!(!shown.lines().any(|line| line.starts_with(gone)), "{shown}");
    }
    assert!(shown.contains("attache_token_refreshes_total{credential=\"main\",outcome=\"success\"} 1"));
}

#[test]
fn what_could_not_be_written_is_tried_once_more_at_the_end() {
    let (place, rotation) = (Place::new(), Rotation::new("first"));
    let (provider, upstream) = (rotation.serve(), echo());
    let obstacle = place.folder.path().join("store.new");
    fs::create_dir(&obstacle).unwrap();
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    fs::remove_dir(&obstacle).unwrap();
    sidecar.trigger.advance(attache::shutdown::Stage::Draining);
    sidecar.ended();
    assert!(place.store().contains("\"refresh-2\""), "{}", place.store());
}

#[test]
fn a_refresh_token_that_comes_with_an_access_token_of_no_use_is_kept_and_used() {
    let (place, upstream) = (Place::new(), echo());
    let provider = FakeServer::start(|request| {
        let kind = if request.number == 1 { "mac" } else { "Bearer" };
        let number = request.number + 1;
        Reply::json(
            200,
            &format!(
                "{{\"access_token\":\"a\",\"token_type\":\"{kind}\",\"expires_in\":3600,\"refresh_token\":\"refresh-{number}\"}}"
            ),
        )
    });
    let sidecar = place.run(&provider, &upstream, "");
    sidecar.ready();
    let received = provider.received();
    for (request, token) in received.iter().zip(["refresh_token=first", "refresh_token=refresh-2"]) {
        assert!(String::from_utf8_lossy(&request.body).contains(token), "{token}");
    }
    assert!(received.len() == 2 && place.store().contains("\"refresh-3\""));
}
