//! What a process has used, from `/proc`.

use std::fs;

/// CPU time of all threads of some processes, in nanoseconds. `schedstat` is exact for a thread that sleeps, which all do
/// when a slice has drained.
pub fn cpu(pids: &[u32]) -> u64 {
    let mut total = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total += stat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    total
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
