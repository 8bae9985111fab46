//! System calls of the log and their failures: fsync counted and failing, a full disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_protocol::messages::{InitProducerIdRequest, ProduceResponse};
use tempfile::{TempDir, tempdir};

use super::batch::{Batch, plain};
use super::child::{Served, free_addr, usable};
use super::disk::{delete_records, hidden};
use super::raw::{Raw, partitions};

const STRACE: [&str; 4] = ["strace", "-f", "-qq", "-e"];

fn traceable() -> bool {
    usable("strace", &["-o", "/dev/null", "-e", "trace=fsync", "true"])
}

/// SIGKILL cannot show whether a commit reached the disk, because the page cache survives it. Counting fsyncs can.
#[tokio::test]
async fn every_acknowledged_request_was_synced() {
    const REQUESTS: usize = 30;
    if !traceable() {
        return;
    }
    let dir = tempdir().unwrap();
    let (file, addr, trace) = (dir.path().join("log.db"), free_addr(), dir.path().join("trace"));
    let words = [&STRACE[..], &["trace=fsync,fdatasync", "-o", trace.to_str().unwrap()]].concat();
    let served = Served::start_under(&words, &file, addr);
    let mut raw = Raw::connect(addr).await;
    let before = syncs(&trace);
    for _ in 0..REQUESTS {
        assert_eq!(raw.produce("t", 0, plain(&["x"]).bytes()).await.error_code, 0);
    }
    let count = syncs(&trace) - before;
    assert!(count >= REQUESTS, "{count} fsyncs for {REQUESTS} requests that were answered one after the other");
    served.kill();
}

fn syncs(trace: &Path) -> usize {
    fs::read_to_string(trace).unwrap().lines().filter(|line| line.contains("sync(") && line.contains("= 0")).count()
}

#[tokio::test]
async fn a_failed_fsync_ends_the_log_and_nothing_is_acknowledged() {
    if !traceable() {
        return;
    }
    let dir = tempdir().unwrap();
    let (file, addr) = (dir.path().join("log.db"), free_addr());
    // Creating the file and the topic needs fsyncs too, so it is done before they fail.
    let served = Served::start(&file, addr);
    let mut raw = Raw::connect(addr).await;
    assert_eq!(raw.produce("t", 0, plain(&["kept"]).bytes()).await.base_offset, 0);
    served.kill();
    let words = [&STRACE[..], &["inject=fsync,fdatasync:error=EIO:when=1+", "-o", "/dev/null"]].concat();
    let mut served = Served::start_under(&words, &file, addr);
    let mut raw = Raw::connect(addr).await;
    let request = super::raw::produce("t", vec![(0, plain(&["lost"]).bytes())], -1);
    raw.send(9, &request).await;
    let answer: Option<ProduceResponse> = raw.receive_or_closed(9).await;
    assert!(answer.is_none_or(|answer| partitions(answer)[0].error_code == 56), "an answer that says stored");
    assert_eq!(served.exit_code(), Some(74));

    let _served = Served::start(&file, addr);
    let mut raw = Raw::connect(addr).await;
    assert!(raw.fetch("t", 0, 0).await.high_watermark >= 1, "what was acknowledged is gone");
}

/// A log on a disk of 6 MB, of which 2 MB can be freed. Only the child has the disk mounted; tests access it through the
/// child's root.
struct SmallDisk {
    served: Served,
    addr: std::net::SocketAddr,
    seen: PathBuf,
}

impl SmallDisk {
    fn start(dir: &TempDir) -> Self {
        let (disk, addr) = (dir.path().join("disk"), free_addr());
        fs::create_dir(&disk).unwrap();
        let script = "mount -t tmpfs -o size=6m none \"$0\" && head -c 2000000 /dev/zero >\"$0/filler\" && exec \"$@\"";
        let words = ["unshare", "-m", "sh", "-c", script, disk.to_str().unwrap()];
        let served = Served::start_under(&words, &disk.join("log.db"), addr);
        let seen = PathBuf::from(format!("/proc/{}/root{}", served.pid, disk.display()));
        Self { served, addr, seen }
    }

    /// Fills the remaining space.
    fn fill(&self) {
        let mut more = fs::File::create(self.seen.join("more")).unwrap();
        for size in [65_536, 4_096, 1] {
            while more.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.seen.join("filler")).unwrap();
    }
}

#[tokio::test]
async fn no_producer_id_is_given_on_a_full_disk_and_none_comes_twice() {
    if !usable("unshare", &["-m", "true"]) {
        return;
    }
    let dir = tempdir().unwrap();
    let disk = SmallDisk::start(&dir);
    let mut raw = Raw::connect(disk.addr).await;
    let before = raw.new_producer().await;
    assert_eq!(raw.produce("t", 0, plain(&["a"]).bytes()).await.error_code, 0);
    disk.fill();
    for _ in 0..5 {
        let answer = raw.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await;
        assert_eq!((answer.error_code, answer.producer_id.0), (56, -1));
    }
    // What a kill leaves: the files as the operating system has them.
    let left = dir.path().join("left.db");
    for suffix in ["", "-wal"] {
        let (from, to) = (format!("log.db{suffix}"), format!("left.db{suffix}"));
        fs::copy(disk.seen.join(from), dir.path().join(to)).unwrap();
    }
    disk.free();
    let begun = std::time::Instant::now();
    let after = loop {
        let answer = raw.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await;
        if answer.error_code == 0 {
            break answer.producer_id.0;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not find the space");
    };
    assert!(after > before);
    disk.served.kill();

    let addr = free_addr();
    let _served = Served::start(&left, addr);
    assert!(Raw::connect(addr).await.new_producer().await > before, "a producer id was handed out twice");
}

#[tokio::test]
async fn records_are_not_hidden_on_a_full_disk() {
    if !usable("unshare", &["-m", "true"]) {
        return;
    }
    let dir = tempdir().unwrap();
    let disk = SmallDisk::start(&dir);
    let mut raw = Raw::connect(disk.addr).await;
    assert_eq!(raw.produce("t", 0, plain(&["a", "b"]).bytes()).await.error_code, 0);
    disk.fill();
    assert_eq!(hidden(&raw.call(2, &delete_records("t", 0, 2)).await), (56, -1));
    assert_eq!(raw.fetch("t", 0, 0).await.log_start_offset, 0);
    disk.served.kill();
}

#[tokio::test]
async fn a_full_disk_is_survived_and_space_is_found_again() {
    if !usable("unshare", &["-m", "true"]) {
        return;
    }
    let dir = tempdir().unwrap();
    let disk = SmallDisk::start(&dir);
    let mut raw = Raw::connect(disk.addr).await;
    let mut stored = 0;
    let refused = loop {
        let answer = raw.produce("t", 0, Batch::of_size(100_000)).await;
        if answer.error_code != 0 {
            break answer.error_code;
        }
        stored += 1;
        assert!(stored < 100, "the disk never filled up");
    };
    assert_eq!(refused, 56);
    assert_eq!(raw.fetch("t", 0, 0).await.high_watermark, stored, "reading goes on");
    disk.free();
    let begun = std::time::Instant::now();
    while raw.produce("t", 0, Batch::of_size(100_000)).await.error_code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not find the space");
    }
    assert_eq!(raw.fetch("t", 0, stored).await.high_watermark, stored + 1, "no gap");
    disk.served.kill();
}
