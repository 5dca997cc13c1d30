//! Interleaved slices: in each round every target has the machine for a second or so, in turns of 25 ms and an order that is another
//! one each time. Whatever else the machine does meets all of them alike, and only ratios within one round are compared.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    engine::{self, Engine, Limit, Load, Plan},
    site::{self, GRPC, SIZES},
    stats::Spread,
    target::{Kind, Target, Way},
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

/// What one target did in a scenario.
pub struct Outcome {
    pub kind: Kind,
    pub cpu: Spread,
    pub cpu_ratio: Spread,
    pub rate: Spread,
    pub rate_ratio: Spread,
    pub busy: f64,
    pub system: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub errors: u64,
    pub example: Option<String>,
    /// CPU a request and requests a second, of each round.
    pub cpus: Vec<f64>,
    pub rates: Vec<f64>,
    /// Latencies in seconds, of each round.
    pub p50s: Vec<f64>,
    pub p99s: Vec<f64>,
    /// One connection is served one request at a time: nothing saturates, and nothing is meant to.
    saturates: bool,
}

impl Outcome {
    /// A figure as a ratio to that of a peer in the same round, and why no verdict can be given.
    pub fn against(&self, peer: &Self, figure: fn(&Self) -> &[f64]) -> (f64, Option<&'static str>) {
        let ratio = Spread::of(figure(self).iter().zip(figure(peer)).map(|(own, peer)| own / peer));
        let why = if self.errors + peer.errors > 0 {
            Some("no verdict: there were errors")
        } else if self.saturates && (self.busy < 0.9 || peer.busy < 0.9) {
            Some("noisy: the proxy was less than 0.9 busy")
        } else if ratio.wide() {
            Some("noisy: a quartile lies more than 5 % from the median")
        } else {
            None
        };
        (ratio.median, why)
    }
}

/// What a caller sends; `up` bodies are uploads of 64 KiB. Of so many `routes` so many are asked for instead of the first
/// segment.
pub fn plan(first: &str, size: &str, to: SocketAddr, routes: Option<(usize, usize)>) -> Rc<Plan> {
    let expected = SIZES.iter().find(|(name, _)| *name == size).expect("a known size").1;
    let request = |first: &str| -> Rc<[u8]> {
        let (method, body) = if size == "up" { ("POST", vec![b'u'; 65_536]) } else { ("GET", Vec::new()) };
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-type: text/plain\r\ncontent-length: {}\r\n", body.len())
        };
        let head = format!(
            "{method} /{first}/{size}/orders/4711?expand=lines HTTP/1.1\r\nhost: localhost:{}\r\n\
             user-agent: checkout/1.4\r\naccept: application/json\r\naccept-encoding: gzip\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n{length}\r\n",
            to.port()
        );
        [head.as_bytes(), &body].concat().into()
    };
    let requests = match routes {
        None => vec![request(first)],
        // Spread over all of the table, in an order that is not the table's: 41 divides neither 99 nor 999.
        Some((all, asked)) => (0..asked)
            .map(|number| request(&format!("r{}", 1 + (number * 41) % asked * (all / asked))))
            .collect(),
    };
    Rc::new(Plan { requests, expected, streams: 0 })
}

/// The same without a `traceparent`.
pub fn untold(plan: &Plan) -> Rc<Plan> {
    let strip = |request: &Rc<[u8]>| -> Rc<[u8]> {
        let mut lines = request.split_inclusive(|byte| *byte == b'\n');
        let kept = |line: &&[u8]| !line.starts_with(b"traceparent:");
        lines.by_ref().filter(kept).flatten().copied().collect()
    };
    Rc::new(Plan { requests: plan.requests.iter().map(strip).collect(), ..*plan })
}

/// What a gRPC caller sends, on each connection so many calls at a time.
fn grpc_plan(to: SocketAddr, streams: usize) -> Rc<Plan> {
    let (path, authority) = (format!("/{}/{}", GRPC.0, GRPC.1), format!("localhost:{}", to.port()));
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", &authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.66.0"),
        ("grpc-accept-encoding", "gzip"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let mut request = Vec::new();
    engine::put_frame(&mut request, engine::HEADERS, engine::END_HEADERS, 0, &engine::literals(&fields));
    engine::put_frame(&mut request, engine::DATA, engine::END_STREAM, 0, &site::grpc_message());
    Rc::new(Plan { requests: vec![request.into()], expected: site::GRPC_MESSAGE, streams })
}

