//! Runs a build that counts what it does (`-C profile-generate`) under the loads of the benchmark, for `benches/profile`.

use std::{io, time::Duration};

use crate::{
    engine::{Engine, Limit},
    machine::Cores,
    site::Site,
    slices::Scenario,
    targets::{Kind, Place, Target},
};

/// Requests of a scenario, and of one with large bodies, whose copying must not be all that counts.
const REQUESTS: u64 = 20_000;
const LARGE: u64 = 500;

/// One scenario. The process writes what it counted when it ends.
pub fn run(
    scenario: &Scenario,
    kind: Kind,
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
) -> io::Result<u64> {
    let target = Target::start(kind, site, engine, Place::own(cores))?;
    let load = scenario.load(engine, &target)?;
    let requests = if scenario.size == "128" { REQUESTS } else { LARGE };
    let tally = engine.run(&load, Limit::Requests(requests))?;
    engine.close(load);
    // Some sweeps over what is idle.
    engine.serve(Duration::from_secs(2))?;
    target.end(engine)?;
    tally.example.map_or(Ok(tally.completed), |error| Err(io::Error::other(error)))
}
