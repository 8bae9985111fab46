//! A log in a process of its own, so that it can be killed.
//!
//! The process is this test program; environment variables make it serve instead of test.

use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use minishop_broker::{Settings, TopicSettings, open};
use tokio_util::sync::CancellationToken;

const FILE: &str = "LOG_CHILD_FILE";
const ADDR: &str = "LOG_CHILD_ADDR";

/// Not a test: [`Served::start`] runs it.
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
        log.handle().ensure_topic("t", 3, TopicSettings::default()).await.unwrap();
        println!("\nready {}", std::process::id());
        if let Err(error) = log.run(CancellationToken::new()).await {
            assert_eq!(error.code(), "STORE_FSYNC", "{error}");
            std::process::exit(74);
        }
    });
}

/// Returns whether a system program works; it must if `MINISHOP_TEST_KAFKA` is set.
#[expect(clippy::disallowed_methods, reason = "the test runner says by the environment that it has installed all")]
pub fn usable(program: &str, arguments: &[&str]) -> bool {
    let works = Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    assert!(works || std::env::var("MINISHOP_TEST_KAFKA").is_err(), "{program} {arguments:?} does not work");
    works
}

/// A served log; killed when dropped.
pub struct Served {
    /// The log's process, or the program that it runs under.
    child: Child,
    /// The log's process id.
    pub pid: u32,
    /// Kept open, because the log may print.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Served {
    /// Serves `file` on `addr` and returns once the log is ready.
    pub fn start(file: &Path, addr: SocketAddr) -> Self {
        Self::start_under(&[], file, addr)
    }

    /// Serves under another program, which gets the command to run.
    pub fn start_under(outer: &[&str], file: &Path, addr: SocketAddr) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut words = outer.iter().copied().chain([own.to_str().unwrap()]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .args(["--exact", "child::serve_until_killed", "--ignored", "--nocapture"])
            .env(FILE, file)
            .env(ADDR, addr.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = output.by_ref().map_while(Result::ok);
        let pid = said.find_map(|line| line.strip_prefix("ready ")?.parse().ok()).expect("the log did not start");
        Self { child, pid, _output: output }
    }

    /// Waits for it to end by itself and returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A killed tracer releases what it traces, so that is killed first.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("kill").args(["-9", &self.pid.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