impl Scenario {
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

    /// `cpus` are the processors of the generator and of the targets.
    pub fn run(
        &self,
        engine: &mut Engine,
        targets: &[Target],
        cpus: &[usize],
        rounds: usize,
    ) -> io::Result<Vec<Outcome>> {
        let chosen: Vec<&Target> = self
            .targets
            .iter()
            .filter_map(|kind| targets.iter().find(|target| target.kind == *kind))
            .collect();
        let mut loads: Vec<Load> = Vec::new();
        for target in &chosen {
            loads.push(self.load(engine, target)?);
        }
        let mut samples: Vec<Vec<Sample>> = chosen.iter().map(|_| Vec::new()).collect();
        let mut before: Vec<(u64, u64)> = Vec::new();
        let mut orders = Orders::new(chosen.len());
        for round in 0..=rounds {
            if round == 1 {
                before = chosen.iter().map(|target| usage::ticks(&target.pids())).collect();
            }
            let mut taken: Vec<Sample> = chosen.iter().map(|_| Sample::default()).collect();
            for _ in 0..self.turns {
                for index in orders.next() {
                    let time = self.slice / self.turns;
                    taken[*index].add(engine, &loads[*index], &chosen[*index].pids(), cpus, time)?;
                }
            }
            if round > 0 {
                for (all, mut sample) in samples.iter_mut().zip(taken) {
                    sample.latencies.sort_unstable();
                    all.push(sample);
                }
            }
        }
        let after: Vec<(u64, u64)> = chosen.iter().map(|target| usage::ticks(&target.pids())).collect();
        loads.into_iter().for_each(|load| engine.close(load));
        engine.serve(Duration::from_millis(50))?;

        let base = chosen.iter().position(|target| target.kind == self.base);
        let latency = |own: &[Sample], share: f64| {
            Duration::from_secs_f64(Spread::of(own.iter().map(|sample| sample.latency(share))).median)
        };
        let summarize = |index: usize| {
            let own = &samples[index];
            let ratio = |of: fn(&Sample) -> f64| {
                let base = base.map(|base| &samples[base]);
                Spread::of(
                    own.iter()
                        .enumerate()
                        .map(|(round, sample)| base.map_or(f64::NAN, |base| of(sample) / of(&base[round]))),
                )
            };
            let (user, system) = (after[index].0 - before[index].0, after[index].1 - before[index].1);
            Outcome {
                kind: chosen[index].kind,
                cpu: Spread::of(own.iter().map(Sample::cpu)),
                cpu_ratio: ratio(Sample::cpu),
                rate: Spread::of(own.iter().map(Sample::rate)),
                rate_ratio: ratio(Sample::rate),
                busy: Spread::of(own.iter().map(Sample::busy)).median,
                system: system as f64 / (user + system).max(1) as f64,
                p50: latency(own, 0.5),
                p99: latency(own, 0.99),
                errors: own.iter().map(|sample| sample.errors).sum(),
                example: own.iter().find_map(|sample| sample.example.clone()),
                cpus: own.iter().map(Sample::cpu).collect(),
                rates: own.iter().map(Sample::rate).collect(),
                p50s: own.iter().map(|sample| sample.latency(0.5)).collect(),
                p99s: own.iter().map(|sample| sample.latency(0.99)).collect(),
                saturates: self.connections > 1,
            }
        };
        Ok((0..chosen.len()).map(summarize).collect())
    }
}

/// The orders of targets, turn by turn: shuffled, the same ones in each run, and no target follows itself. Two take turns at being
/// first instead: a machine that gets slower all the time would otherwise be held against the second.
struct Orders {
    order: Vec<usize>,
    state: u64,
}

