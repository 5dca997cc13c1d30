//! Services that can only set `HTTP_PROXY`: their requests come in absolute-form (RFC 9112 §3.2.2). Those for the host of a
//! route are served as that route; attaché is a proxy for nothing else.

use std::{fs, net::TcpListener, process::Command};

use crate::support::{Caller, FakeServer, Sidecar, credential, echo, provider};

/// Two routes with a host, and one for everything else; all of them go to one upstream below a path of their own.
fn settings(provider: &FakeServer, upstream: &FakeServer) -> String {
    let url = upstream.url();
    format!(
        "{}[routes.everything]\nupstream = \"{url}/everything\"\ncredential = \"main\"\n\
         [routes.orders]\nhost = \"orders.example\"\nupstream = \"{url}/orders\"\ncredential = \"main\"\n\
         [routes.billing]\nhost = \"billing.example\"\npath = \"/v1\"\nupstream = \"{url}/billing\"\ncredential = \"main\"\n",
        credential(provider)
    )
}

/// A name, the target, the `Host`, and what arrives or the reason why nothing does.
const ROWS: &[(&str, &str, &str, Result<&str, &str>)] = &[
    ("the host of a route", "http://orders.example/a?b", "orders.example", Ok("/orders/a?b")),
    ("in capitals", "http://ORDERS.Example/a", "ORDERS.Example", Ok("/orders/a")),
    ("with a port", "http://orders.example:8080/a", "orders.example:8080", Ok("/orders/a")),
    ("as https", "https://orders.example/a", "orders.example", Ok("/orders/a")),
    ("without a path", "http://orders.example", "orders.example", Ok("/orders/")),
    ("below the path of its route", "http://billing.example/v1/a", "billing.example", Ok("/billing/v1/a")),
    ("beside the path of its route", "http://billing.example/v2/a", "billing.example", Err("no_route")),
    (
        "out of the path of its route",
        "http://billing.example/v1/../a",
        "billing.example",
        Err("path_refused"),
    ),
    ("another host", "http://evil.example/a", "evil.example", Err("foreign_host")),
    ("a host that ends like one", "http://notorders.example/a", "notorders.example", Err("foreign_host")),
    ("a host below one", "http://x.orders.example/a", "x.orders.example", Err("foreign_host")),
    ("an address of the cloud", "http://169.254.169.254/latest", "169.254.169.254", Err("foreign_host")),
    ("another service of this machine", "http://127.0.0.1:9/a", "127.0.0.1:9", Err("foreign_host")),
    ("another one by its name", "http://localhost:9/a", "localhost:9", Err("foreign_host")),
    ("a Host that differs", "http://orders.example/a", "billing.example", Err("foreign_host")),
    ("a Host of this machine", "http://orders.example/a", "localhost", Err("foreign_host")),
    ("a user", "http://user@orders.example/a", "orders.example", Err("malformed_host")),
    ("another scheme", "ftp://orders.example/a", "orders.example", Err("malformed_target")),
    ("a fragment", "http://orders.example/a#b", "orders.example", Err("malformed_target")),
];

#[test]
fn only_what_is_for_the_host_of_a_route_is_served_and_as_that_route() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&settings(&provider, &upstream));
    for (name, target, host, expected) in ROWS {
        let before = upstream.received().len();
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\r\n"
        ));
        let answer = caller.answer();
        match expected {
            Ok(path) => {
                assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                let request = upstream.wait_for(before + 1)[before].clone();
                assert_eq!(request.line(), format!("GET {path} HTTP/1.1"), "{name}");
                assert_eq!(request.fields("authorization"), ["Bearer token-1"], "{name}");
                assert_eq!(request.fields("host"), [upstream.address.to_string()], "{name}");
                assert!(request.fields("proxy-authorization").is_empty(), "{name}");
            }
            Err(reason) => {
                assert_eq!(answer.reason().as_deref(), Some(*reason), "{name}: {}", answer.text());
                assert_eq!(upstream.received().len(), before, "{name}");
            }
        }
    }
    let series = |reason: &str| format!("attache_own_answers_total{{reason=\"{reason}\",route=\"(none)\"}}");
    for (reason, count) in [("foreign_host", 8.0), ("malformed_host", 1.0), ("malformed_target", 2.0)] {
        assert_eq!(sidecar.metric(&series(reason)), count, "{reason}");
    }
}

