//! Tables for people (Markdown, so that they can be kept), JSON for programs.

use std::{env, fs, io, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    firm::Firm,
    goals::Verdict,
    machine::{self, Cores},
    outcome::{Outcome, Ratio},
    picture,
    scenarios::OURS,
    slices::Scenario,
    stats::Spread,
    targets::{self, Kind},
};

/// How a run ended.
pub enum End {
    Good,
    /// A figure that gates missed its limit, or attaché failed a request.
    Bad,
    /// One could not be measured here.
    Open,
}

pub struct Report {
    text: String,
    /// What is known before anything is measured.
    about: Value,
    scenarios: Vec<Value>,
    firm: Vec<Value>,
    verdicts: Vec<Verdict>,
    pictures: Vec<(String, String)>,
    errors: u64,
}

/// Fewer give no verdict.
pub const LEAST_ROUNDS: usize = 12;

impl Report {
    /// Begins with the machine and the programs.
    pub fn new(cores: Cores) -> Self {
        let machine = machine::describe();
        let versions: Vec<String> = [OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy]
            .into_iter()
            .filter(|kind| targets::present(*kind))
            .filter_map(targets::version)
            .collect();
        let commit = env::var("BENCH_COMMIT").unwrap_or_else(|_| "attaché: a binary that was given".into());
        let mut report = Self {
            text: String::new(),
            about: json!({ "machine": machine, "commit": commit, "programs": versions }),
            scenarios: Vec::new(),
            firm: Vec::new(),
            verdicts: Vec::new(),
            pictures: Vec::new(),
            errors: 0,
        };
        report.line(&format!(
            "Machine: {machine}. Generator on processor {}, proxy on {}.",
            cores.generator, cores.proxy
        ));
        if cores.are_one() {
            report.line("\nThese two processors are threads of one core, and slow each other down: nothing of time is worth much here.");
        }
        report.line(&format!("\nPrograms: {} ({commit}).", versions.join("; ")));
        report
    }

    pub fn line(&mut self, line: &str) {
        println!("{line}");
        self.text += line;
        self.text += "\n";
    }

