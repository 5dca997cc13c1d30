//! What is measured, in which order, and against which limits.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    engine::Engine,
    fixed,
    goals::Verdict,
    instructions,
    machine::{self, Cores},
    report::{End, Report},
    site::Site,
    slices::{Outcome, Scenario},
    stats::Spread,
    target::{self, Kind, Target, Variant, Way},
    train, usage,
};

pub struct Wish {
    pub quick: bool,
    pub only: Vec<String>,
    pub rounds: usize,
    pub out: PathBuf,
}

const OURS: Kind = Kind::Attache(Variant::PLAIN);
const REFRESHING: Kind = Kind::Attache(Variant { short: true, ..Variant::PLAIN });
/// As many routes in use of a small table and of a large one; all of a large one, of which more is in use than fits the cache; and
/// with a credential each.
const ROUTES: [Kind; 4] = [
    Kind::Attache(Variant { routes: 100, asked: 99, ..Variant::PLAIN }),
    Kind::Attache(Variant { routes: 1000, asked: 99, ..Variant::PLAIN }),
    Kind::Attache(Variant { routes: 1000, asked: 999, ..Variant::PLAIN }),
    Kind::Attache(Variant { routes: 100, asked: 99, credentials: 100, ..Variant::PLAIN }),
];
/// A collector that is never sent anything, and one that gets a span of every hundredth request.
const TRACED: [Kind; 2] = [
    Kind::Attache(Variant { traces: Some(0), ..Variant::PLAIN }),
    Kind::Attache(Variant { traces: Some(1), ..Variant::PLAIN }),
];
/// Idle connections whose memory is measured.
const IDLE: usize = 9000;

/// Of figures that are measured again when a busy machine keeps them from being reached: system calls a request under load and
/// one at a time, milliseconds from the start to the first answer.
const GATES: [f64; 3] = [4.2, 6.2, 12.0];

impl Wish {
    fn wants(&self, id: &str) -> bool {
        if self.only.is_empty() {
            !self.quick || id == "fixed"
        } else {
            self.only.iter().any(|only| only == id)
        }
    }
}

pub fn run(wish: &Wish) -> io::Result<End> {
    let cores = Cores::choose();
    machine::pin(cores.generator);
    let mut engine = Engine::new()?;
    std::fs::create_dir_all(&wish.out)?;
    let site = Site::build(&mut engine, &wish.out.join("work"))?;
    let mut report = Report::default();
    let machine = machine::describe();
    report.line(&format!(
        "Machine: {machine}. Generator on processor {}, proxy on {}.",
        cores.generator, cores.proxy
    ));
    let (began, processors) = (Instant::now(), [cores.generator, cores.proxy]);
    let stolen = || processors.iter().map(|cpu| usage::stolen(*cpu)).sum::<u64>();
    let before = stolen();
    let versions = [OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy].into_iter().filter_map(target::version);
    let commit = std::env::var("BENCH_COMMIT").unwrap_or_else(|_| "a binary that was given".into());
    report.line(&format!("\nPrograms: {} ({commit}).", versions.collect::<Vec<_>>().join("; ")));

    let mut scenarios: Vec<Scenario> =
        scenarios().into_iter().filter(|scenario| wish.wants(scenario.id)).collect();
    if !scenarios.is_empty() && !target::has_http2() {
        report.line("This attaché has no HTTP/2 towards upstreams: left out there.");
        for scenario in scenarios.iter_mut().filter(|scenario| scenario.way.needs_http2()) {
            scenario.targets.retain(|kind| !matches!(kind, Kind::Attache(_)));
        }
    }
    if !scenarios.is_empty() {
        let targets = start(&scenarios, &site, &mut engine, cores, cores.proxy, &mut report)?;
        for scenario in &scenarios {
            let outcomes =
                scenario.run(&mut engine, &targets, &[cores.generator, cores.proxy], wish.rounds)?;
            report.scenario(scenario, &outcomes);
            judge(scenario.id, &outcomes, &mut report);
        }
    }
    if wish.wants("latency") {
        latency(wish, &site, &mut engine, cores, &mut report)?;
    }
    if wish.wants("fixed") {
        firm(wish, &site, &mut engine, cores, &mut report)?;
    }
    let (took, stolen) = (began.elapsed(), (stolen() - before) as f64 / 2e9);
    report.line(&format!(
        "\nOn {}, {} rounds, {:.0} minutes; the hypervisor took {:.2} % of the two processors meanwhile.",
        machine::today(),
        wish.rounds,
        took.as_secs_f64() / 60.0,
        100.0 * stolen / took.as_secs_f64()
    ));
    report.finish(&machine, &wish.out)
}

