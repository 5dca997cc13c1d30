//! The figures that gate, of attaché and of its peers.

use std::{io, path::Path};

use crate::{
    engine::Engine,
    fixed::{self, Memory},
    goals::Verdict,
    instructions,
    machine::Cores,
    report::Report,
    scenarios::{self, OURS, TRACED},
    site::Site,
    stats::Spread,
    targets::{self, Kind, Place, Target},
};

/// Idle connections whose memory is measured.
const IDLE: usize = 9000;

/// Of figures that are measured again when a busy machine keeps them from being reached: system calls a request under load and
/// one at a time, milliseconds from the start to the first answer.
const GATES: [f64; 3] = [4.2, 6.2, 12.0];

/// What noise cannot disturb, of one program.
pub struct Firm {
    pub kind: Kind,
    /// System calls a request, with 64 connections and with one.
    pub loaded: f64,
    pub single: f64,
    /// MB at start, and under load.
    pub start: f64,
    pub load: f64,
    /// kB of an idle connection, fresh, and after a request.
    pub fresh: f64,
    pub used: f64,
    /// Milliseconds from the start to the first answer: the least, and the median.
    pub least: f64,
    pub median: f64,
}

/// Measures and judges. `quick` leaves the peers out.
pub fn run(
    quick: bool,
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
    report: &mut Report,
) -> io::Result<()> {
    report.firm_begins();
    for kind in kinds(quick).into_iter().filter(|kind| targets::present(*kind)) {
        let firm = match measure(kind, site, engine, cores) {
            Err(error) if kind != OURS => {
                report.line(&format!("\n{} could not be measured: {error}.", kind.name()));
                continue;
            }
            measured => measured?,
        };
        report.firm(&firm);
        if kind == OURS {
            judge(&firm, report);
        }
    }
    for kind in TRACED {
        let calls = calls(kind, &[(64, GATES[0])], site, engine, cores)?[0];
        let what = format!("system calls a request, 64 connections, {}", kind.name());
        report.judge(Verdict::firm(&what, calls, GATES[0], 4.0));
    }
    let small = scenarios::all().into_iter().find(|scenario| scenario.id == "small-64").expect("it is there");
    let work = if targets::has("valgrind") {
        instructions::count(&small, OURS, site, engine, cores, &site.directory)?
    } else {
        f64::NAN
    };
    // With a profile that is out of date it is more, and shows it.
    let what = "instructions a request outside the kernel, 64 connections";
    let (binary, image) = fixed::sizes()?;
    let image = image.map_or(f64::NAN, |size| size as f64 / 1e6);
    // The limits are those of a build with a profile.
    let hints = format!("benches/profile.{}", std::env::consts::ARCH);
    let why = (!Path::new(&hints).exists()).then_some("not judged: no profile for this processor");
    for verdict in [
        Verdict::firm(what, work, 32e3, 24e3),
        Verdict::firm("binary, MB", binary as f64 / 1e6, 9.0, 6.0),
        Verdict::firm("image (binary and certificates), MB", image, 9.5, 6.5),
    ] {
        report.judge(verdict.unless(why));
    }
    Ok(())
}

/// Of whom.
pub fn kinds(quick: bool) -> Vec<Kind> {
    if quick { vec![OURS] } else { vec![OURS, Kind::Nginx, Kind::Haproxy, Kind::Envoy] }
}

fn measure(kind: Kind, site: &Site, engine: &mut Engine, cores: Cores) -> io::Result<Firm> {
    let gates = if kind == OURS { GATES } else { [f64::INFINITY; 3] };
    let calls = calls(kind, &[(64, gates[0]), (1, gates[1])], site, engine, cores)?;
    let Memory { start, load, fresh, used } = fixed::memory(kind, site, engine, cores, IDLE)?;
    let starts = fixed::start_up(kind, site, engine, cores, gates[2])?;
    let megabytes = |kb: u64| kb as f64 * 1.024e-3;
    Ok(Firm {
        kind,
        loaded: calls[0],
        single: calls[1],
        start: megabytes(start),
        load: megabytes(load),
        fresh: fresh / 1000.0,
        used: used / 1000.0,
        least: fixed::least(&starts),
        median: Spread::of(starts).median,
    })
}

/// System calls a request of a target with so many connections, each counted again until it is within its gate.
fn calls(
    kind: Kind,
    wanted: &[(usize, f64)],
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
) -> io::Result<Vec<f64>> {
    let target = Target::start(kind, site, engine, Place::own(cores))?;
    let mut one = |(connections, gate): &(usize, f64)| {
        fixed::patiently(*gate, || fixed::calls(engine, &target, cores, *connections))
    };
    wanted.iter().map(&mut one).collect()
}

fn judge(firm: &Firm, report: &mut Report) {
    for (what, measured, gate, goal) in [
        ("system calls a request, 64 connections", firm.loaded, GATES[0], 4.0),
        ("system calls a request, one at a time", firm.single, GATES[1], 6.0),
        ("memory at start, MB", firm.start, 7.0, 5.0),
        ("memory under 64 connections, MB", firm.load, 10.0, 7.0),
        ("an idle connection, fresh, kB", firm.fresh, 2.0, 1.5),
        ("an idle connection, after a request, kB", firm.used, 12.0, 4.0),
        ("start to first answer, ms (least)", firm.least, GATES[2], 7.0),
    ] {
        report.judge(Verdict::firm(what, measured, gate, goal));
    }
}