impl Orders {
    fn new(count: usize) -> Self {
        Self { order: (0..count).collect(), state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn next(&mut self) -> &[usize] {
        if let [_, _] = self.order[..] {
            self.order.reverse();
            return &self.order;
        }
        let last = self.order.last().copied();
        for place in (1..self.order.len()).rev() {
            // Xorshift (Marsaglia, 2003).
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.order.swap(place, (self.state % (place as u64 + 1)) as usize);
        }
        if self.order.len() > 1 && self.order.first().copied() == last {
            self.order.rotate_left(1);
        }
        &self.order
    }
}

/// What a target did in one round.
#[derive(Default)]
struct Sample {
    requests: f64,
    cpu: f64,
    wall: f64,
    // Of each processor.
    stolen: Vec<f64>,
    latencies: Vec<Duration>,
    errors: u64,
    example: Option<String>,
}

impl Sample {
    /// One turn.
    fn add(
        &mut self,
        engine: &mut Engine,
        load: &Load,
        pids: &[u32],
        cpus: &[usize],
        time: Duration,
    ) -> io::Result<()> {
        let stolen = |cpu: &usize| usage::stolen(*cpu);
        let before = usage::cpu(pids);
        let stolen_before: Vec<u64> = cpus.iter().map(stolen).collect();
        let tally = engine.run(load, Limit::Until(Instant::now() + time))?;
        self.stolen.resize(cpus.len(), 0.0);
        for (sum, (after, before)) in self.stolen.iter_mut().zip(cpus.iter().map(stolen).zip(stolen_before)) {
            *sum += after.saturating_sub(before) as f64;
        }
        // The kernel has counted the time of a thread when it sleeps, and it does not yet when the last answer arrives.
        engine.serve(Duration::from_millis(1))?;
        self.cpu += (usage::cpu(pids) - before) as f64;
        self.requests += tally.completed as f64;
        self.wall += tally.elapsed.as_nanos() as f64;
        // With one connection, the first request of a turn wakes a target that the others have driven out of the processor's caches:
        // that is the doing of the turns, and of a short one it would be more than the hundredth part.
        let first = usize::from(load.callers.len() == 1);
        self.latencies.extend(tally.latencies.into_iter().skip(first));
        self.errors += tally.errors;
        self.example = self.example.take().or(tally.example);
        Ok(())
    }

    /// In seconds, of latencies in their order.
    fn latency(&self, share: f64) -> f64 {
        let index = (share * self.latencies.len() as f64) as usize;
        self.latencies.get(index).copied().unwrap_or_default().as_secs_f64()
    }

    /// Microseconds of CPU a request.
    fn cpu(&self) -> f64 {
        self.cpu / self.requests / 1000.0
    }

    /// Which part of its time it worked. What the hypervisor took of its core was not its time, and while the generator's core was
    /// taken, it had nothing to do. Both may be at the same time: the longer one counts.
    fn busy(&self) -> f64 {
        let stolen = self.stolen.iter().copied().fold(0.0, f64::max);
        (self.cpu / (self.wall - stolen).max(1.0)).min(1.0)
    }

    /// Requests a second.
    fn rate(&self) -> f64 {
        self.requests / self.wall * 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_no_idleness() {
        let sample = Sample { cpu: 270.0, wall: 400.0, stolen: vec![40.0, 100.0], ..Sample::default() };
        assert!((sample.busy() - 0.9).abs() < 1e-9);
        let untouched = Sample { stolen: vec![0.0, 0.0], ..sample };
        assert!((untouched.busy() - 0.675).abs() < 1e-9);
    }

    #[test]
    fn two_targets_take_turns_at_being_first() {
        let mut orders = Orders::new(2);
        assert_eq!([orders.next().to_vec(), orders.next().to_vec()], [[1, 0], [0, 1]]);
        assert!(Orders::new(0).next().is_empty());
    }

    #[test]
    fn no_target_follows_itself_and_each_follows_each_other_one() {
        for count in [3, 4, 7] {
            let mut orders = Orders::new(count);
            let mut followed = vec![vec![0; count]; count];
            let mut last = None;
            for _ in 0..96 {
                let order = orders.next().to_vec();
                for index in order {
                    if let Some(last) = last.replace(index) {
                        followed[index][last] += 1;
                    }
                }
            }
            for (index, after) in followed.iter().enumerate() {
                for (other, times) in after.iter().enumerate() {
                    assert_eq!(*times == 0, index == other, "{index} after {other}: {times} of {count}");
                }
            }
        }
    }
}
