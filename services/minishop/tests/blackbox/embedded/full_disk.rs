//! A full disk: what clients and probes see, and how the process recovers.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::{get, post};

use crate::embedded::{ORDER, up};

/// Returns whether this test can mount a disk of its own; it must if `MINISHOP_TEST_KAFKA` is set.
#[expect(clippy::disallowed_methods, reason = "the test runner says by the environment that it has installed all")]
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    assert!(may || std::env::var("MINISHOP_TEST_KAFKA").is_err(), "unshare -m does not work");
    may
}

/// Starts `up` with its data on a disk of 24 MB, a third of which can be freed. Only the process has the disk mounted.
fn up_on_a_small_disk(dir: &Path) -> Process {
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    let inner = up(dir);
    let script = "mount -t tmpfs -o size=24m none \"$0\" && head -c 8000000 /dev/zero >\"$0/filler\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(data).arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Process::start(command)
}

/// Returns the path of the process's disk as seen from outside.
fn seen(server: &Process, dir: &Path) -> PathBuf {
    format!("/proc/{}/root{}", server.pid(), dir.join("data").display()).into()
}

/// Fills the remaining space.
fn fill(disk: &Path) {
    let mut more = fs::File::create(disk.join("more")).unwrap();
    for size in [65_536, 4_096, 1] {
        while more.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_is_told_by_readiness_and_forgotten_once_there_is_space() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = up_on_a_small_disk(dir.path());
    let create = |key: &str| post(server.addr("http"), "/orders", &[("idempotency-key", key)], ORDER).status;
    let ready = || get(server.addr("admin"), "/readyz?verbose");
    assert_eq!(create("before"), 201);
    assert_eq!(ready().status, 200);

    fill(&seen(&server, dir.path()));
    eventually(Duration::from_secs(20), "orders are refused", || create("full") == 503);
    let told = eventually(Duration::from_secs(20), "readiness tells of it", || {
        let answer = ready();
        (answer.status == 503).then_some(answer.body)
    });
    assert!(told.contains("[-] store: ") && told.contains("disk is full"), "{told}");

    fs::remove_file(seen(&server, dir.path()).join("filler")).unwrap();
    eventually(Duration::from_secs(20), "the process is ready again", || ready().status == 200);
    assert_eq!(create("after"), 201);
    assert_eq!(create("before"), 201, "what was acknowledged is still there");
    eventually(Duration::from_secs(20), "the event log is well again", || !ready().body.contains("[!]"));
    assert_eq!(server.terminate(), Some(0), "a drain ends with 0");
}

#[test]
fn an_idle_process_finds_out_that_its_disk_is_full() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = up_on_a_small_disk(dir.path());
    fill(&seen(&server, dir.path()));
    eventually(Duration::from_secs(30), "readiness tells of it", || get(server.addr("admin"), "/readyz").status == 503);
}
