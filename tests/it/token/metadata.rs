//! Metadata servers, as far as one can be had on loopback.

use std::time::{Duration, SystemTime};

use super::{refresh::failed, secret_file};
use crate::support::{FakeServer, Reply, Sidecar, echo, get};

fn run(lines: &str, upstream: &FakeServer) -> Sidecar {
    Sidecar::run(&format!(
        "[credentials.main]\ntype = \"metadata\"\n{lines}\n[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        upstream.url()
    ))
}

fn flavored(flavor: &str, body: &str) -> Reply {
    Reply::raw(format!("HTTP/1.1 200 X\r\n{flavor}Content-Length: {}\r\n\r\n{body}", body.len()))
}

const TOKEN: &str = "{\"access_token\":\"t\",\"expires_in\":3600,\"token_type\":\"Bearer\"}";

#[test]
fn google_is_asked_with_its_header_and_believed_with_its_header_only() {
    let server = FakeServer::start(|request| {
        assert_eq!(request.fields("metadata-flavor"), ["Google"]);
        // The first answer comes from somebody else.
        flavored(if request.number == 1 { "" } else { "Metadata-Flavor: Google\r\n" }, TOKEN)
    });
    let upstream = echo();
    let sidecar = run(
        &format!("server = \"google\"\nurl = \"{}/sa\"\nidentity = \"robot\"\nscope = \"a b\"", server.url()),
        &upstream,
    );
    failed(&sidecar, "malformed_answer");
    sidecar.ready();
    assert_eq!(server.received()[0].line(), "GET /sa/robot/token?scopes=a%2Cb HTTP/1.1");
    assert!(get(sidecar.proxy, "/").text().contains("Bearer t"));
}

#[test]
fn an_identity_token_of_google_is_the_whole_answer() {
    let server = FakeServer::start(|_| flavored("Metadata-Flavor: Google\r\n", "a.b.c"));
    let upstream = echo();
    let sidecar =
        run(&format!("server = \"google\"\nurl = \"{}\"\naudience = \"https://o\"", server.url()), &upstream);
    sidecar.ready();
    assert_eq!(
        server.received()[0].line(),
        "GET /default/identity?audience=https%3A%2F%2Fo&format=full HTTP/1.1"
    );
    assert!(get(sidecar.proxy, "/").text().contains("Bearer a.b.c"));
}

#[test]
fn azure_is_asked_with_its_header_for_a_resource() {
    let server = FakeServer::start(|request| {
        assert_eq!(request.fields("metadata"), ["true"]);
        Reply::json(
            200,
            "{\"access_token\":\"t\",\"expires_in\":\"3599\",\"expires_on\":\"9\",\"token_type\":\"Bearer\"}",
        )
    });
    let upstream = echo();
    let sidecar =
        run(&format!("server = \"azure\"\nurl = \"{}/x\"\naudience = \"api://o\"", server.url()), &upstream);
    sidecar.ready();
    let line = "GET /x?api-version=2018-02-01&resource=api%3A%2F%2Fo HTTP/1.1";
    assert_eq!(server.received()[0].line(), line);
    assert!(sidecar.status()["expires_in_seconds"].as_u64().unwrap() > 3500);
}

#[test]
fn app_service_is_asked_with_its_secret_header() {
    let server = FakeServer::start(|request| {
        assert_eq!(request.fields("x-identity-header"), ["hunter2"]);
        assert!(request.line().starts_with("GET /msi/token?api-version=2019-08-01&"));
        let ends =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
        Reply::json(200, &format!("{{\"access_token\":\"t\",\"expires_on\":\"{ends}\"}}"))
    });
    let (upstream, secret) = (echo(), secret_file("hunter2"));
    let sidecar = run(
        &format!(
            // As Container Apps writes it into `IDENTITY_ENDPOINT`; App Service writes an address.
            "server = \"azure_app_service\"\nurl = \"http://localhost:{}/msi/token\"\naudience = \"a\"\n\
             secret_headers = {{ x-identity-header = {{ file = \"{}\" }} }}",
            server.address.port(),
            secret.path().display()
        ),
        &upstream,
    );
    sidecar.ready();
    let left = sidecar.status()["expires_in_seconds"].as_u64().unwrap();
    assert!((580..=600).contains(&left), "{left}");
    assert!(!get(sidecar.admin, "/status").text().contains("hunter2"));
}

#[test]
fn any_other_server_is_asked_as_the_configuration_says() {
    let server = FakeServer::start(|request| {
        assert_eq!(request.fields("x-who"), ["me"]);
        Reply::json(200, "{\"auth\":{\"client_token\":\"deep\",\"lease_duration\":60}}")
    });
    let upstream = echo();
    let sidecar = run(
        &format!(
            "server = \"generic\"\nurl = \"{}/v1\"\nheaders = {{ x-who = \"me\" }}\n\
             token_field = \"auth.client_token\"\nlifetime_field = \"auth.lease_duration\"",
            server.url()
        ),
        &upstream,
    );
    sidecar.ready();
    assert!(get(sidecar.proxy, "/").text().contains("Bearer deep"));
    assert!(sidecar.status()["expires_in_seconds"].as_u64().unwrap() <= 60);
}

#[test]
fn an_end_by_a_clock_that_is_ahead_is_counted_by_that_clock() {
    let server = FakeServer::start(|_| {
        let theirs = SystemTime::now() + Duration::from_secs(600);
        let ends = theirs.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 60;
        let date = format!("Date: {}\r\n", httpdate::fmt_http_date(theirs));
        flavored(&date, &format!("{{\"access_token\":\"t\",\"expires_on\":\"{ends}\"}}"))
    });
    let upstream = echo();
    let sidecar =
        run(&format!("server = \"azure\"\nurl = \"{}\"\naudience = \"a\"", server.url()), &upstream);
    sidecar.ready();
    let left = sidecar.status()["expires_in_seconds"].as_u64().unwrap();
    assert!((40..=61).contains(&left), "{left}");
}
