//! What noise cannot disturb: system calls, memory, start, size. These figures gate.

use std::{
    fs, io,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, Limit},
    machine::{self, Cores},
    plan::{plan, untold},
    site::Site,
    targets::{self, Kind, Place, Target},
    usage,
};

/// The least of some measurements: on a busy machine noise adds to each of them, and never takes away. A figure that is not within
/// its gate is measured up to five times.
pub fn patiently(gate: f64, mut measure: impl FnMut() -> io::Result<f64>) -> io::Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        least = least.min(measure()?);
        if least <= gate || !least.is_finite() {
            break;
        }
    }
    Ok(if least.is_finite() { least } else { f64::NAN })
}

/// System calls a request, counted by `strace -f -c` over some thousand of them; no number without a strace that may.
pub fn calls(engine: &mut Engine, target: &Target, cores: Cores, connections: usize) -> io::Result<f64> {
    const REQUESTS: u64 = 4000;
    let mut plan = plan("v1", "128", target.plain, None);
    if target.kind.chooses_what_is_traced() {
        plan = untold(&plan);
    }
    let load = engine.connect(target.plain, connections, &plan)?;
    engine.run(&load, Limit::Requests(500))?;
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-c", "-U", "name,calls"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for pid in target.pids() {
        strace.args(["-p", &pid.to_string()]);
    }
    // On the core of what it traces: one of the two always waits for the other.
    let mut child = match machine::spawn(&mut strace, cores, cores.proxy) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("strace: {error}");
            return Ok(f64::NAN);
        }
    };
    let mut output = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    // One line a process says that it is attached; threads of the same process come with it.
    for _ in target.pids() {
        output.read_line(&mut line)?;
    }
    engine.serve(Duration::from_millis(200))?;
    let tally = engine.run(&load, Limit::Requests(REQUESTS))?;
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a child has an id");
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let mut summary = String::new();
    output.read_to_string(&mut summary)?;
    child.wait()?;
    engine.close(load);
    engine.serve(Duration::from_millis(50))?;
    let total = summary.lines().rfind(|line| line.trim_start().starts_with("total"));
    let total = total.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    if total.is_none() {
        // That it may not trace, more likely than not.
        eprintln!("{}{summary}", line);
    }
    if tally.errors > 0 {
        return Err(io::Error::other(format!("{}: {} requests failed", target.kind.name(), tally.errors)));
    }
    Ok(total.map_or(f64::NAN, |total| total / tally.completed as f64))
}

/// Memory in kB: at start, under 64 connections, and bytes for each of many idle connections, fresh and after a request.
pub struct Memory {
    pub start: u64,
    pub load: u64,
    pub fresh: f64,
    pub used: f64,
}

/// Of a target that nobody has used before.
pub fn memory(kind: Kind, site: &Site, engine: &mut Engine, cores: Cores, idle: usize) -> io::Result<Memory> {
    let target = Target::start(kind, site, engine, Place::own(cores))?;
    let start = usage::memory(&target.pids());
    let plan = plan("v1", "128", target.plain, None);
    // Some are the generator's and the target's own.
    let may = machine::files() >= idle as u64 + 200;
    let idle = if may { idle } else { 0 };
    let fresh_load = engine.connect(target.plain, idle, &plan)?;
    engine.serve(Duration::from_millis(500))?;
    let fresh = usage::memory(&target.pids());
    // One request on each connection, at most 3,200 a second: thousands of connections are used over the day, not at once.
    let mut errors = 0;
    for (sent, caller) in fresh_load.callers.iter().enumerate() {
        if sent % 64 == 63 {
            engine.serve(Duration::from_millis(20))?;
        }
        let one = crate::engine::Load { callers: vec![*caller], plan: plan.clone() };
        errors += engine.run(&one, Limit::Requests(1))?.errors;
    }
    // What a connection keeps once it has been idle for a moment, not while its next request may still be on the way.
    engine.serve(Duration::from_secs(4))?;
    let used = usage::memory(&target.pids());
    engine.close(fresh_load);
    drop(target);
    let target = Target::start(kind, site, engine, Place::own(cores))?;
    let load = engine.connect(target.plain, 64, &plan)?;
    errors += engine.run(&load, Limit::Until(Instant::now() + Duration::from_secs(1)))?.errors;
    let loaded = usage::memory(&target.pids());
    engine.close(load);
    if errors > 0 {
        return Err(io::Error::other(format!("{}: {errors} requests failed", kind.name())));
    }
    if start == 0 || loaded == 0 {
        return Err(io::Error::other(format!("{}: its memory cannot be read", kind.name())));
    }
    let each = |kb: u64| if may { (kb as f64 - start as f64) * 1024.0 / idle as f64 } else { f64::NAN };
    Ok(Memory { start, load: loaded, fresh: each(fresh), used: each(used) })
}

/// Milliseconds from the start of the process to the first answer that came through it: 21 times, and up to ten times as often
/// while a busy machine has not let one of them pass within the gate.
pub fn start_up(
    kind: Kind,
    site: &Site,
    engine: &mut Engine,
    cores: Cores,
    gate: f64,
) -> io::Result<Vec<f64>> {
    let mut all = Vec::new();
    while all.len() < 21 || (least(&all) > gate && all.len() < 210) {
        let began = Instant::now();
        let target = Target::launch(kind, site, Place::own(cores))?;
        let mut stream = loop {
            match TcpStream::connect(target.plain) {
                Ok(stream) => break stream,
                Err(_) if began.elapsed() > Duration::from_secs(20) => {
                    return Err(io::Error::other("it does not listen"));
                }
                Err(_) => engine.serve(Duration::from_micros(50))?,
            }
        };
        stream.write_all(&plan("v1", "128", target.plain, None).requests[0])?;
        stream.set_nonblocking(true)?;
        let mut answer = [0; 4096];
        let read = loop {
            match stream.read(&mut answer) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    engine.serve(Duration::from_micros(50))?
                }
                Err(error) => return Err(error),
            }
        };
        let took = began.elapsed();
        if !answer[..read].starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other(format!(
                "{}: the first answer was {}",
                kind.name(),
                String::from_utf8_lossy(&answer[..read])
            )));
        }
        all.push(took.as_secs_f64() * 1000.0);
    }
    Ok(all)
}

/// Bytes of attaché's release binary, and of the image around it: the binary and the authorities' certificates.
pub fn sizes() -> io::Result<(u64, Option<u64>)> {
    let binary = fs::metadata(targets::attache_binary())?.len();
    let certificates = fs::metadata("/etc/ssl/certs/ca-certificates.crt").ok().map(|file| file.len());
    Ok((binary, certificates.map(|size| binary + size)))
}

/// The least of some times: what the program needs when nothing disturbs it.
pub fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}
