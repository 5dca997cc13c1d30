//! The benchmark of attaché against the proxies that people would configure by hand. `benches/run` starts it.
//!
//! `machine` chooses two cores, `engine` is generator and upstream on one of them, `site` what stands around, `targets`
//! what is measured on the other. `suite` is a run: `scenarios` say what is asked of whom (`plan`), `slices` measures them in turns
//! (`orders`, `sample`), `outcome` compares, `limits` judges (`goals`). `firm` is what noise cannot disturb (`fixed`,
//! `instructions`). `report` and `picture` tell.

mod engine;
mod firm;
mod fixed;
mod goals;
mod instructions;
mod limits;
mod machine;
mod orders;
mod outcome;
mod picture;
mod plan;
mod relay;
mod report;
mod sample;
mod scenarios;
mod site;
mod slices;
mod stats;
mod suite;
mod targets;
mod train;
mod usage;

use std::{env, io, path::PathBuf, process::ExitCode};

use report::End;

const USAGE: &str = "benches/run [--quick | --instructions | --train] [--only ID]... [--rounds N] [--out DIRECTORY]

--quick   only what noise cannot disturb
--instructions
          how many a request takes outside the kernel, counted by valgrind (of the parts in --only, or of five), with a profile
          of each in the folder `work` beside the report
--train   no measuring: attaché under each load, for benches/profile
--only    one part: small-1, small-16, small-64, small-256, down-64k, down-1m, up-64k, tls-h1, tls-h2, h2c,
          grpc, routes, refresh, traces,
          latency, fixed
--out     where reports go, from the root of the repository (default target/bench, with --quick target/bench/quick, with --only
          target/bench/part)
--rounds  rounds of 0.8 to 3.2 s a target, spread over four starts of all targets; the first round after a start is dropped
          (default 12)

The exit code is 1 when a figure that noise cannot disturb misses its limit, or a request through attaché failed; 77 when such a
figure could not be measured on this machine, and the report says which.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["relay", listen, upstream] => relay::run(listen, upstream).map(|()| End::Good),
        _ => measure(&arguments),
    };
    match outcome {
        Ok(End::Good) => ExitCode::SUCCESS,
        Ok(End::Bad) => ExitCode::FAILURE,
        // As the steps of tests/run say that the machine lacks something.
        Ok(End::Open) => ExitCode::from(77),
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> io::Result<End> {
    let mut wish =
        suite::Wish { quick: false, only: Vec::new(), rounds: report::LEAST_ROUNDS, out: PathBuf::new() };
    let mut of_program: fn(&suite::Wish) -> io::Result<End> = suite::run;
    let mut rest = arguments.iter();
    let wrong = |what: String| io::Error::other(format!("{what}\n\n{USAGE}"));
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| wrong(format!("{argument} needs a value")));
        match argument.as_str() {
            "--quick" => wish.quick = true,
            "--train" => of_program = suite::train,
            "--instructions" => of_program = suite::instructions,
            "--only" => wish.only.push(value()?),
            "--rounds" => {
                let rounds = value()?;
                let number = rounds.parse().ok().filter(|number| *number > 0);
                wish.rounds = number.ok_or_else(|| wrong(format!("no number of rounds: {rounds}")))?;
            }
            "--out" => wish.out = value()?.into(),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(End::Good);
            }
            other => return Err(wrong(format!("no such option: {other}"))),
        }
    }
    if let Some(unknown) = wish.only.iter().find(|id| !scenarios::is_known(id)) {
        return Err(wrong(format!("no such part: {unknown}")));
    }
    if wish.out.as_os_str().is_empty() {
        // A part does not replace the whole.
        wish.out = match (wish.quick, wish.only.is_empty()) {
            (true, _) => "target/bench/quick",
            (false, true) => "target/bench",
            (false, false) => "target/bench/part",
        }
        .into();
    }
    of_program(&wish)
}
