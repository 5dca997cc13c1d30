//! What is asked of whom.

use std::time::Duration;

use crate::{
    slices::Scenario,
    targets::{Kind, Variant, Way},
};

/// attaché as it runs by default.
pub const OURS: Kind = Kind::Attache(Variant::PLAIN);
/// Its token refreshed about every second.
pub const REFRESHING: Kind = Kind::Attache(Variant { short: true, ..Variant::PLAIN });
/// As many routes in use of a small table and of a large one; all of a large one, of which more is in use than fits the cache; and
/// with a credential each.
pub const ROUTES: [Kind; 4] = [
    Kind::Attache(Variant { routes: 100, asked: 99, ..Variant::PLAIN }),
    Kind::Attache(Variant { routes: 1000, asked: 99, ..Variant::PLAIN }),
    Kind::Attache(Variant { routes: 1000, asked: 999, ..Variant::PLAIN }),
    Kind::Attache(Variant { routes: 100, asked: 99, credentials: 100, ..Variant::PLAIN }),
];
/// A collector that is never sent anything, and one that gets a span of every hundredth request.
pub const TRACED: [Kind; 2] = [
    Kind::Attache(Variant { traces: Some(0), ..Variant::PLAIN }),
    Kind::Attache(Variant { traces: Some(1), ..Variant::PLAIN }),
];

/// All of them but the one of latency.
pub fn all() -> Vec<Scenario> {
    let slice = Duration::from_millis(800);
    let peers = [OURS, Kind::Nginx, Kind::NginxLogged, Kind::Haproxy, Kind::Envoy, Kind::Relay, Kind::Direct]
        .to_vec();
    let large = [
        OURS,
        Kind::NginxLarge,
        Kind::NginxUnbuffered,
        Kind::Nginx,
        Kind::HaproxyLarge,
        Kind::Haproxy,
        Kind::Envoy,
        Kind::Relay,
        Kind::Direct,
    ]
    .to_vec();
    let small = |id, title, connections| Scenario {
        id,
        title,
        connections,
        size: "128",
        way: Way::Plain,
        targets: peers.clone(),
        base: Kind::Nginx,
        traced: false,
        slice,
        turns: 32,
    };
    let body = |id, title, size| Scenario {
        size,
        targets: large.clone(),
        base: Kind::NginxLarge,
        turns: if size == "1m" { 16 } else { 32 },
        ..small(id, title, if size == "1m" { 4 } else { 16 })
    };
    let with_http2 = vec![OURS, Kind::Haproxy, Kind::Envoy];
    let with_tls = [OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy].to_vec();
    vec![
        // For a quarter of a minute or so, a virtual machine may be slower in everything but copying (by a quarter what copies nothing, by
        // a thirtieth nginx with its large buffers): a round of 7 s meets such a phase or misses it, one of half a minute meets part
        // of it.
        Scenario { slice: slice * 4, turns: 128, ..small("small-64", "128 bytes, 64 connections", 64) },
        small("small-1", "128 bytes, 1 connection", 1),
        small("small-16", "128 bytes, 16 connections", 16),
        Scenario { slice: slice * 2, ..small("small-256", "128 bytes, 256 connections", 256) },
        Scenario {
            way: Way::Tls,
            targets: with_tls,
            ..small("tls-h1", "TLS upstream, HTTP/1.1, 128 bytes, 64 connections", 64)
        },
        Scenario {
            way: Way::Tls2,
            targets: with_http2.clone(),
            base: Kind::Haproxy,
            ..small("tls-h2", "TLS upstream, HTTP/2, 128 bytes, 64 connections", 64)
        },
        Scenario {
            way: Way::H2c,
            targets: with_http2,
            base: Kind::Haproxy,
            ..small("h2c", "HTTP/2 upstream without TLS, 128 bytes, 64 connections", 64)
        },
        Scenario {
            way: Way::Grpc,
            targets: [OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy].to_vec(),
            base: Kind::Envoy,
            ..small("grpc", "gRPC unary, HTTP/2 on both sides, 128 bytes, 4 connections of 16 calls", 4)
        },
        body("down-64k", "64 KiB down, 16 connections", "64k"),
        Scenario { slice: slice * 4, turns: 64, ..body("down-1m", "1 MiB down, 4 connections", "1m") },
        body("up-64k", "64 KiB up, 16 connections", "up"),
        Scenario {
            targets: [OURS].into_iter().chain(ROUTES).collect(),
            base: OURS,
            ..small("routes", "routes and credentials, 128 bytes, 64 connections", 64)
        },
        Scenario {
            targets: vec![OURS, REFRESHING],
            base: OURS,
            slice: Duration::from_millis(1200),
            turns: 48,
            ..small("refresh", "a refresh about every second, 128 bytes, 64 connections", 64)
        },
        Scenario {
            targets: [OURS].into_iter().chain(TRACED).collect(),
            base: OURS,
            traced: true,
            ..small("traces", "no collector, one that gets nothing, one that gets a span in a hundred", 64)
        },
    ]
}

/// Whether there is a part of that name.
pub fn is_known(id: &str) -> bool {
    id == "fixed" || all().iter().chain([&latency()]).any(|scenario| scenario.id == id)
}

/// What a proxy adds to one request at a time, with generator and proxy on one core, so that neither waits for the other core to
/// wake.
pub fn latency() -> Scenario {
    Scenario {
        id: "latency",
        title: "one connection, generator and proxy on one core",
        connections: 1,
        size: "128",
        way: Way::Plain,
        targets: vec![OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Relay, Kind::Direct],
        base: Kind::Nginx,
        traced: false,
        // Of a thousand requests ten are slower than the 99th percentile. What makes them so is most often the hypervisor, for a few
        // milliseconds: only with turns as short as that it meets all targets alike.
        slice: Duration::from_millis(3200),
        turns: 1280,
    }
}
