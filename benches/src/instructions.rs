//! Instructions a request outside the kernel, counted by valgrind: the same on a busy machine as on an idle one.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    engine::{Engine, Limit},
    machine::Cores,
    site::Site,
    slices::Scenario,
    targets::{Kind, Place, Target},
};

const WARM: u64 = 1000;
const REQUESTS: u64 = 4000;

/// Counts, and leaves a profile of each scenario in a directory.
pub fn count(
    scenario: &Scenario,
    kind: Kind,
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
    out: &Path,
) -> io::Result<f64> {
    let profile = out.join(format!("callgrind.{}.{}", scenario.id, kind.file_name()));
    engine.busy = false;
    let place = Place { profile: Some(&profile), ..Place::own(cores) };
    let target = Target::start(kind, site, engine, place)?;
    let load = scenario.load(engine, &target)?;
    engine.serve(Duration::from_millis(500))?;
    let warm = engine.run(&load, Limit::Requests(WARM))?;
    let pid = target.pids()[0].to_string();
    control(engine, &["--zero", &pid])?;
    let tally = engine.run(&load, Limit::Requests(REQUESTS))?;
    control(engine, &["--dump", &pid])?;
    if let Some(error) = warm.example.or(tally.example) {
        return Err(io::Error::other(error));
    }
    // Valgrind numbers what it dumps.
    let text = fs::read_to_string(format!("{}.1", profile.display()))?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse::<f64>().ok());
    Ok(total.ok_or_else(|| io::Error::other("valgrind wrote no total"))? / tally.completed as f64)
}

fn control(engine: &mut Engine, arguments: &[&str]) -> io::Result<()> {
    let mut child = Command::new("callgrind_control").args(arguments).stdout(Stdio::null()).spawn()?;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(format!("callgrind_control: {status}"))),
            None => engine.serve(Duration::from_millis(5))?,
        }
    }
}
