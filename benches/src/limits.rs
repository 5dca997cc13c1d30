//! What the ratios must reach and what they should: the figures that the project has set.

use crate::{
    goals::Verdict,
    outcome::Outcome,
    report::Report,
    scenarios::{OURS, REFRESHING, ROUTES, TRACED},
    targets::Kind,
};

/// Judges a scenario.
pub fn judge(id: &str, outcomes: &[Outcome], report: &mut Report) {
    let find = |kind: Kind| outcomes.iter().find(|outcome| outcome.kind == kind);
    type Figure = fn(&Outcome) -> &[f64];
    let mut ratio = |what: &str, figure: Figure, ours: Kind, peer: Kind, gate: f64, goal: f64| {
        let ratio = find(ours).zip(find(peer)).map(|(ours, peer)| ours.against(peer, figure));
        report.judge(Verdict::ratio(format!("{what}, against {}", peer.name()), ratio, gate, goal));
    };
    let mut cpu = |what: &str, ours: Kind, peer: Kind, gate: f64, goal: f64| {
        ratio(&format!("CPU a request, {what}"), |outcome| &outcome.cpus, ours, peer, gate, goal);
    };
    match id {
        "small-64" => {
            cpu("64 connections", OURS, Kind::Nginx, 1.0, 0.95);
            cpu("64 connections", OURS, Kind::Haproxy, 0.95, 0.88);
            cpu("64 connections", OURS, Kind::Envoy, 0.5, 0.35);
            let mut rate = |peer: Kind, gate: f64, goal: f64| {
                ratio("throughput on one core", |outcome| &outcome.rates, OURS, peer, gate, goal);
            };
            rate(Kind::Nginx, 1.0, 1.06);
            rate(Kind::Haproxy, 1.05, 1.15);
            rate(Kind::Envoy, 2.0, 2.8);
        }
        "small-1" => cpu("1 connection", OURS, Kind::Nginx, 0.95, 0.85),
        "small-16" => cpu("16 connections", OURS, Kind::Nginx, 1.0, 0.95),
        "small-256" => cpu("256 connections", OURS, Kind::Nginx, 1.0, 0.92),
        "tls-h1" => cpu("TLS upstream", OURS, Kind::Nginx, 0.95, 0.85),
        "tls-h2" => cpu("TLS upstream with HTTP/2", OURS, Kind::Haproxy, 1.1, 0.95),
        "grpc" => cpu("gRPC unary", OURS, Kind::Envoy, 0.6, 0.4),
        "down-64k" => cpu("64 KiB down", OURS, Kind::NginxLarge, 0.95, 0.85),
        "down-1m" => cpu("1 MiB down", OURS, Kind::NginxLarge, 0.5, 0.3),
        "routes" => {
            cpu("1,000 routes, 99 in use", ROUTES[1], OURS, 1.1, 1.02);
            cpu("1,000 routes, all in use", ROUTES[2], OURS, 1.1, 1.02);
        }
        "refresh" => cpu("a refresh every second", REFRESHING, OURS, 1.01, 1.0),
        "traces" => {
            cpu("a collector that gets nothing", TRACED[0], OURS, 1.02, 1.0);
            cpu("a span of one request in a hundred", TRACED[1], OURS, 1.05, 1.02);
        }
        "latency" => {
            let all = find(OURS).zip(find(Kind::Nginx)).zip(find(Kind::Direct));
            let mut added = |what: &str, figure: Figure, gate: f64, goal: f64| {
                let ratio = all.map(|((ours, nginx), nobody)| ours.added(nginx, nobody, figure));
                report.judge(Verdict::ratio(what.into(), ratio, gate, goal));
            };
            added("added p50, against nginx", |outcome| &outcome.p50s, 1.0, 0.9);
            added("added p99, against nginx", |outcome| &outcome.p99s, 1.05, 0.95);
        }
        _ => {}
    }
}
