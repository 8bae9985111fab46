//! CPU time and memory of processes, from `/proc`.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::Context;

/// The entry of the auxiliary vector that holds the clock ticks a second.
const AT_CLKTCK: usize = 17;

/// A process under a name; several may share one, and are summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub pid: u32,
}

/// Reads `NAME=PID`.
pub fn named(text: &str) -> Result<Named, String> {
    let parsed = text.split_once('=').and_then(|(name, pid)| Some(Named { name: name.to_owned(), pid: pid.parse().ok()? }));
    parsed.filter(|named| !named.name.is_empty()).ok_or_else(|| "is not NAME=PID, such as api=4711".to_owned())
}

/// Returns the user and system time that this process has used, without its children.
pub fn own_cpu() -> anyhow::Result<Duration> {
    let [user, system, ..] = stat(std::process::id())?;
    time(user + system)
}

/// Returns the user and system time that a process, its children and their ended children have used.
///
/// Backends of PostgreSQL are children of its first process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut ticks: u64 = stat(pid)?.iter().sum();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        // A child that has just ended counts below its parent.
        ticks += stat(child).map_or(0, |[user, system, ..]| user + system);
    }
    time(ticks)
}

/// Returns the resident memory of a process alone, in KiB.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| format!("process {pid} has ended"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Returns user and system time of a process, then those of its ended children, in clock ticks.
fn stat(pid: u32) -> anyhow::Result<[u64; 4]> {
    let text = read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    times(&text).with_context(|| format!("/proc/{pid}/stat is not understood"))
}

/// Reads the fields 14 to 17. The command's name may contain spaces and brackets, so fields count from its last bracket.
fn times(stat: &str) -> Option<[u64; 4]> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<u64> = rest.split(' ').skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    fields.try_into().ok()
}

/// Converts clock ticks, whose length the kernel states in the auxiliary vector.
fn time(ticks: u64) -> anyhow::Result<Duration> {
    let vector = std::fs::read("/proc/self/auxv")?;
    let words: Vec<usize> =
        vector.chunks_exact(size_of::<usize>()).filter_map(|word| word.try_into().ok().map(usize::from_ne_bytes)).collect();
    let entry = words.chunks_exact(2).find(|entry| entry[0] == AT_CLKTCK);
    let ticks_per_second = u64::try_from(entry.context("the kernel does not say how long a clock tick is")?[1])?;
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / ticks_per_second))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_process_is_given_by_name_and_number() {
        assert_eq!(named("api=12"), Ok(Named { name: "api".to_owned(), pid: 12 }));
        for bad in ["api", "=12", "api=", "api=x", "api=-1"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 8 7 6 101 102 103 104 20 0 1 0";
        assert_eq!(times(stat), Some([101, 102, 103, 104]));
        assert_eq!(times("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        let (begun, before) = (Instant::now(), cpu(pid).unwrap());
        while begun.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let used = cpu(pid).unwrap().saturating_sub(before);
        assert!(used >= Duration::from_millis(10), "{used:?}");
        assert!(own_cpu().unwrap() <= cpu(pid).unwrap());
        assert!(resident_kib(pid).unwrap() > 100);
        assert!(cpu(u32::MAX).is_err());
    }
}
