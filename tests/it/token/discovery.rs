//! The token endpoint, found from the issuer.

use std::thread;

use super::with;
use crate::support::{FakeServer, Reply, Sidecar, echo, get, token};

const OPENID: &str = "GET /realms/prod/.well-known/openid-configuration HTTP/1.1";
const OAUTH: &str = "GET /.well-known/oauth-authorization-server/realms/prod HTTP/1.1";

/// A provider whose metadata stands at one place and names this issuer behind its own address.
fn provider(place: &'static str, issuer: &'static str) -> FakeServer {
    FakeServer::start(move |request| {
        let own = format!("http://{}", request.fields("host")[0]);
        match request.line() {
            line if line == place => Reply::json(
                200,
                &format!("{{\"issuer\":\"{own}{issuer}\",\"token_endpoint\":\"{own}/elsewhere\"}}"),
            ),
            "POST /elsewhere HTTP/1.1" => token(1, 3600),
            _ => Reply::text(404, ""),
        }
    })
}

fn sidecar(provider: &FakeServer, upstream: &FakeServer) -> Sidecar {
    let lines =
        format!("issuer = \"{}/realms/prod\"\nclient_id = \"c\"\nclient_auth = \"none\"", provider.url());
    Sidecar::run(&with(&lines, upstream))
}

#[test]
fn metadata_is_found_at_the_place_of_either_standard() {
    for (place, requests) in [(OPENID, vec![OPENID]), (OAUTH, vec![OPENID, OAUTH])] {
        let (provider, upstream) = (provider(place, "/realms/prod"), echo());
        let sidecar = sidecar(&provider, &upstream);
        assert_eq!(get(sidecar.proxy, "/").status, 200);
        let lines: Vec<_> = provider.received().iter().map(|request| request.line().to_owned()).collect();
        assert_eq!(lines[..lines.len() - 1], requests);
        assert_eq!(lines.last().unwrap(), "POST /elsewhere HTTP/1.1");
    }
}

#[test]
fn the_other_place_is_asked_whatever_the_first_one_answers() {
    let replies = [400, 401, 403, 500].map(|status| (Reply::text(status, ""), "status"));
    let redirect = Reply::raw("HTTP/1.1 302 X\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n");
    let others = [(redirect, "redirected"), (Reply::text(200, "<html>"), "metadata")];
    for (reply, reason) in replies.into_iter().chain(others) {
        for there in [true, false] {
            let reply = reply.clone();
            let provider = FakeServer::start(move |request| {
                let own = format!("http://{}", request.fields("host")[0]);
                let endpoint = format!("\"token_endpoint\":\"{own}/elsewhere\"");
                match request.line() {
                    OPENID => reply.clone(),
                    OAUTH if there => {
                        Reply::json(200, &format!("{{\"issuer\":\"{own}/realms/prod\",{endpoint}}}"))
                    }
                    OAUTH => Reply::text(404, ""),
                    _ => token(1, 3600),
                }
            });
            let upstream = echo();
            let sidecar = sidecar(&provider, &upstream);
            if there {
                assert_eq!(get(sidecar.proxy, "/").status, 200);
                continue;
            }
            while sidecar.status()["last_error"].is_null() {
                thread::yield_now();
            }
            assert_eq!(sidecar.status()["last_error"]["reason"], reason, "the first error counts");
        }
    }
}

#[test]
fn metadata_of_another_issuer_is_refused_and_no_secret_is_sent() {
    for issuer in ["/realms/prod/", "/realms/other", ""] {
        let (provider, upstream) = (provider(OPENID, issuer), echo());
        let sidecar = sidecar(&provider, &upstream);
        while sidecar.status()["last_error"].is_null() {
            thread::yield_now();
        }
        assert_eq!(sidecar.status()["last_error"]["reason"], "metadata", "{issuer}");
        assert_eq!(get(sidecar.proxy, "/").status, 503);
        assert!(provider.received().iter().all(|request| request.line().starts_with("GET ")));
    }
}
