//! A figure beside what must be reached and what should be.

use crate::{outcome::Ratio, stats::Spread};

/// One measured figure beside its limits.
pub struct Verdict {
    pub what: String,
    pub measured: f64,
    /// Of a ratio that differs from round to round.
    pub quartiles: Option<(f64, f64)>,
    pub gate: f64,
    pub goal: f64,
    /// More is better.
    pub rising: bool,
    /// Noise cannot disturb it, so that missing the gate fails the run.
    pub firm: bool,
    /// Why it cannot be judged.
    pub why: Option<&'static str>,
}

impl Verdict {
    /// A figure that should be small and that noise cannot disturb.
    pub fn firm(what: &str, measured: f64, gate: f64, goal: f64) -> Self {
        Self {
            what: what.into(),
            measured,
            quartiles: None,
            gate,
            goal,
            rising: false,
            firm: true,
            why: None,
        }
    }

    /// The same, where something else than the figure says that it cannot be judged here.
    pub fn unless(self, why: Option<&'static str>) -> Self {
        Self { why, ..self }
    }

    /// A ratio of times, or none without the peer: never fails a run.
    pub fn ratio(what: String, ratio: Option<Ratio>, gate: f64, goal: f64) -> Self {
        let (spread, why) = ratio.map_or((None, None), |ratio| (Some(ratio.spread), ratio.why));
        let measured = spread.map_or(f64::NAN, |spread| spread.median);
        let quartiles = spread.map(|Spread { low, high, .. }| (low, high));
        Self { what, measured, quartiles, gate, goal, rising: gate < goal, firm: false, why }
    }

    pub fn word(&self) -> &'static str {
        let within = |limit: f64| if self.rising { self.measured >= limit } else { self.measured <= limit };
        match self.why {
            Some(why) => why,
            None if self.measured.is_nan() => "not measured",
            None if within(self.goal) => "goal",
            None if within(self.gate) => "gate",
            None => "MISSED",
        }
    }

    pub fn fails(&self) -> bool {
        self.firm && self.word() == "MISSED"
    }

    /// Whether it gates and could not be measured here.
    pub fn is_open(&self) -> bool {
        self.firm && self.measured.is_nan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_misses_its_gate_does_not_fail_the_run() {
        assert!(Verdict::firm("calls", 5.0, 4.2, 4.0).fails());
        assert!(!Verdict::firm("calls", 4.1, 4.2, 4.0).fails());
        let unknown = Verdict::firm("calls", f64::NAN, 4.2, 4.0);
        assert_eq!((unknown.word(), unknown.fails(), unknown.is_open()), ("not measured", false, true));
        let ratio = |median| Ratio { spread: Spread { low: median, median, high: median }, why: None };
        let slow = Verdict::ratio("cpu".into(), Some(ratio(1.2)), 1.0, 0.95);
        assert_eq!((slow.word(), slow.fails()), ("MISSED", false));
        assert_eq!(Verdict::ratio("rate".into(), Some(ratio(1.1)), 1.0, 1.06).word(), "goal");
        let alone = Verdict::ratio("rate".into(), None, 1.0, 1.06);
        assert_eq!((alone.word(), alone.fails(), alone.is_open()), ("not measured", false, false));
    }
}