    pub fn judge(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    pub fn scenario(&mut self, scenario: &Scenario, outcomes: &[Outcome]) {
        let base = scenario.base.name();
        let compared = outcomes.iter().find(|outcome| outcome.kind == scenario.base);
        self.line(&format!("\n### {}\n", scenario.title));
        self.line(&format!(
            "| | CPU a request | × {base} (quartiles) | of it system | requests/s | × {base} (quartiles) | p50 | p99 | busy | errors |"
        ));
        self.line("|---|---|---|---|---|---|---|---|---|---|");
        for outcome in outcomes {
            if matches!(outcome.kind, Kind::Attache(_)) {
                self.errors += outcome.errors;
            }
            self.line(&row(outcome, compared));
        }
        for outcome in outcomes {
            if let Some(example) = &outcome.example {
                let example: String = example.chars().take(200).collect();
                let example = example.replace("\r\n", " / ");
                self.line(&format!("\n{}: an error was: `{example}`", outcome.kind.name()));
            }
        }
        let targets: Vec<Value> = outcomes.iter().map(value).collect();
        self.scenarios
            .push(json!({ "id": scenario.id, "title": scenario.title, "base": base, "targets": targets }));
        if let Some(compared) = compared {
            self.pictures.push((scenario.id.into(), picture::bars(scenario.title, compared, outcomes)));
        }
    }

    /// The head of the table of what noise does not disturb.
    pub fn firm_begins(&mut self) {
        self.line("\n### What noise does not disturb\n");
        self.line("| | system calls a request, 64 connections / 1 | memory at start / under load | an idle connection, fresh / after a request | start to first answer, least / median |");
        self.line("|---|---|---|---|---|");
    }

    /// One of its rows.
    pub fn firm(&mut self, firm: &Firm) {
        let Firm { kind, loaded, single, start, load, fresh, used, least, median } = firm;
        let name = kind.name();
        self.line(&format!(
            "| {name} | {loaded:.2} / {single:.2} | {start:.1} MB / {load:.1} MB | {fresh:.2} kB / {used:.2} kB | \
             {least:.1} ms / {median:.1} ms |"
        ));
        self.firm.push(json!({
            "target": name, "calls_loaded": loaded, "calls_single": single, "start_mb": start, "load_mb": load,
            "idle_fresh_kb": fresh, "idle_used_kb": used, "start_least_ms": least, "start_median_ms": median,
        }));
    }

    /// The table of verdicts, the end of the text, and the files.
    pub fn finish(
        mut self,
        rounds: usize,
        took: Duration,
        stolen: Duration,
        directory: &Path,
    ) -> io::Result<End> {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        // Of a few figures the quartiles say nothing.
        let few = verdicts.iter_mut().filter(|verdict| rounds < LEAST_ROUNDS && verdict.quartiles.is_some());
        few.for_each(|verdict| verdict.why = verdict.why.or(Some("too few rounds")));
        self.line("\n### Against the goals\n\n| measure | measured (quartiles) | gate | goal | |\n|---|---|---|---|---|");
        for verdict in &verdicts {
            let Verdict { what, measured, quartiles, gate, goal, .. } = verdict;
            let quartiles =
                quartiles.map(|(low, high)| format!(" ({low:.3} to {high:.3})")).unwrap_or_default();
            let word = verdict.word();
            self.line(&format!("| {what} | {measured:.3}{quartiles} | {gate} | {goal} | {word} |"));
        }
        let stolen = stolen.as_secs_f64() / 2.0 / took.as_secs_f64();
        let today = machine::today();
        self.line(&format!(
            "\nOn {today}, {rounds} rounds, {:.0} minutes; the hypervisor took {:.2} % of the two processors meanwhile.",
            took.as_secs_f64() / 60.0,
            100.0 * stolen
        ));
        let judged = |verdict: &Verdict| {
            json!({
                "what": verdict.what, "measured": verdict.measured, "quartiles": verdict.quartiles, "gate": verdict.gate,
                "goal": verdict.goal, "verdict": verdict.word(), "gates": verdict.firm,
            })
        };
        let judged: Vec<Value> = verdicts.iter().map(judged).collect();
        let all = json!({
            "about": self.about, "date": today, "rounds": rounds, "seconds": took.as_secs_f64(), "stolen": stolen,
            "scenarios": self.scenarios, "firm": self.firm, "verdicts": judged,
        });
        fs::write(directory.join("report.json"), format!("{all:#}\n"))?;
        for (id, svg) in &self.pictures {
            fs::write(directory.join(format!("{id}.svg")), svg)?;
        }
        let end = self.sum_up(&verdicts);
        fs::write(directory.join("report.md"), &self.text)?;
        println!("Written to {}: report.md, report.json and a picture for each table.", directory.display());
        Ok(end)
    }

    fn sum_up(&mut self, verdicts: &[Verdict]) -> End {
        let failed = verdicts.iter().filter(|verdict| verdict.fails()).count();
        let firm = verdicts.iter().filter(|verdict| verdict.firm && verdict.why.is_none()).count();
        let open: Vec<&str> = verdicts
            .iter()
            .filter(|verdict| verdict.is_open())
            .map(|verdict| verdict.what.as_str())
            .collect();
        if firm > 0 {
            let within = firm - failed - open.len();
            self.line(&format!("\nresult: {within} of {firm} figures that gate are within their limits"));
        }
        if !open.is_empty() {
            self.line(&format!("\nSKIPPED: could not be measured on this machine: {}", open.join("; ")));
        }
        if self.errors > 0 {
            self.line(&format!("\nFAILED: {} requests through attaché", self.errors));
        }
        match (failed == 0 && self.errors == 0, open.is_empty()) {
            (false, _) => End::Bad,
            (true, false) => End::Open,
            (true, true) => End::Good,
        }
    }
}

/// A target's row in the table of a scenario.
fn row(outcome: &Outcome, base: Option<&Outcome>) -> String {
    // Nobody is no proxy, and uses nothing.
    let proxy = |text: String| if outcome.kind == Kind::Direct { "-".into() } else { text };
    let cell = |ratio: fn(&Outcome, &Outcome) -> Ratio| {
        base.map_or_else(|| "not measured".into(), |base| ratio(outcome, base).cell())
    };
    let median = |figures: &[f64]| Spread::of(figures.iter().copied()).median;
    format!(
        "| {} | {} | {} | {} | {:.0} | {} | {:.0} µs | {:.0} µs | {} | {} |",
        outcome.kind.name(),
        proxy(format!("{:.2} µs", median(&outcome.cpus))),
        proxy(cell(|outcome, base| outcome.against(base, |outcome| &outcome.cpus))),
        proxy(format!("{:.0} %", outcome.system * 100.0)),
        median(&outcome.rates),
        cell(Outcome::rate_against),
        median(&outcome.p50s) * 1e6,
        median(&outcome.p99s) * 1e6,
        proxy(format!("{:.2}", outcome.busy)),
        outcome.errors,
    )
}

/// The same for programs, round by round.
fn value(outcome: &Outcome) -> Value {
    json!({
        "target": outcome.kind.name(),
        "cpu_us": outcome.cpus,
        "requests_per_second": outcome.rates,
        "p50_s": outcome.p50s,
        "p99_s": outcome.p99s,
        "system_share": outcome.system,
        "busy": outcome.busy,
        "errors": outcome.errors,
    })
}
