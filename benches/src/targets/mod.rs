//! What is measured: attaché, its peers, the relay, and nobody.

mod commands;
mod kind;
mod ports;
mod programs;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use self::ports::Ports;
pub use self::{
    kind::{Kind, Variant, Way},
    programs::{attache_binary, has, present, version},
};
use crate::{
    engine::Engine,
    machine::{self, Cores},
    site::Site,
    usage,
};

/// A running target.
pub struct Target {
    pub kind: Kind,
    pub plain: SocketAddr,
    ports: Ports,
    child: Option<Child>,
}

/// Where a target runs, and under what.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub cores: Cores,
    /// The processor.
    pub cpu: usize,
    /// Under valgrind, which leaves its profile there.
    pub profile: Option<&'a Path>,
}

impl Place<'_> {
    /// On the core of the targets.
    pub fn own(cores: Cores) -> Self {
        Self { cores, cpu: cores.proxy, profile: None }
    }

    /// On the core of the generator, beside it.
    pub fn shared(cores: Cores) -> Self {
        Self { cpu: cores.generator, ..Self::own(cores) }
    }
}

impl Target {
    /// Starts it and waits until it accepts connections.
    pub fn start(kind: Kind, site: &Site, engine: &mut Engine, place: Place<'_>) -> io::Result<Self> {
        let mut target = Self::launch(kind, site, place)?;
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(target.plain).is_err() {
            if let Some(status) = target.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                let log = site.directory.join(kind.file_name() + ".log");
                return Err(io::Error::other(format!(
                    "{} ended: {status}; see {}",
                    kind.name(),
                    log.display()
                )));
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{} does not listen", kind.name())));
            }
            engine.serve(Duration::from_millis(5))?;
        }
        // The first token, the second process of those that fork.
        engine.serve(Duration::from_millis(500))?;
        Ok(target)
    }

    /// Starts it and returns at once.
    pub fn launch(kind: Kind, site: &Site, place: Place<'_>) -> io::Result<Self> {
        let ports = Ports::find()?;
        let Some(mut command) = commands::of(kind, site, &ports, place.profile)? else {
            return Ok(Self { kind, plain: site.open, ports, child: None });
        };
        let log = fs::File::create(site.directory.join(kind.file_name() + ".log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = machine::spawn(&mut command, place.cores, place.cpu)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", kind.name())))?;
        let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.plain()));
        Ok(Self { kind, plain, ports, child: Some(child) })
    }

    /// Where requests go that are to take a way.
    pub fn address(&self, way: Way) -> Option<SocketAddr> {
        let at = match self.kind {
            Kind::Attache(_) | Kind::Direct => 0,
            _ => Way::ALL.iter().position(|known| *known == way)?,
        };
        let listens = self.kind.takes(way);
        let port = if self.child.is_none() { self.plain.port() } else { self.ports.ways[at] };
        listens.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Asks it to end, as an orchestrator does, and waits until it has.
    pub fn end(mut self, engine: &mut Engine) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let until = Instant::now() + Duration::from_secs(60);
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other(format!("{} does not end", self.kind.name())));
            }
            engine.serve(Duration::from_millis(5))?;
        }
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        self.child.as_ref().map(|child| usage::family(child.id())).unwrap_or_default()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            for pid in usage::family(child.id()).into_iter().rev() {
                if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = child.wait();
        }
    }
}
