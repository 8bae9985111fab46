//! Metrics of a process.

use minishop_testkit::process::Process;
use minishop_testkit::rest::get;

/// Returns the sum of a counter's series.
pub fn counted(process: &Process, name: &str) -> u64 {
    let text = get(process.addr("admin"), "/metrics").body;
    let series = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}
