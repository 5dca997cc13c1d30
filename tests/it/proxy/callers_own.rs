//! `caller_authorization` and `credential = "none"`: whose credential leaves, and that there is never more than one.

use crate::support::{Caller, FakeServer, Reply, Sidecar, echo, get, provider};

/// What callers send: a name, header lines, what leaves when the route keeps it (`None`: it is refused).
const SENT: &[(&str, &str, Option<&[&str]>)] = &[
    ("nothing", "", Some(&[])),
    ("one", "Authorization: Bearer mine\r\n", Some(&["Bearer mine"])),
    ("one in capitals", "AUTHORIZATION: Bearer mine\r\n", Some(&["Bearer mine"])),
    ("another scheme", "Authorization: Basic bWluZQ==\r\n", Some(&["Basic bWluZQ=="])),
    ("one that Connection names", "Connection: authorization\r\nAuthorization: mine\r\n", Some(&[])),
    ("two", "Authorization: Bearer mine\r\nAuthorization: Bearer mine\r\n", None),
    ("another spelling", "Author_ization: Bearer mine\r\n", None),
    ("one and another spelling", "Authorization: Bearer mine\r\nAuthorization_: Bearer other\r\n", None),
];

fn send(sidecar: &Sidecar, fields: &str) -> (u16, Option<String>) {
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"));
    let answer = caller.answer();
    (answer.status, answer.reason())
}

/// Runs a route with these lines and sends every row; tells what leaves for one, given what `keep` would let leave.
fn leaves(lines: &str, credential: &str, expected: impl Fn(Option<&[&str]>) -> Option<Vec<String>>) {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "{}[routes.main]\nupstream = \"{}\"\ncredential = \"{credential}\"\n{lines}\n",
        crate::support::credential(&provider),
        upstream.url()
    ));
    for (name, fields, kept) in SENT {
        let before = upstream.received().len();
        let (status, reason) = send(&sidecar, fields);
        match expected(*kept) {
            None => {
                assert_eq!((status, reason.as_deref()), (403, Some("caller_authorization")), "{name}");
                assert_eq!(upstream.received().len(), before, "{name}");
            }
            Some(expected) => {
                assert_eq!(status, 200, "{name}");
                let request = upstream.wait_for(before + 1)[before].clone();
                assert_eq!(request.fields("authorization"), expected, "{name}");
                let letters = request.head.replace(['-', '_', '.'], "").to_lowercase();
                assert_eq!(letters.matches("authorization:").count(), expected.len(), "{name}");
            }
        }
    }
}

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn promise_1_with_keep_exactly_one_credential_leaves_the_callers_or_ours() {
    leaves("caller_authorization = \"keep\"", "main", |kept| match kept {
        None => None,
        Some([]) => Some(vec!["Bearer token-1".into()]),
        Some(values) => Some(owned(values)),
    });
}

#[test]
fn promise_1_with_replace_exactly_one_credential_leaves_ours() {
    leaves("caller_authorization = \"replace\"", "main", |_| Some(vec!["Bearer token-1".into()]));
}

#[test]
fn without_a_credential_nothing_is_injected_and_what_the_caller_brings_is_removed() {
    leaves("", "none", |_| Some(Vec::new()));
}

#[test]
fn without_a_credential_a_callers_own_can_be_kept() {
    leaves("caller_authorization = \"keep\"", "none", |kept| kept.map(owned));
}

#[test]
fn without_a_credential_a_callers_own_can_be_refused() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "{}[routes.main]\nupstream = \"{}\"\ncredential = \"none\"\ncaller_authorization = \"reject\"\n",
        crate::support::credential(&provider),
        upstream.url()
    ));
    for (name, fields, _) in &SENT[1..] {
        assert_eq!(send(&sidecar, fields).1.as_deref(), Some("caller_authorization"), "{name}");
    }
    assert_eq!(send(&sidecar, "").0, 200);
}

#[test]
fn a_route_without_a_credential_works_while_there_is_no_token() {
    let (provider, upstream) = (FakeServer::start(|_| Reply::text(500, "down")), echo());
    let sidecar = Sidecar::run(&format!(
        "{}token_wait = \"1ms\"\n[routes.main]\nupstream = \"{url}\"\ncredential = \"main\"\ncaller_authorization = \"keep\"\n\
         [routes.open]\npath = \"/open\"\nupstream = \"{url}\"\ncredential = \"none\"\n",
        crate::support::credential(&provider),
        url = upstream.url()
    ));
    assert_eq!(get(sidecar.proxy, "/").reason().as_deref(), Some("token_unavailable"));
    assert_eq!(get(sidecar.proxy, "/open").status, 200);
    // One that a caller brings does not need ours.
    assert_eq!(send(&sidecar, "Authorization: Bearer mine\r\n"), (200, None));
}

#[test]
fn a_401_to_a_callers_own_credential_passes_and_refreshes_nothing() {
    let provider = provider();
    let upstream = FakeServer::start(|_| Reply::text(401, "no"));
    let lines = "caller_authorization = \"keep\"";
    let sidecar = Sidecar::to(&upstream.url(), &provider, lines);
    sidecar.ready();
    for _ in 0..3 {
        assert_eq!(send(&sidecar, "Authorization: Bearer mine\r\n"), (401, None));
    }
    assert_eq!((upstream.received().len(), provider.received().len()), (3, 1));
}
