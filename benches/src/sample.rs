//! What a target did in one round, measured turn by turn.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, Limit, Load},
    usage,
};

/// What a target did in one round.
#[derive(Default)]
pub struct Sample {
    requests: f64,
    cpu: f64,
    wall: f64,
    // Of each processor.
    stolen: Vec<f64>,
    latencies: Vec<Duration>,
    pub errors: u64,
    pub example: Option<String>,
    /// Latencies in seconds.
    pub p50: f64,
    pub p99: f64,
}

impl Sample {
    /// Adds one turn.
    pub fn add(
        &mut self,
        engine: &mut Engine,
        load: &Load,
        pids: &[u32],
        cpus: &[usize],
        time: Duration,
    ) -> io::Result<()> {
        let stolen = |cpu: &usize| usage::stolen(*cpu);
        let before = usage::cpu(pids)?;
        let stolen_before: Vec<u64> = cpus.iter().map(stolen).collect();
        let tally = engine.run(load, Limit::Until(Instant::now() + time))?;
        self.stolen.resize(cpus.len(), 0.0);
        for (sum, (after, before)) in self.stolen.iter_mut().zip(cpus.iter().map(stolen).zip(stolen_before)) {
            *sum += after.saturating_sub(before) as f64;
        }
        // The kernel has counted the time of a thread when it sleeps, and it does not yet when the last answer arrives.
        engine.serve(Duration::from_millis(1))?;
        self.cpu += usage::cpu(pids)?.saturating_sub(before) as f64;
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

    /// The round is over.
    pub fn end(&mut self) {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        let at = |share: f64| latencies.get((share * latencies.len() as f64) as usize);
        let seconds = |share: f64| at(share).map_or(f64::NAN, Duration::as_secs_f64);
        (self.p50, self.p99) = (seconds(0.5), seconds(0.99));
    }

    /// Microseconds of CPU a request.
    pub fn cpu(&self) -> f64 {
        self.cpu / self.requests / 1000.0
    }

    /// Which part of its time it worked. What the hypervisor took of its core was not its time, and while the generator's core was
    /// taken, it had nothing to do. Both may be at the same time: the longer one counts.
    pub fn busy(&self) -> f64 {
        let stolen = self.stolen.iter().copied().fold(0.0, f64::max);
        (self.cpu / (self.wall - stolen).max(1.0)).min(1.0)
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
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
    fn a_hundredth_of_the_requests_is_slower_than_the_99th_percentile() {
        let latencies = (0..200).rev().map(Duration::from_secs).collect();
        let mut sample = Sample { latencies, ..Sample::default() };
        sample.end();
        assert_eq!((sample.p50, sample.p99), (100.0, 198.0));
        let mut empty = Sample::default();
        empty.end();
        assert!(empty.p99.is_nan());
    }
}
