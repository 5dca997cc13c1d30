//! The benchmark of attaché against the proxies that people would configure by hand. `benches/run` starts it.
//!
//! `machine` chooses two cores, `engine` is generator and upstream on one of them, `site` what stands around, `target`
//! what is measured on the other. `slices` measures times in turns, `fixed` what noise cannot disturb, `goals` judges,
//! `report` and `picture` tell.

mod engine;
mod fixed;
mod goals;
mod instructions;
mod machine;
mod picture;
mod relay;
mod report;
mod site;
mod slices;
mod stats;
mod suite;
mod target;
mod train;
mod usage;

use std::{env, io, path::PathBuf, process::ExitCode};

use report::End;

const USAGE: &str = "benches/run [--quick | --instructions | --train] [--only ID]... [--rounds N] [--out DIRECTORY]

--quick   only what noise cannot disturb
--instructions
          how many a request takes outside the kernel, counted by valgrind (of the parts in --only, or of five), with a profile
          of each beside the report
--train   no measuring: attaché under each load, for benches/profile
--only    one part: small-1, small-16, small-64, small-256, down-64k, down-1m, up-64k, tls-h1, tls-h2, h2c,
          grpc, routes, refresh, traces,
          latency, fixed
--out     where reports go (default target/bench, with --quick target/bench/quick)
--rounds  rounds of 0.8 to 3.2 s a target, beside the first, which is dropped (default 12)

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
    let mut wish = suite::Wish { quick: false, only: Vec::new(), rounds: 12, out: PathBuf::new() };
    let mut of_program: fn(&suite::Wish) -> io::Result<End> = suite::run;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| io::Error::other(USAGE));
        match argument.as_str() {
            "--quick" => wish.quick = true,
            "--train" => of_program = suite::train,
            "--instructions" => of_program = suite::instructions,
            "--only" => wish.only.push(value()?),
            "--rounds" => wish.rounds = value()?.parse().map_err(io::Error::other)?,
            "--out" => wish.out = value()?.into(),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(End::Good);
            }
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    if wish.out.as_os_str().is_empty() {
        wish.out = if wish.quick { "target/bench/quick" } else { "target/bench" }.into();
    }
    of_program(&wish)
}
