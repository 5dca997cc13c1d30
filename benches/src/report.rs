//! Tables for people (Markdown, so that they can be kept), JSON for programs.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use crate::{
    goals::Verdict,
    picture,
    slices::{Outcome, Scenario},
    stats::Spread,
    target::Kind,
};

/// How a run ended.
pub enum End {
    Good,
    /// A figure that gates missed its limit, or attaché failed a request.
    Bad,
    /// One could not be measured here.
    Open,
}

#[derive(Default)]
pub struct Report {
    text: String,
    scenarios: Vec<Value>,
    verdicts: Vec<Verdict>,
    pictures: Vec<(String, String)>,
    errors: u64,
}

impl Report {
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
        self.line(&format!("\n### {}\n", scenario.title));
        self.line(&format!(
            "| | CPU a request | × {base} (quartiles) | of it system | requests/s | × {base} (quartiles) | p50 | p99 | busy | errors |"
        ));
        self.line("|---|---|---|---|---|---|---|---|---|---|");
        for outcome in outcomes {
            let Outcome { cpu_ratio: cpu, rate_ratio: rate, .. } = outcome;
            if matches!(outcome.kind, Kind::Attache(_)) {
                self.errors += outcome.errors;
            }
            let proxy = |text: String| if outcome.kind == Kind::Direct { "-".into() } else { text };
            self.line(&format!(
                "| {} | {} | {} | {} | {:.0} | {:.2} ({:.2} to {:.2}) | {:.0} µs | {:.0} µs | {} | {} |",
                outcome.kind.name(),
                proxy(format!("{:.2} µs", outcome.cpu.median)),
                proxy(ratio(cpu)),
                proxy(format!("{:.0} %", outcome.system * 100.0)),
                outcome.rate.median,
                rate.median,
                rate.low,
                rate.high,
                outcome.p50.as_secs_f64() * 1e6,
                outcome.p99.as_secs_f64() * 1e6,
                proxy(format!("{:.2}", outcome.busy)),
                outcome.errors,
            ));
        }
        for outcome in outcomes {
            if let Some(example) = &outcome.example {
                let example: String = example.chars().take(200).collect();
                self.line(&format!(
                    "\n{}: an error was: `{}`",
                    outcome.kind.name(),
                    example.replace("\r\n", " / ")
                ));
            }
        }
        let value = |outcome: &Outcome| {
            let spread = |spread: Spread| json!([spread.low, spread.median, spread.high]);
            json!({
                "target": outcome.kind.name(),
                "cpu_us": spread(outcome.cpu),
                "cpu_ratio": spread(outcome.cpu_ratio),
                "requests_per_second": spread(outcome.rate),
                "rate_ratio": spread(outcome.rate_ratio),
                "system_share": outcome.system,
                "busy": outcome.busy,
                "p50_us": outcome.p50.as_secs_f64() * 1e6,
                "p99_us": outcome.p99.as_secs_f64() * 1e6,
                "errors": outcome.errors,
            })
        };
        let values: Vec<Value> = outcomes.iter().map(value).collect();
        self.scenarios
            .push(json!({ "id": scenario.id, "title": scenario.title, "base": base, "targets": values }));
        self.pictures.push((scenario.id.into(), picture::bars(scenario.title, &base, outcomes)));
    }

    /// The table of verdicts and the files.
    pub fn finish(mut self, machine: &str, directory: &Path) -> io::Result<End> {
        let verdicts = std::mem::take(&mut self.verdicts);
        self.line("\n### Against the goals\n\n| measure | measured | gate | goal | |\n|---|---|---|---|---|");
        for verdict in &verdicts {
            self.line(&format!(
                "| {} | {:.3} | {} | {} | {} |",
                verdict.what,
                verdict.measured,
                verdict.gate,
                verdict.goal,
                verdict.word()
            ));
        }
        let judged = |verdict: &Verdict| {
            json!({
                "what": verdict.what, "measured": verdict.measured, "gate": verdict.gate, "goal": verdict.goal,
                "verdict": verdict.word(), "gates": verdict.firm,
            })
        };
        let judged: Vec<Value> = verdicts.iter().map(judged).collect();
        let all = json!({ "machine": machine, "scenarios": self.scenarios, "verdicts": judged });
        fs::write(directory.join("report.json"), format!("{all:#}\n"))?;
        for (id, svg) in &self.pictures {
            fs::write(directory.join(format!("{id}.svg")), svg)?;
        }
        let failed = verdicts.iter().filter(|verdict| verdict.fails()).count();
        let firm = verdicts.iter().filter(|verdict| verdict.firm).count();
        let open: Vec<&str> = verdicts
            .iter()
            .filter(|verdict| verdict.is_open())
            .map(|verdict| verdict.what.as_str())
            .collect();
        if firm > 0 {
            self.line(&format!(
                "\nresult: {} of {firm} figures that gate are within their limits",
                firm - failed - open.len()
            ));
        }
        if !open.is_empty() {
            self.line(&format!("\nSKIPPED: could not be measured on this machine: {}", open.join("; ")));
        }
        if self.errors > 0 {
            self.line(&format!("\nFAILED: {} requests through attaché", self.errors));
        }
        fs::write(directory.join("report.md"), &self.text)?;
        println!("Written to {}: report.md, report.json and a picture for each table.", directory.display());
        Ok(match (failed == 0 && self.errors == 0, open.is_empty()) {
            (false, _) => End::Bad,
            (true, false) => End::Open,
            (true, true) => End::Good,
        })
    }
}

/// The median and quartiles of a ratio.
fn ratio(spread: &Spread) -> String {
    let Spread { low, median, high } = spread;
    if spread.wide() {
        format!("{median:.2} ({low:.2} to {high:.2}), noisy")
    } else {
        format!("**{median:.2}** ({low:.2} to {high:.2})")
    }
}