/// Instructions a request, of the scenarios that are wanted or of the usual ones, one a line.
pub fn instructions(wish: &Wish) -> io::Result<End> {
    const USUAL: [&str; 5] = ["small-64", "tls-h1", "tls-h2", "h2c", "grpc"];
    let cores = Cores::choose();
    let mut engine = Engine::new()?;
    let directory = wish.out.join("work");
    std::fs::create_dir_all(&directory)?;
    let site = Site::build(&mut engine, &directory)?;
    let mut chosen = scenarios();
    chosen.retain(|scenario| match wish.only.is_empty() {
        true => USUAL.contains(&scenario.id),
        false => wish.only.iter().any(|id| id == scenario.id),
    });
    for scenario in &chosen {
        for kind in scenario.targets.iter().filter(|kind| matches!(kind, Kind::Attache(_))) {
            let count = instructions::count(scenario, *kind, &site, &mut engine, cores, &site.directory)?;
            println!("{:<9} {count:>7.0} instructions a request, {}", scenario.id, kind.name());
        }
    }
    Ok(End::Good)
}

/// What a profile is made of: every scenario in which attaché runs as it does by default.
pub fn train(wish: &Wish) -> io::Result<End> {
    let cores = Cores::choose();
    let mut engine = Engine::new()?;
    let directory = wish.out.join("work");
    std::fs::create_dir_all(&directory)?;
    let site = Site::build(&mut engine, &directory)?;
    engine.busy = false;
    for scenario in scenarios().iter().filter(|scenario| wish.wants(scenario.id)) {
        if scenario.base != OURS {
            let completed = train::run(scenario, OURS, &site, &mut engine, cores)?;
            println!("{:<9} {completed} requests", scenario.id);
        }
    }
    Ok(End::Good)
}

