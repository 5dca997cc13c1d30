//! Tests of `admin`, over real sockets.

use std::{net::SocketAddr, sync::Arc};

use attache::{
    admin::{self, Port, ReadinessRule, RouteView, Snapshot, View},
    guard::Guard,
    listen::{Listen, Socket, UnixRules},
    readiness::Readiness,
    shutdown::{self, Stage, Trigger},
    telemetry::metrics::Metrics,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

struct Admin {
    address: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
    trigger: Trigger,
    task: JoinHandle<()>,
}

/// The admin port of a process that needs the credential `orders`, whose token is not usable (any more).
async fn admin(rule: ReadinessRule) -> Admin {
    let socket = Socket::bind(&Listen::parse("127.0.0.1:0").unwrap(), &UnixRules::default(), false).unwrap();
    let address = socket.local().unwrap().tcp().unwrap();
    let port = Port::new(socket, UnixRules::default()).unwrap();
    let readiness = Readiness::new();
    let look = Arc::new(|| Snapshot {
        routes: vec![RouteView {
            name: "orders".into(),
            host: None,
            path: "/".into(),
            upstream: "https://orders.internal".into(),
            credential: "orders".into(),
        }],
        credentials: json!([{ "name": "orders", "state": "backing_off" }]),
        unusable: vec!["orders".into()],
        configuration: json!({ "file": null }),
    });
    let metrics = Metrics::new();
    let view = View { readiness: readiness.clone(), rule, metrics: metrics.clone(), look };
    let (trigger, shutdown) = shutdown::channel();
    let task = tokio::spawn(admin::serve(port, Guard::new(Some(address)), view, shutdown));
    Admin { address, readiness, metrics, trigger, task }
}

impl Admin {
    /// Sends the request as it stands, and reads until the port closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.raw(&format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("cache-control: no-store") && head.contains("nosniff"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn status_of(&self, path: &str) -> u16 {
        self.get(path).await.0
    }
}

#[tokio::test]
async fn probes_are_told_the_truth_from_start_to_drain() {
    let admin = admin(ReadinessRule::Latched).await;
    let latch = admin.readiness.require("orders");
    assert_eq!((admin.status_of("/livez").await, admin.status_of("/healthz").await), (200, 200));
    assert_eq!((admin.status_of("/startupz").await, admin.status_of("/readyz").await), (503, 503));
    let body: Value = serde_json::from_str(&admin.get("/readyz").await.1).unwrap();
    assert_eq!(body["missing"], json!(["orders"]));
    latch.open();
    assert_eq!((admin.status_of("/startupz").await, admin.status_of("/readyz").await), (200, 200));
    admin.readiness.drain();
    assert_eq!((admin.status_of("/startupz").await, admin.status_of("/readyz").await), (200, 503));
    assert_eq!(admin.status_of("/livez").await, 200);
}

#[tokio::test]
async fn strict_readiness_asks_for_a_usable_token_now() {
    let admin = admin(ReadinessRule::Strict).await;
    admin.readiness.require("orders").open();
    let (status, body) = admin.get("/readyz").await;
    assert_eq!((status, body.contains("orders")), (503, true));
    assert_eq!(admin.status_of("/startupz").await, 200);
}

#[tokio::test]
async fn status_shows_routes_and_credentials_and_metrics_are_rendered() {
    let admin = admin(ReadinessRule::Latched).await;
    let status: Value = serde_json::from_str(&admin.get("/status").await.1).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["routes"][0]["upstream"], "https://orders.internal");
    assert_eq!(status["credentials"][0]["state"], "backing_off");
    let (code, metrics) = admin.get("/metrics").await;
    assert!(code == 200 && metrics.contains("attache_"), "{metrics}");
}

#[tokio::test]
async fn status_shows_what_attache_itself_answered_lately_and_since_the_start() {
    let admin = admin(ReadinessRule::Latched).await;
    let route = admin.metrics.route("orders");
    route.own_answer("token_unavailable");
    route.own_answer("token_unavailable");
    let status: Value = serde_json::from_str(&admin.get("/status").await.1).unwrap();
    let own = &status["own_answers"][0];
    assert_eq!((&own["route"], &own["reason"]), (&json!("orders"), &json!("token_unavailable")));
    assert_eq!((&own["count"], &own["recent"]), (&json!(2), &json!(2)));
    let minutes = own["by_minute"].as_array().unwrap();
    // Fifteen whole minutes and the one that runs; this test may cross from one into the next.
    assert_eq!((minutes.len(), minutes.iter().filter_map(Value::as_u64).sum::<u64>()), (16, 2));
    let page = admin.raw("GET /status HTTP/1.0\r\nhost: localhost\r\naccept: text/html\r\n\r\n").await;
    assert!(page.contains("<td>orders<td>token_unavailable<td>2 <svg"), "{page}");
}

#[tokio::test]
async fn a_browser_gets_the_status_as_a_page_that_can_do_nothing() {
    let admin = admin(ReadinessRule::Latched).await;
    let answer =
        admin.raw("GET /status HTTP/1.0\r\nhost: localhost\r\naccept: text/html,*/*;q=0.8\r\n\r\n").await;
    assert!(answer.contains("content-type: text/html") && answer.contains("default-src 'none'"), "{answer}");
    assert!(answer.contains("<td>https://orders.internal<td>orders"), "{answer}");
}

#[tokio::test]
async fn web_pages_foreign_hosts_and_other_methods_are_refused_and_nothing_comes_back() {
    let admin = admin(ReadinessRule::Latched).await;
    for (request, status, reason) in [
        ("GET /status HTTP/1.1\r\nhost: hunter2.example\r\n\r\n", 421, "foreign_host"),
        ("GET /status HTTP/1.1\r\nhost: a, hunter2\r\n\r\n", 400, "malformed_host"),
        ("GET /livez HTTP/1.1\r\nhost: localhost\r\norigin: https://hunter2\r\n\r\n", 403, "foreign_origin"),
        (
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-site\r\n\r\n",
            403,
            "foreign_origin",
        ),
        ("POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n", 405, "method_not_allowed"),
        ("DELETE /hunter2 HTTP/1.1\r\nhost: localhost\r\n\r\n", 405, "method_not_allowed"),
        ("GET /hunter2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404, "not_found"),
    ] {
        // Returns only because the connection is closed.
        let answer = admin.raw(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains(reason), "{answer}");
        assert!(!answer.contains("hunter2"), "{answer}");
    }
}

#[tokio::test]
async fn head_is_answered_like_get_without_the_body() {
    let admin = admin(ReadinessRule::Latched).await;
    let answer = admin.raw("HEAD /livez HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn the_port_answers_until_the_last_stage() {
    let admin = admin(ReadinessRule::Latched).await;
    admin.trigger.advance(Stage::Draining);
    assert_eq!(admin.status_of("/livez").await, 200);
    admin.trigger.advance(Stage::Now);
    admin.task.await.unwrap();
}

#[tokio::test]
async fn connections_that_are_silent_or_never_end_a_head_keep_no_probe_out() {
    let admin = admin(ReadinessRule::Latched).await;
    for sent in ["", "GET /li"] {
        let mut held = Vec::new();
        for _ in 0..80 {
            let mut stream = TcpStream::connect(admin.address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            held.push(stream);
        }
        // Sooner than the first of them has been silent for too long.
        let asked = tokio::time::timeout(std::time::Duration::from_secs(5), admin.status_of("/livez")).await;
        assert_eq!(asked, Ok(200), "{sent:?}");
    }
}
