//! A run: what is wanted, in which order, and what is told of it.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    engine::Engine,
    firm, instructions, limits,
    machine::{self, Cores},
    outcome::Outcome,
    report::{End, Report},
    scenarios::{self, OURS},
    site::Site,
    slices::{Scenario, Series},
    targets::{self, Kind, Place, Target},
    train, usage,
};

pub struct Wish {
    pub quick: bool,
    pub only: Vec<String>,
    pub rounds: usize,
    pub out: PathBuf,
}

/// How often every target is started anew, with the rounds spread over the starts. Two starts of one program differ by some percent,
/// by where its memory lies; the quartiles of one start would not show it.
const STARTS: usize = 4;

impl Wish {
    pub fn wants(&self, id: &str) -> bool {
        if self.only.is_empty() {
            !self.quick || id == "fixed"
        } else {
            self.only.iter().any(|only| only == id)
        }
    }
}

/// What everything runs with.
struct Bench {
    engine: Engine,
    site: Site,
    cores: Cores,
}

impl Bench {
    fn new(wish: &Wish) -> io::Result<Self> {
        let cores = Cores::choose()?;
        machine::pin(cores.generator);
        let mut engine = Engine::new()?;
        let directory = wish.out.join("work");
        fs::create_dir_all(&directory)?;
        let site = Site::build(&mut engine, &directory)?;
        Ok(Self { engine, site, cores })
    }

    /// Times, in slices: what was measured, also when a part of it failed.
    fn times(
        &mut self,
        scenarios: &[Scenario],
        place: Place<'_>,
        rounds: usize,
        report: &mut Report,
    ) -> io::Result<()> {
        let mut all: Vec<Vec<Series>> = scenarios.iter().map(Scenario::series).collect();
        let measured = self.measure(scenarios, place, rounds, &mut all);
        for (scenario, series) in scenarios.iter().zip(&all) {
            let outcomes = Outcome::all(scenario, series);
            report.scenario(scenario, &outcomes);
            limits::judge(scenario.id, &outcomes, report);
            self.shown(scenario, report)?;
        }
        measured
    }

    /// Tells how often what a scenario is about has happened: a variant that does nothing costs nothing. The least is one batch of
    /// spans for each start of the targets, and two tokens beside the one that they start with.
    fn shown(&self, scenario: &Scenario, report: &mut Report) -> io::Result<()> {
        let [tokens, spans] = self.site.counts();
        let (what, count, least) = match scenario.id {
            "refresh" => ("tokens that live for 2 s, asked for while it ran", tokens, 3),
            "traces" => ("batches of spans, sent while it ran", spans, 1),
            _ => return Ok(()),
        };
        report.line(&format!("\n{count} {what}."));
        if count < least * STARTS as u64 { Err(io::Error::other(format!("{what}: {count}"))) } else { Ok(()) }
    }

    fn measure(
        &mut self,
        scenarios: &[Scenario],
        place: Place<'_>,
        rounds: usize,
        all: &mut [Vec<Series>],
    ) -> io::Result<()> {
        let mut cpus = vec![self.cores.generator, place.cpu];
        cpus.dedup();
        for start in 0..STARTS {
            // Those that are over go to the first starts.
            let rounds = rounds / STARTS + usize::from(start < rounds % STARTS);
            if rounds == 0 {
                continue;
            }
            let targets = self.start(scenarios, place)?;
            for (scenario, series) in scenarios.iter().zip(&mut *all) {
                println!("start {} of {STARTS}: {}", start + 1, scenario.id);
                scenario.run(&mut self.engine, &targets, &cpus, rounds, series)?;
            }
        }
        Ok(())
    }

    /// All targets of some scenarios, at once.
    fn start(&mut self, scenarios: &[Scenario], place: Place<'_>) -> io::Result<Vec<Target>> {
        let kinds = once(scenarios.iter().flat_map(|scenario| scenario.targets.clone()));
        let present = kinds.into_iter().filter(|kind| targets::present(*kind));
        present.map(|kind| Target::start(kind, &self.site, &mut self.engine, place)).collect()
    }
}

/// Each once.
fn once(all: impl IntoIterator<Item = Kind>) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for kind in all {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

pub fn run(wish: &Wish) -> io::Result<End> {
    let mut bench = Bench::new(wish)?;
    let mut report = Report::new(bench.cores);
    let began = Instant::now();
    let processors = [bench.cores.generator, bench.cores.proxy];
    let stolen = || processors.iter().map(|cpu| usage::stolen(*cpu)).sum::<u64>();
    let before = stolen();
    let measured = all(wish, &mut bench, &mut report);
    let stolen = Duration::from_nanos(stolen().saturating_sub(before));
    // What was measured before something failed is told as well.
    if let Err(error) = &measured {
        report.line(&format!("\nFAILED: {error}"));
    }
    let end = report.finish(wish.rounds, began.elapsed(), stolen, &wish.out)?;
    measured.map(|()| end)
}

fn all(wish: &Wish, bench: &mut Bench, report: &mut Report) -> io::Result<()> {
    let mut wanted = scenarios::all();
    wanted.retain(|scenario| wish.wants(scenario.id));
    let latency = Some(scenarios::latency()).filter(|scenario| wish.wants(scenario.id));
    let times = wanted.iter().chain(&latency).flat_map(|scenario| scenario.targets.clone());
    let firm = if wish.wants("fixed") { firm::kinds(wish.quick) } else { Vec::new() };
    for kind in once(times.chain(firm)).into_iter().filter(|kind| !targets::present(*kind)) {
        report.line(&format!("{} is not installed: left out.", kind.name()));
    }
    if !wanted.is_empty() {
        let place = Place::own(bench.cores);
        bench.times(&wanted, place, wish.rounds, report)?;
    }
    if let Some(latency) = latency {
        let place = Place::shared(bench.cores);
        bench.engine.busy = false;
        bench.times(&[latency], place, wish.rounds, report)?;
        bench.engine.busy = true;
    }
    if wish.wants("fixed") {
        firm::run(wish.quick, &bench.site, &mut bench.engine, bench.cores, report)?;
    }
    Ok(())
}

/// Instructions a request, of the scenarios that are wanted or of the usual ones, one a line.
pub fn instructions(wish: &Wish) -> io::Result<End> {
    const USUAL: [&str; 5] = ["small-64", "tls-h1", "tls-h2", "h2c", "grpc"];
    if !targets::has("valgrind") {
        println!("SKIPPED: valgrind is missing");
        return Ok(End::Open);
    }
    let Bench { mut engine, site, cores } = Bench::new(wish)?;
    let mut chosen = scenarios::all();
    chosen.retain(|scenario| match wish.only.is_empty() {
        true => USUAL.contains(&scenario.id),
        false => wish.wants(scenario.id),
    });
    if chosen.is_empty() {
        return Err(io::Error::other(
            "instructions are counted of parts with many requests: not of latency, nor of fixed",
        ));
    }
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
    let Bench { mut engine, site, cores } = Bench::new(wish)?;
    engine.busy = false;
    for scenario in scenarios::all().iter().filter(|scenario| wish.wants(scenario.id)) {
        if scenario.base != OURS {
            let completed = train::run(scenario, OURS, &site, &mut engine, cores)?;
            println!("{:<9} {completed} requests", scenario.id);
        }
    }
    Ok(End::Good)
}
