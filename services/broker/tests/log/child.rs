//! A log in a process of its own, so that it can be killed.
//!
//! The process is this test program again, told by its environment to serve instead of testing.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use minishop_broker::{Settings, TopicSettings, open};
use tokio_util::sync::CancellationToken;

const FILE: &str = "LOG_CHILD_FILE";
const ADDR: &str = "LOG_CHILD_ADDR";

/// Not a test: what [`Served::start`] runs.
#[test]
#[ignore = "runs only as the child process of other tests"]
#[expect(clippy::disallowed_methods, reason = "the parent says by the environment what to serve")]
fn serve_until_killed() {
    let (Ok(file), Ok(addr)) = (std::env::var(FILE), std::env::var(ADDR)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = open(Settings::new(addr.parse().unwrap(), file)).await.unwrap();
        log.ensure_topic("t", 3, TopicSettings::default()).await.unwrap();
        println!("\nready");
        log.run(CancellationToken::new()).await.unwrap();
    });
}

/// A served log; killed when dropped.
pub struct Served(Child);

impl Served {
    /// Serves `file` on `addr` and returns once it answers.
    pub fn start(file: &Path, addr: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::serve_until_killed", "--ignored", "--nocapture"])
            .env(FILE, file)
            .env(ADDR, addr.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let ready = output.lines().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the log did not start");
        Self(child)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