fn scenarios() -> Vec<Scenario> {
    let slice = Duration::from_millis(800);
    let peers = [OURS, Kind::Nginx, Kind::NginxLogged, Kind::Haproxy, Kind::Envoy, Kind::Relay, Kind::Direct]
        .to_vec();
    let large = [
        OURS,
        Kind::NginxLarge,
        Kind::NginxUnbuffered,
        Kind::Nginx,
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
        Scenario { slice: slice * 2, turns: 64, ..small("small-64", "128 bytes, 64 connections", 64) },
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
            targets: with_http2.clone(),
            base: Kind::Haproxy,
            ..small("h2c", "HTTP/2 upstream without TLS, 128 bytes, 64 connections", 64)
        },
        Scenario {
            way: Way::Grpc,
            targets: with_http2,
            base: Kind::Envoy,
            ..small("grpc", "gRPC unary, HTTP/2 on both sides, 128 bytes, 4 connections of 16 calls", 4)
        },
        body("down-64k", "64 KiB down, 16 connections", "64k"),
        body("down-1m", "1 MiB down, 4 connections", "1m"),
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

/// All targets of some scenarios, at once.
fn start(
    scenarios: &[Scenario],
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
    cpu: usize,
    report: &mut Report,
) -> io::Result<Vec<Target>> {
    let mut kinds: Vec<Kind> = Vec::new();
    for kind in scenarios.iter().flat_map(|scenario| &scenario.targets) {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    let mut targets = Vec::new();
    for kind in kinds {
        if target::present(kind) {
            targets.push(Target::start(kind, site, engine, cores, cpu)?);
        } else {
            report.line(&format!("{} is not installed: left out.", kind.name()));
        }
    }
    Ok(targets)
}

/// The limits of a scenario.
fn judge(id: &str, outcomes: &[Outcome], report: &mut Report) {
    let find = |kind: Kind| outcomes.iter().find(|outcome| outcome.kind == kind);
    type Figure = fn(&Outcome) -> &[f64];
    let ratio = |what: String, figure: Figure, ours: Kind, peer: Kind, gate: f64, goal: f64| {
        let found = find(ours).zip(find(peer)).map(|(ours, peer)| ours.against(peer, figure));
        // Without the peer it is not measured.
        let (measured, noisy) = found.unwrap_or((f64::NAN, None));
        Verdict::ratio(format!("{what}, against {}", peer.name()), measured, gate, goal, noisy)
    };
    let cpu = |what: &str, ours: Kind, peer: Kind, gate: f64, goal: f64, report: &mut Report| {
        let what = format!("CPU a request, {what}");
        report.judge(ratio(what, |outcome| &outcome.cpus, ours, peer, gate, goal));
    };
    let rate = |peer: Kind, gate: f64, goal: f64, report: &mut Report| {
        let what = "throughput on one core".into();
        report.judge(ratio(what, |outcome| &outcome.rates, OURS, peer, gate, goal));
    };
    match id {
        "small-64" => {
            cpu("64 connections", OURS, Kind::Nginx, 1.0, 0.95, report);
            cpu("64 connections", OURS, Kind::Haproxy, 0.95, 0.88, report);
            cpu("64 connections", OURS, Kind::Envoy, 0.5, 0.35, report);
            rate(Kind::Nginx, 1.0, 1.06, report);
            rate(Kind::Haproxy, 1.05, 1.15, report);
            rate(Kind::Envoy, 2.0, 2.8, report);
        }
        "small-1" => cpu("1 connection", OURS, Kind::Nginx, 0.95, 0.85, report),
        "small-16" => cpu("16 connections", OURS, Kind::Nginx, 1.0, 0.95, report),
        "small-256" => cpu("256 connections", OURS, Kind::Nginx, 1.0, 0.92, report),
        "tls-h1" => cpu("TLS upstream", OURS, Kind::Nginx, 0.95, 0.85, report),
        "tls-h2" => cpu("TLS upstream with HTTP/2", OURS, Kind::Haproxy, 1.1, 0.95, report),
        "grpc" => cpu("gRPC unary", OURS, Kind::Envoy, 0.6, 0.4, report),
        "down-64k" => cpu("64 KiB down", OURS, Kind::NginxLarge, 0.95, 0.85, report),
        "down-1m" => cpu("1 MiB down", OURS, Kind::NginxLarge, 0.5, 0.3, report),
        "routes" => cpu("1,000 routes, 99 in use", ROUTES[1], OURS, 1.1, 1.02, report),
        "refresh" => cpu("a refresh every second", REFRESHING, OURS, 1.01, 1.0, report),
        "traces" => {
            cpu("a collector that gets nothing", TRACED[0], OURS, 1.02, 1.0, report);
            cpu("a span of one request in a hundred", TRACED[1], OURS, 1.05, 1.02, report);
        }
        _ => {}
    }
}

/// What a proxy adds to one request at a time, with generator and proxy on one core, so that neither waits for the other
/// core to wake.
fn latency(
    wish: &Wish,
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
    report: &mut Report,
) -> io::Result<()> {
    let scenario = Scenario {
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
    };
    let targets = start(std::slice::from_ref(&scenario), site, engine, cores, cores.generator, report)?;
    engine.busy = false;
    let outcomes = scenario.run(engine, &targets, &[cores.generator], wish.rounds)?;
    engine.busy = true;
    report.scenario(&scenario, &outcomes);
    let find = |kind: Kind| outcomes.iter().find(|outcome| outcome.kind == kind);
    if let (Some(ours), Some(nginx), Some(direct)) = (find(OURS), find(Kind::Nginx), find(Kind::Direct)) {
        let mut judge = |what: &str, of: fn(&Outcome) -> &[f64], gate, goal| {
            // What a proxy adds to what is there without one, round by round.
            let rounds = of(ours).iter().zip(of(nginx)).zip(of(direct));
            let added = Spread::of(rounds.map(|((ours, nginx), direct)| (ours - direct) / (nginx - direct)));
            let noisy = added.wide().then_some("noisy: a quartile lies more than 5 % from the median");
            report.judge(Verdict::ratio(what.into(), added.median, gate, goal, noisy));
        };
        judge("added p50, against nginx", |outcome| &outcome.p50s, 1.0, 0.9);
        judge("added p99, against nginx", |outcome| &outcome.p99s, 1.05, 0.95);
    }
    Ok(())
}

/// What noise cannot disturb.
fn firm(wish: &Wish, site: &Site, engine: &mut Engine, cores: Cores, report: &mut Report) -> io::Result<()> {
    let all = [OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy];
    let kinds: Vec<Kind> = if wish.quick { vec![OURS] } else { all.into() };
    report.line("\n### What noise does not disturb\n");
    report.line("| | system calls a request, 64 connections / 1 | memory at start / under load | an idle connection, fresh / after a request | start to first answer, least / median |");
    report.line("|---|---|---|---|---|");
    for kind in kinds.into_iter().filter(|kind| target::present(*kind)) {
        let target = Target::start(kind, site, engine, cores, cores.proxy)?;
        let gates = if kind == OURS { GATES } else { [f64::INFINITY; 3] };
        let mut calls = |connections, gate| {
            fixed::patiently(gate, || {
                Ok(fixed::calls(engine, &target, cores, connections)?.unwrap_or(f64::NAN))
            })
        };
        let (loaded, single) = (calls(64, gates[0])?, calls(1, gates[1])?);
        drop(target);
        let memory = fixed::memory(kind, site, engine, cores, IDLE)?;
        let starts = fixed::start_up(kind, site, engine, cores, gates[2])?;
        report.line(&format!(
            "| {} | {loaded:.2} / {single:.2} | {:.1} MB / {:.1} MB | {:.2} kB / {:.2} kB | {:.1} ms / {:.1} ms |",
            kind.name(),
            memory.start as f64 * 1.024e-3,
            memory.load as f64 * 1.024e-3,
            memory.fresh / 1000.0,
            memory.used / 1000.0,
            fixed::least(&starts),
            fixed::spread(&starts).median,
        ));
        if kind == OURS {
            report.judge(Verdict::firm("system calls a request, 64 connections", loaded, GATES[0], 4.0));
            report.judge(Verdict::firm("system calls a request, one at a time", single, GATES[1], 6.0));
            report.judge(Verdict::firm("memory at start, MB", memory.start as f64 * 1.024e-3, 7.0, 5.0));
            report.judge(Verdict::firm(
                "memory under 64 connections, MB",
                memory.load as f64 * 1.024e-3,
                10.0,
                7.0,
            ));
            report.judge(Verdict::firm("an idle connection, fresh, kB", memory.fresh / 1000.0, 2.0, 1.5));
            report.judge(Verdict::firm(
                "an idle connection, after a request, kB",
                memory.used / 1000.0,
                12.0,
                4.0,
            ));
            report.judge(Verdict::firm(
                "start to first answer, ms (least)",
                fixed::least(&starts),
                GATES[2],
                7.0,
            ));
        }
    }
    for kind in TRACED {
        let target = Target::start(kind, site, engine, cores, cores.proxy)?;
        let calls =
            fixed::patiently(GATES[0], || Ok(fixed::calls(engine, &target, cores, 64)?.unwrap_or(f64::NAN)))?;
        let what = format!("system calls a request, 64 connections, {}", kind.name());
        report.judge(Verdict::firm(&what, calls, GATES[0], 4.0));
    }
    let (binary, image) = fixed::sizes()?;
    // Last of all: from here on, attaché runs under valgrind.
    let scenarios = scenarios();
    let small = &scenarios[0];
    let work = if target::has("valgrind") {
        instructions::count(small, OURS, site, engine, cores, &site.directory)?
    } else {
        f64::NAN
    };
    // Without the profile (`benches/profile`) it is more, and says that the profile is out of date.
    report.judge(Verdict::firm(
        "instructions a request outside the kernel, 64 connections",
        work,
        32e3,
        24e3,
    ));
    report.judge(Verdict::firm("binary, MB", binary as f64 / 1e6, 9.0, 6.0));
    if let Some(image) = image {
        report.judge(Verdict::firm("image (binary and certificates), MB", image as f64 / 1e6, 9.5, 6.5));
    }
    Ok(())
}
