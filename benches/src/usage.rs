//! What a process has used, from `/proc`.

use std::{fs, io, path::Path};

/// CPU time of all threads of some processes, in nanoseconds. `schedstat` is exact for a thread that sleeps, which all do when a
/// slice has drained.
pub fn cpu(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path().join("schedstat");
            match fs::read_to_string(&path) {
                Ok(stat) => {
                    total += stat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
                }
                // The thread has ended meanwhile.
                Err(_) if !Path::new("/proc/self/schedstat").exists() => {
                    return Err(io::Error::other("this kernel does not count CPU time (CONFIG_SCHED_INFO)"));
                }
                Err(_) => {}
            }
        }
    }
    Ok(total)
}

/// User and system time in clock ticks: sampled, so only their proportion over a whole run means anything.
pub fn ticks(pids: &[u32]) -> (u64, u64) {
    let mut total = (0, 0);
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        total = (total.0 + field(11), total.1 + field(12));
    }
    total
}

/// Time that the hypervisor has kept from a processor, in nanoseconds: counted in clock ticks, so only the sum of many differences
/// means anything. On real hardware it is nothing.
pub fn stolen(cpu: usize) -> u64 {
    stolen_in(&fs::read_to_string("/proc/stat").unwrap_or_default(), cpu)
}

/// The eighth number of a processor's line (proc_stat(5)), in hundredths of a second.
fn stolen_in(text: &str, cpu: usize) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("cpu")?.split_once(' '));
    let numbers = lines.find_map(|(name, numbers)| (name.parse() == Ok(cpu)).then_some(numbers));
    let stolen = numbers.and_then(|numbers| numbers.split(' ').nth(7)?.parse::<u64>().ok());
    stolen.unwrap_or(0) * 10_000_000
}

/// Resident memory in kB: that of one process, or of several without counting shared pages twice.
pub fn memory(pids: &[u32]) -> u64 {
    let field = if pids.len() == 1 { "Rss:" } else { "Pss:" };
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).map(str::to_owned).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    pids.iter().map(of).sum()
}

/// A process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        let path = format!("/proc/{0}/task/{0}/children", all[next]);
        let children = fs::read_to_string(path).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|text| text.parse::<u32>().ok()));
        next += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_that_of_the_processor_in_question() {
        let text = "cpu  1 2 3 4 5 6 7 90 0 0\ncpu0 1 2 3 4 5 6 7 30 0 0\ncpu10 1 2 3 4 5 6 7 5 0 0\ncpu1 1 2 3 4 5 6 7 60 0 0\n";
        assert_eq!(stolen_in(text, 0), 300_000_000);
        assert_eq!(stolen_in(text, 1), 600_000_000);
        assert_eq!((stolen_in(text, 2), stolen_in("", 0)), (0, 0));
    }
}