#[test]
fn a_tunnel_is_refused_also_to_the_host_of_a_route() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&settings(&provider, &upstream));
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("CONNECT orders.example:443 HTTP/1.1\r\nHost: orders.example:443\r\n\r\nGET / HTTP/1.1\r\n");
    let answer = caller.answer();
    assert_eq!((answer.status, answer.reason().as_deref()), (405, Some("method_not_allowed")));
    assert!(caller.is_closed() && upstream.received().is_empty());
}

#[test]
fn what_is_for_attache_itself_is_served_as_ever() {
    let (provider, upstream) = (provider(), echo());
    // A port that is free now; a test that loses it to another process tries the next one.
    let bound = (0..10).find_map(|_| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = settings(&provider, &upstream);
        let own = format!("[routes.own]\npath = \"/own\"\nlisten = \"127.0.0.1:{port}\"\n");
        let own = format!("{own}upstream = \"{}\"\ncredential = \"main\"\n", upstream.url());
        std::panic::catch_unwind(|| Sidecar::run(&format!("{settings}{own}"))).ok()
    });
    let sidecar = bound.unwrap();
    let own = sidecar.proxies[1];
    for host in [format!("127.0.0.1:{}", own.port()), format!("localhost:{}", own.port())] {
        let mut caller = Caller::connect(own);
        caller.send(format!("GET http://{host}/own HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(caller.answer().status, 200, "{host}");
    }
}

/// Runs a client that knows nothing but the proxy of its environment.
fn client(sidecar: &Sidecar, program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("HTTP_PROXY", format!("http://{}", sidecar.proxy))
        .env("http_proxy", format!("http://{}", sidecar.proxy))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output();
    let output = match output {
        Ok(output) => output,
        // The suite with real servers needs these programs; this one does without those that are missing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{program}: {error}"),
    };
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn curl_python_and_node_need_nothing_but_the_proxy_of_their_environment() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&settings(&provider, &upstream));
    let folder = tempfile::TempDir::new().unwrap();
    let script = folder.path().join("client.mjs");
    // Node's own client knows no proxy; this is what libraries do there.
    fs::write(
        &script,
        "import http from 'node:http';\n\
         const proxy = new URL(process.env.HTTP_PROXY), url = new URL(process.argv[2]);\n\
         http.get({ host: proxy.hostname, port: proxy.port, path: url.href, headers: { host: url.host } },\n\
         (answer) => answer.pipe(process.stdout));\n",
    )
    .unwrap();
    let python = "import sys, urllib.request as r\ntry: print(r.urlopen(sys.argv[1]).read().decode())\n\
                  except r.HTTPError as e: print(e.read().decode())";
    let script = script.to_str().unwrap();
    for (program, arguments) in
        [("curl", vec!["-sS", "-q"]), ("python3", vec!["-c", python]), ("node", vec![script])]
    {
        for (url, expected) in [
            ("http://orders.example/a?b", "GET /orders/a?b HTTP/1.1"),
            ("http://evil.example/a", "\"reason\":\"foreign_host\""),
        ] {
            let arguments: Vec<_> = arguments.iter().copied().chain([url]).collect();
            if let Some(output) = client(&sidecar, program, &arguments) {
                assert!(output.contains(expected), "{program} {url}: {output}");
                assert!(!expected.starts_with("GET") || output.contains("Bearer token-1"), "{program}");
            }
        }
    }
}
