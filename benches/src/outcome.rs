//! What the rounds of a scenario say about a target, and about two of them.

use crate::{
    sample::Sample,
    slices::{Scenario, Series},
    stats::Spread,
    targets::Kind,
};

/// What one target did in a scenario.
pub struct Outcome {
    pub kind: Kind,
    /// Microseconds of CPU a request, and requests a second, of each round.
    pub cpus: Vec<f64>,
    pub rates: Vec<f64>,
    /// Latencies in seconds, of each round.
    pub p50s: Vec<f64>,
    pub p99s: Vec<f64>,
    /// Which part of its time it worked, the median of the rounds.
    pub busy: f64,
    /// Which part of its CPU time the kernel had.
    pub system: f64,
    pub errors: u64,
    pub example: Option<String>,
    /// One connection is served one request at a time: nothing saturates, and nothing is meant to.
    saturates: bool,
}

/// A ratio of two targets, and why no verdict can be given on it.
#[derive(Clone, Copy)]
pub struct Ratio {
    pub spread: Spread,
    pub why: Option<&'static str>,
}

const ERRORS: &str = "no verdict: there were errors";
const IDLE: &str = "noisy: the proxy was less than 0.9 busy";
const WIDE: &str = "noisy: a quartile lies more than 5 % from the median";

impl Outcome {
    /// Of each target that had rounds.
    pub fn all(scenario: &Scenario, series: &[Series]) -> Vec<Self> {
        let of = |series: &Series| Self::of(series, scenario.connections > 1);
        series.iter().filter(|series| !series.samples.is_empty()).map(of).collect()
    }

    fn of(series: &Series, saturates: bool) -> Self {
        let each = |figure: fn(&Sample) -> f64| series.samples.iter().map(figure).collect::<Vec<f64>>();
        let (user, system) = series.ticks;
        Self {
            kind: series.kind,
            cpus: each(Sample::cpu),
            rates: each(Sample::rate),
            p50s: each(|sample| sample.p50),
            p99s: each(|sample| sample.p99),
            busy: Spread::of(each(Sample::busy)).median,
            system: system as f64 / (user + system).max(1) as f64,
            errors: series.errors,
            example: series.example.clone(),
            saturates: saturates && series.kind != Kind::Direct,
        }
    }

    /// A figure as a ratio to that of a peer in the same round.
    pub fn against(&self, peer: &Self, figure: fn(&Self) -> &[f64]) -> Ratio {
        self.compare(&[peer], |round| figure(self)[round] / figure(peer)[round])
    }

    /// The same of requests a second, of which there is a verdict only where they are limited by the proxy.
    pub fn rate_against(&self, peer: &Self) -> Ratio {
        let Ratio { spread, why } = self.against(peer, |outcome| &outcome.rates);
        let idle = [self, peer].iter().any(|outcome| !outcome.saturates && outcome.kind != Kind::Direct);
        Ratio { spread, why: why.or(idle.then_some(IDLE)) }
    }

    /// What this one adds to a figure of `nobody`, as a ratio to what a peer adds, round by round.
    pub fn added(&self, peer: &Self, nobody: &Self, figure: fn(&Self) -> &[f64]) -> Ratio {
        let added = |whose: &Self, round: usize| figure(whose)[round] - figure(nobody)[round];
        self.compare(&[peer, nobody], |round| added(self, round) / added(peer, round))
    }

    fn compare(&self, peers: &[&Self], ratio: impl Fn(usize) -> f64) -> Ratio {
        let all = || peers.iter().copied().chain([self]);
        let rounds = all().map(|outcome| outcome.cpus.len()).min().unwrap_or(0);
        let spread = Spread::of((0..rounds).map(ratio));
        let why = if all().any(|outcome| outcome.errors > 0) {
            Some(ERRORS)
        } else if all().any(|outcome| outcome.saturates && outcome.busy < 0.9) {
            Some(IDLE)
        } else if spread.wide() {
            Some(WIDE)
        } else {
            None
        };
        Ratio { spread, why }
    }
}

impl Ratio {
    /// Why there is no verdict, in a word.
    pub fn word(&self) -> Option<&'static str> {
        self.why.map(|why| match why {
            ERRORS => "errors",
            IDLE => "not busy",
            _ => "noisy",
        })
    }

    /// In a cell of a table: the median and quartiles, and that word.
    pub fn cell(&self) -> String {
        let Spread { low, median, high } = self.spread;
        match self.word() {
            None => format!("**{median:.2}** ({low:.2} to {high:.2})"),
            Some(word) => format!("{median:.2} ({low:.2} to {high:.2}), {word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(cpus: &[f64]) -> Outcome {
        Outcome {
            kind: Kind::Nginx,
            cpus: cpus.into(),
            rates: cpus.into(),
            p50s: cpus.into(),
            p99s: cpus.into(),
            busy: 1.0,
            system: 0.5,
            errors: 0,
            example: None,
            saturates: true,
        }
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        let ratio = outcome(&[1.0, 2.0, 4.0]).against(&outcome(&[2.0, 4.0, 8.0]), |outcome| &outcome.cpus);
        assert_eq!((ratio.spread.median, ratio.why), (0.5, None));
        assert_eq!(ratio.cell(), "**0.50** (0.50 to 0.50)");
    }

    #[test]
    fn what_failed_idled_or_varied_is_not_judged() {
        let good = outcome(&[1.0, 1.0, 1.0]);
        let cpus: fn(&Outcome) -> &[f64] = |outcome| &outcome.cpus;
        let failed = Outcome { errors: 1, ..outcome(&[1.0, 1.0, 1.0]) };
        let idle = Outcome { busy: 0.8, ..outcome(&[1.0, 1.0, 1.0]) };
        let varied = outcome(&[2.0, 4.0, 8.0]);
        for (other, why, word) in
            [(failed, ERRORS, "errors"), (idle, IDLE, "not busy"), (varied, WIDE, "noisy")]
        {
            assert_eq!(other.against(&good, cpus).why, Some(why));
            assert_eq!(good.added(&outcome(&[3.0, 3.0, 3.0]), &other, cpus).why, Some(why));
            let ratio = good.against(&other, cpus);
            assert_eq!(ratio.why, Some(why));
            assert!(ratio.cell().ends_with(word), "{}", ratio.cell());
        }
    }

    #[test]
    fn what_nobody_is_busy_with_says_nothing_of_throughput() {
        let one = Outcome { saturates: false, ..outcome(&[1.0, 1.0, 1.0]) };
        assert_eq!(one.against(&one, |outcome| &outcome.cpus).why, None);
        assert_eq!(one.rate_against(&one).why, Some(IDLE));
        let many = outcome(&[1.0, 1.0, 1.0]);
        assert_eq!(many.rate_against(&many).why, None);
    }

    #[test]
    fn what_is_added_is_compared_without_what_is_there_anyway() {
        let (ours, nginx, direct) = (outcome(&[3.0, 4.0]), outcome(&[5.0, 7.0]), outcome(&[1.0, 1.0]));
        assert_eq!(ours.added(&nginx, &direct, |outcome| &outcome.p99s).spread.median, 0.5);
    }
}
