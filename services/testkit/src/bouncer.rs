//! A `PgBouncer` between a store and its server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

/// A pooler on a port of its own. Ends with the test.
#[derive(Debug)]
pub struct Bouncer {
    /// Where it listens; see [`Database::behind`](crate::database::Database::behind).
    pub addr: SocketAddr,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Bouncer {
    /// Starts one in front of a server (host and port), with further configuration lines.
    pub async fn before(server: &str, more: &str) -> Self {
        let (host, port) = server.split_once(':').expect("a port");
        // Another process may take the port in between; then another one is tried.
        for _ in 0..5 {
            if let Some(started) = Self::start(host, port, more).await {
                return started;
            }
        }
        panic!("PgBouncer does not start: it is installed by infra/install");
    }

    async fn start(host: &str, server: &str, more: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port");
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        // It refuses to run as root.
        let user = if root { "user = postgres" } else { "" };
        let file = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port={server} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\ndefault_pool_size = 40\nmax_client_conn = 200\n{user}\n{more}\n",
            addr.port()
        );
        std::fs::write(&file, text).expect("a file");
        let process = command(&file).spawn().expect("PgBouncer is not there: install it with infra/install servers");
        let mut started = Self { addr, process, _dir: dir };
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while started.process.try_wait().expect("a child").is_none() {
            if TcpStream::connect(addr).await.is_ok() {
                return Some(started);
            }
            tick.tick().await;
        }
        None
    }
}

fn command(file: &Path) -> Command {
    // Debian installs it in a directory that is only in root's PATH.
    let program = ["/usr/sbin/pgbouncer"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("pgbouncer");
    let mut command = Command::new(program);
    command.arg("-q").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
