//! `introspect`: a revoked token is replaced before an upstream refuses it, and nothing else takes a token away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{form, with};
use crate::support::{FakeServer, Received, Reply, Sidecar, echo, get, token};

const ACTIVE: &str = "{\"active\":true}";
const INACTIVE: &str = "{\"active\":false}";

fn is_question(request: &Received) -> bool {
    request.line() == "POST /introspect HTTP/1.1"
}

fn questions(provider: &FakeServer) -> Vec<Received> {
    provider.received().into_iter().filter(is_question).collect()
}

fn sidecar(provider: &FakeServer, upstream: &FakeServer) -> Sidecar {
    let url = provider.url();
    let lines = format!(
        "token_endpoint = \"{url}/token\"\nintrospection_endpoint = \"{url}/introspect\"\nintrospect = \"1s\"\n\
         client_id = \"c\"\nclient_auth = \"none\""
    );
    Sidecar::run(&with(&lines, upstream))
}

/// Waits until the provider has been asked about a token so often.
fn asked(provider: &FakeServer, count: usize) -> Vec<Received> {
    loop {
        let questions = questions(provider);
        if questions.len() >= count {
            return questions;
        }
        provider.wait_for(provider.received().len() + 1);
    }
}

#[test]
fn a_revoked_token_is_replaced_before_an_upstream_sees_it_again() {
    let revoked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&revoked);
    let provider = FakeServer::start(move |request| match is_question(request) {
        true => {
            let form = form(&request.body);
            assert_eq!(form[1..], [("token_type_hint", "access_token"), ("client_id", "c")].map(own));
            let first = form[0] == own(("token", "token-1"));
            Reply::json(200, if first && flag.load(Ordering::SeqCst) { INACTIVE } else { ACTIVE })
        }
        false => token(request.number, 3600),
    });
    let upstream = echo();
    let sidecar = sidecar(&provider, &upstream);
    assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"));
    asked(&provider, 1);
    assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"), "a good token stays");
    revoked.store(true, Ordering::SeqCst);
    while sidecar.status()["generation"] != 2 {
        thread::yield_now();
    }
    let token =
        |answer: String| answer.split("Bearer ").nth(1).unwrap().split('\r').next().unwrap().to_owned();
    let second = token(get(sidecar.proxy, "/").text());
    assert_ne!(second, "token-1");
    // The new one is asked about too, and stays.
    let before = questions(&provider).len();
    asked(&provider, before + 2);
    assert_eq!(token(get(sidecar.proxy, "/").text()), second);
    assert_eq!(
        sidecar.metric("attache_token_introspections_total{credential=\"main\",outcome=\"inactive\"}"),
        1.0
    );
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn an_answer_that_does_not_say_that_the_token_is_bad_changes_nothing() {
    let replies = [
        Reply::text(500, ""),
        Reply::json(401, "{\"error\":\"invalid_client\"}"),
        Reply::json(200, "{\"active\":\"false\"}"),
        Reply::json(200, "{}"),
        Reply::text(200, "<html>"),
        Reply::nothing(),
    ];
    let check = |reply: Reply| {
        thread::spawn(move || {
            let provider = FakeServer::start(move |request| match is_question(request) {
                true => reply.clone(),
                false => token(1, 3600),
            });
            let upstream = echo();
            let sidecar = sidecar(&provider, &upstream);
            sidecar.ready();
            asked(&provider, 3);
            assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"));
            assert_eq!(provider.received().len(), 1 + questions(&provider).len(), "one token request");
            let failed = "attache_token_introspections_total{credential=\"main\",outcome=\"failed\"}";
            assert!(sidecar.metric(failed) >= 2.0);
        })
    };
    for thread in replies.map(check) {
        thread.join().unwrap();
    }
}

#[test]
fn a_revoked_token_that_cannot_be_replaced_is_the_upstreams_to_refuse() {
    let provider = FakeServer::start(|request| match request.number {
        1 => token(1, 3600),
        _ if is_question(request) => Reply::json(200, INACTIVE),
        _ => Reply::text(503, ""),
    });
    let upstream = echo();
    let sidecar = sidecar(&provider, &upstream);
    sidecar.ready();
    while sidecar.status()["last_error"].is_null() {
        thread::yield_now();
    }
    assert!(get(sidecar.proxy, "/").text().contains("Bearer token-1"));
}

#[test]
fn a_provider_that_wants_to_be_left_alone_is_not_asked_about_a_token() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let asked_at = Arc::clone(&times);
    let provider = FakeServer::start(move |request| match is_question(request) {
        true => {
            asked_at.lock().unwrap().push(Instant::now());
            Reply::raw("HTTP/1.1 429 X\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n")
        }
        false => token(1, 3600),
    });
    let upstream = echo();
    let _sidecar = sidecar(&provider, &upstream);
    while times.lock().unwrap().len() < 2 {
        thread::yield_now();
    }
    let times = times.lock().unwrap();
    assert!(times[1] - times[0] >= Duration::from_secs(3), "{:?}", times[1] - times[0]);
}

#[test]
fn f17_a_question_that_is_refused_is_signed_by_the_providers_clock() {
    let provider = FakeServer::start(|request| {
        if !is_question(request) {
            return token(1, 3600);
        }
        let theirs = SystemTime::now() + Duration::from_secs(300);
        let now = theirs.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let form = form(&request.body);
        let jwt = &form.iter().find(|(name, _)| name == "client_assertion").unwrap().1;
        let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(jwt).unwrap().claims;
        let valid = claims["iat"].as_u64().unwrap() <= now && now < claims["exp"].as_u64().unwrap();
        let (status, date) = (if valid { 200 } else { 401 }, httpdate::fmt_http_date(theirs));
        Reply::raw(format!("HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: 15\r\n\r\n{ACTIVE}"))
    });
    let (secret, upstream, url) = (super::secret_file("hunter2"), echo(), provider.url());
    let lines = format!(
        "issuer = \"{url}\"\ntoken_endpoint = \"{url}/token\"\nintrospection_endpoint = \"{url}/introspect\"\n\
         introspect = \"1s\"\nclient_id = \"c\"\nclient_auth = \"client_secret_jwt\"\n\
         client_secret = {{ file = \"{}\" }}",
        secret.path().display()
    );
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    let outcome = |outcome| {
        sidecar.metric(&format!(
            "attache_token_introspections_total{{credential=\"main\",outcome=\"{outcome}\"}}"
        ))
    };
    while outcome("active") < 1.0 {
        thread::yield_now();
    }
    assert_eq!(outcome("failed"), 1.0);
}
