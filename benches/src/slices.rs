//! Interleaved slices: in each round every target has the machine for a second or so, in turns of 25 ms and an order that is another
//! one each time. Whatever else the machine does meets all of them alike, and only ratios within one round are compared.

use std::{io, time::Duration};

use crate::{
    engine::{Engine, Load},
    orders::Orders,
    plan::{grpc_plan, plan, untold},
    sample::Sample,
    targets::{Kind, Target, Way},
    usage,
};

/// Calls at a time on one connection of a gRPC caller.
const STREAMS: usize = 16;

/// What is asked of every target.
pub struct Scenario {
    pub id: &'static str,
    pub title: &'static str,
    pub connections: usize,
    pub size: &'static str,
    pub way: Way,
    pub targets: Vec<Kind>,
    /// What the others are compared with.
    pub base: Kind,
    /// The callers say nothing of traces, so that attaché chooses which requests it traces.
    pub traced: bool,
    /// How long a target has the machine in a round, and in how many turns. What the neighbours of a virtual machine do lasts
    /// longer than a turn of 25 ms: so it meets all targets, where it would meet one slice of 0.4 s and miss the next. Fewer turns
    /// where a request waits long for its answer, because a turn ends when all are answered; more where the slowest requests are
    /// what is measured.
    pub slice: Duration,
    pub turns: u32,
}

/// What one target did in the rounds of a scenario.
pub struct Series {
    pub kind: Kind,
    pub samples: Vec<Sample>,
    /// User and system time, in clock ticks.
    pub ticks: (u64, u64),
    /// Those of the rounds that are dropped among them: a connection that was lost there is missing in the others.
    pub errors: u64,
    pub example: Option<String>,
}

impl Scenario {
    /// What there is before the first round.
    pub fn series(&self) -> Vec<Series> {
        let empty = |kind: &Kind| Series {
            kind: *kind,
            samples: Vec::new(),
            ticks: (0, 0),
            errors: 0,
            example: None,
        };
        self.targets.iter().map(empty).collect()
    }

    /// Its callers, connected to a target.
    pub fn load(&self, engine: &mut Engine, target: &Target) -> io::Result<Load> {
        let to = target.address(self.way).expect("only targets with that way are listed");
        let plan = match self.way {
            Way::Grpc => grpc_plan(to, STREAMS),
            way if self.traced => untold(&plan(way.prefix(), self.size, to, None)),
            way => plan(way.prefix(), self.size, to, target.kind.more_routes()),
        };
        engine.connect(to, self.connections, &plan)
    }

    /// Some rounds, and one before them that is dropped: it fills caches, and makes the connections to the upstream. `cpus` are the
    /// processors of the generator and of the targets.
    pub fn run(
        &self,
        engine: &mut Engine,
        targets: &[Target],
        cpus: &[usize],
        rounds: usize,
        all: &mut [Series],
    ) -> io::Result<()> {
        // Those that are there.
        let mut chosen: Vec<(&Target, Load, &mut Series)> = Vec::new();
        for series in all {
            if let Some(target) = targets.iter().find(|target| target.kind == series.kind) {
                chosen.push((target, self.load(engine, target)?, series));
            }
        }
        let mut before: Vec<(u64, u64)> = Vec::new();
        let mut orders = Orders::new(chosen.len());
        for round in 0..=rounds {
            if round == 1 {
                before = chosen.iter().map(|(target, ..)| usage::ticks(&target.pids())).collect();
            }
            let mut taken: Vec<Sample> = chosen.iter().map(|_| Sample::default()).collect();
            for _ in 0..self.turns {
                for index in orders.next() {
                    let (target, load, _) = &chosen[*index];
                    taken[*index].add(engine, load, &target.pids(), cpus, self.slice / self.turns)?;
                }
            }
            for ((.., series), mut sample) in chosen.iter_mut().zip(taken) {
                series.errors += sample.errors;
                series.example = series.example.take().or_else(|| sample.example.take());
                if round > 0 {
                    sample.end();
                    series.samples.push(sample);
                }
            }
        }
        for ((target, load, series), before) in chosen.into_iter().zip(before) {
            let (user, system) = usage::ticks(&target.pids());
            series.ticks.0 += user.saturating_sub(before.0);
            series.ticks.1 += system.saturating_sub(before.1);
            engine.close(load);
        }
        engine.serve(Duration::from_millis(50))
    }
}
