//! Sections that ask for the same token share it; sections that differ in anything do not.

use std::thread;

use attache::{config::Shape, token::CredentialConfig};
use serde_json::{Value, json};

use crate::support::{FakeServer, Sidecar, echo, get, token};

fn section(name: &str, provider: &FakeServer, more: &str) -> String {
    format!(
        "[credentials.{name}]\ntype = \"client_credentials\"\ntoken_endpoint = \"{}/token\"\nclient_id = \"c\"\n\
         client_auth = \"none\"\n{more}\n",
        provider.url()
    )
}

fn route(name: &str, credential: &str, upstream: &FakeServer) -> String {
    format!(
        "[routes.{name}]\npath = \"/{name}\"\nupstream = \"{}\"\ncredential = \"{credential}\"\n",
        upstream.url()
    )
}

#[test]
fn two_names_for_the_same_token_request_share_one() {
    let provider = FakeServer::start(|request| token(request.number, 3600));
    let upstream = echo();
    let sidecar = Sidecar::run(&format!(
        "{}{}{}{}{}",
        section("a", &provider, ""),
        section("b", &provider, ""),
        section("c", &provider, "scope = \"x\""),
        route("a", "a", &upstream),
        route("b", "b", &upstream)
    ));
    sidecar.ready();
    let tokens = ["/a", "/b"].map(|path| {
        let head = get(sidecar.proxy, path).text();
        head.lines().find(|line| line.to_lowercase().starts_with("authorization")).unwrap().to_owned()
    });
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(provider.received().len(), 2, "one for both, and one for the other scope");
    let status: serde_json::Value = serde_json::from_slice(&get(sidecar.admin, "/status").body).unwrap();
    let names: Vec<_> =
        status["credentials"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        let ready = format!("attache_credential_ready{{credential=\"{name}\"}}");
        assert_eq!(sidecar.metric(&ready), 1.0, "{name}");
    }
    let counted = |name: &str| {
        sidecar.metric(&format!("attache_token_refreshes_total{{credential=\"{name}\",outcome=\"success\"}}"))
    };
    assert_eq!((counted("a"), counted("b"), counted("c")), (1.0, 0.0, 1.0));
}

#[test]
fn a_credential_that_hangs_delays_no_other() {
    // It answers only when the test is over.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let stopped = std::sync::Mutex::new(stopped);
    let slow = FakeServer::start(move |request| {
        let _ = stopped.lock().unwrap().recv();
        token(request.number, 3600)
    });
    let provider = FakeServer::start(|request| token(request.number, 2));
    let upstream = echo();
    let sidecar = Sidecar::run(&format!(
        "{}{}{}",
        section("fast", &provider, ""),
        section("slow", &slow, "required = false"),
        route("fast", "fast", &upstream)
    ));
    slow.wait_for(1);
    sidecar.ready();
    // Four lives of the fast one while the slow one waits for its first answer.
    provider.wait_for(4);
    assert_eq!(slow.received().len(), 1);
    while get(sidecar.proxy, "/fast").status != 200 {
        thread::yield_now();
    }
    drop(stop);
}

/// Two values that may stand under a key, and where they differ; several pairs for a section.
fn pairs(shape: &Shape) -> Vec<(Value, Value)> {
    match shape {
        Shape::Text => vec![(json!("a"), json!("b"))],
        Shape::Duration => vec![(json!("1s"), json!("2s"))],
        Shape::Flag => vec![(json!(false), json!(true))],
        Shape::Whole(_) => vec![(json!(1), json!(2))],
        Shape::Share => vec![(json!(0.25), json!(0.5))],
        Shape::Words(words) => words[1..].iter().map(|word| (json!(words[0]), json!(word))).collect(),
        Shape::List(inner) => pairs(inner).into_iter().map(|(a, b)| (json!([a]), json!([b]))).collect(),
        Shape::Named(inner) => {
            let values = pairs(inner).into_iter().map(|(a, b)| (json!({ "k": a }), json!({ "k": b })));
            values
                .chain(pairs(inner).into_iter().map(|(a, _)| (json!({ "k": a }), json!({ "l": a }))))
                .collect()
        }
        Shape::Secret(_) => vec![
            (json!({ "file": "/a" }), json!({ "file": "/b" })),
            (json!({ "file": "/a" }), json!({ "env": "A" })),
            (json!({ "file": "/a" }), json!({ "file": "/a", "unsafe_world_readable": true })),
        ],
        Shape::Section(keys) => {
            let of = |(name, key): (&String, &attache::config::Key)| {
                let name = name.clone();
                pairs(&key.shape).into_iter().map(move |(a, b)| (json!({ &name: a }), json!({ &name: b })))
            };
            keys.iter().flat_map(of).collect()
        }
        Shape::Choice { .. } | Shape::Any => panic!("no value for {shape:?}"),
    }
}

#[test]
fn sections_that_differ_in_any_key_are_not_the_same() {
    let shape = Shape::of_config().under("credentials").unwrap().under("any").unwrap().clone();
    let Shape::Choice { tag, common, variants } = &shape else { panic!("{shape:?}") };
    let mut compared = 0;
    for (kind, keys) in variants {
        let mut least = serde_json::Map::from_iter([(tag.clone(), json!(kind))]);
        for (name, key) in keys.iter().filter(|(_, key)| key.required) {
            least.insert(name.clone(), pairs(&key.shape).remove(0).0);
        }
        let parse = |name: &str, value: Value| {
            let mut section = least.clone();
            section.insert(name.to_owned(), value);
            serde_json::from_value::<CredentialConfig>(section.into())
                .unwrap_or_else(|error| panic!("{kind}.{name}: {error}"))
        };
        for (name, key) in keys.iter().chain(common).filter(|(name, _)| *name != tag) {
            for (one, other) in pairs(&key.shape) {
                let shown = format!("{kind}.{name}: {one} {other}");
                assert_eq!(parse(name, one.clone()), parse(name, one.clone()), "{shown}");
                assert_ne!(parse(name, one), parse(name, other), "{shown}");
                compared += 1;
            }
        }
    }
    assert!(compared > 150, "{compared}");
}
