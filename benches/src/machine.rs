//! The machine: two cores that share nothing, and how threads are put on them.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    process::{Child, Command},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core of the generator and the core of what is measured.
#[derive(Clone, Copy)]
pub struct Cores {
    pub generator: usize,
    pub proxy: usize,
}

impl Cores {
    /// Two of the allowed processors, where there are any not two threads of one core.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(None).expect("own affinity is readable");
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let generator = cpus[0];
        let proxy = cpus.iter().copied().find(|cpu| core(*cpu) != core(generator));
        let proxy = proxy.or(cpus.get(1).copied());
        let proxy = proxy.ok_or_else(|| io::Error::other("two processors are needed"))?;
        Ok(Self { generator, proxy })
    }

    /// Whether they are two threads of one core.
    pub fn are_one(self) -> bool {
        core(self.generator) == core(self.proxy)
    }
}

/// Which core a processor is of, as far as the machine tells.
fn core(cpu: usize) -> (String, String) {
    let read = |what| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}"))
            .unwrap_or_else(|_| cpu.to_string())
    };
    (read("physical_package_id"), read("core_id"))
}

/// How many files a process may have open here.
pub fn files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Puts the calling thread on one processor; its children inherit that.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("the processor was chosen from the allowed ones");
}

/// Starts a program on one processor, in a session of its own: the scheduler groups by session, so that what is measured
/// and the generator never share a group. It is told to end (SIGTERM) when the generator does, whatever ends that.
pub fn spawn(command: &mut Command, cores: Cores, cpu: usize) -> io::Result<Child> {
    // SAFETY: `setsid` and `prctl` are async-signal-safe and touch no memory of this process.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
            Ok(())
        });
    }
    pin(cpu);
    let child = command.spawn();
    pin(cores.generator);
    child
}

/// The date, as the machine has it.
pub fn today() -> String {
    let said = Command::new("date").args(["-u", "+%F"]).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

/// One line: processor, kernel, cores.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let family =
        format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    format!("{family}, {count} processors, Linux {}, TCP with {}", kernel.trim(), congestion.trim())
}
