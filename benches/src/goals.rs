//! What must be reached and what should be, as the project has set it.

/// One measured figure beside its limits.
pub struct Verdict {
    pub what: String,
    pub measured: f64,
    pub gate: f64,
    pub goal: f64,
    /// More is better.
    pub rising: bool,
    /// Noise cannot disturb it, so that missing the gate fails the run.
    pub firm: bool,
    pub noisy: Option<&'static str>,
}

impl Verdict {
    /// A figure that should be small and that noise cannot disturb.
    pub fn firm(what: &str, measured: f64, gate: f64, goal: f64) -> Self {
        Self { what: what.into(), measured, gate, goal, rising: false, firm: true, noisy: None }
    }

    /// A ratio of times: never fails a run.
    pub fn ratio(what: String, measured: f64, gate: f64, goal: f64, noisy: Option<&'static str>) -> Self {
        Self { what, measured, gate, goal, rising: gate < goal, firm: false, noisy }
    }

    pub fn word(&self) -> &'static str {
        let within = |limit: f64| if self.rising { self.measured >= limit } else { self.measured <= limit };
        match self.noisy {
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
        let slow = Verdict::ratio("cpu".into(), 1.2, 1.0, 0.95, None);
        assert_eq!((slow.word(), slow.fails()), ("MISSED", false));
        assert_eq!(Verdict::ratio("rate".into(), 1.1, 1.0, 1.06, None).word(), "goal");
    }
}
