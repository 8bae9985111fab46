//! Boot: configuration → telemetry → store → relay → roles → ready → drain → exit code.
//!
//! Only boot spawns roles, handles signals and decides the exit code. A task that ends or panics before the drain ends the
//! process with code 70: a half-dead process is worse than a dead one.

mod binary;
mod dependencies;
mod disk;
pub mod process;

pub use binary::{block_on, main, print, refuse};
pub use dependencies::store_refused;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use fs4::fs_std::FileExt;
use minishop_store::error::SyncFailed;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ctx::{Status, Task};

/// A core task panicked or ended early.
pub const EXIT_TASK: u8 = 70;
/// The disk did not confirm a write.
pub const EXIT_FSYNC: u8 = 74;
/// Command line, configuration, or another fault to fix before a start.
pub const EXIT_USAGE: u8 = 2;
/// The time limit of all phases of the drain together. Work that it cuts off loses no state.
const DRAIN_BUDGET: Duration = Duration::from_secs(18);

/// Tasks by token, in the order of the drain.
#[derive(Debug, Default)]
pub struct Phases(Vec<(CancellationToken, Vec<Task>)>);

impl Phases {
    /// Adds a phase; its token is cancelled once all phases before it have ended.
    pub fn push(&mut self, token: CancellationToken, tasks: Vec<Task>) {
        self.0.push((token, tasks));
    }
}

/// Builds the runtime with one worker thread per two cores, at least one. Measured faster than one per core, because the database
/// and the broker need cores too.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .thread_name("minishop")
        .build()
        .context("cannot start the runtime")
}

/// A running phase: its token and its tasks.
type Running = (CancellationToken, JoinSet<(&'static str, anyhow::Result<()>)>);

/// Runs phases until a signal or a fault, withdraws readiness for `drain_wait`, then drains them in order. SIGINT aborts a
/// running drain; SIGTERM does not.
async fn supervise(
    status: &Status,
    phases: Phases,
    ready: impl Future<Output = ()> + Send + 'static,
    signals: &mut Signals,
    drain_wait: Duration,
) -> ExitCode {
    let mut running: Vec<Running> = Vec::new();
    for (token, tasks) in phases.0 {
        let mut set = JoinSet::new();
        for task in tasks {
            let Task { name, run } = task;
            set.spawn(async move { (name, run.await) });
        }
        running.push((token, set));
    }
    let mut announce = std::pin::pin!(ready);
    let mut announced = false;
    loop {
        tokio::select! {
            () = announce.as_mut(), if !announced => announced = true,
            () = signals.next() => break,
            fault = first_end(&mut running) => {
                tracing::error!("{fault}; the process exits");
                return ExitCode::from(if fault.fsync { EXIT_FSYNC } else { EXIT_TASK });
            }
        }
    }
    tracing::info!("draining");
    status.set("process", Err("draining".to_owned()));
    let withdrawn_then_drained = async {
        // Load balancers need a moment to notice that this process is not ready.
        tokio::time::sleep(drain_wait).await;
        drain(running).await
    };
    tokio::select! {
        code = withdrawn_then_drained => code,
        () = signals.interrupt() => {
            tracing::warn!("interrupted during the drain; exiting at once");
            ExitCode::from(130)
        }
    }
}

/// Why the process must end.
struct Fault {
    text: String,
    fsync: bool,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

async fn first_end(running: &mut [Running]) -> Fault {
    let ends = running.iter_mut().filter(|(_, set)| !set.is_empty()).map(|(_, set)| Box::pin(set.join_next()));
    let ends: Vec<_> = ends.collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    let plain = |text| Fault { text, fsync: false };
    match futures::future::select_all(ends).await.0 {
        Some(Ok((name, Ok(())))) => plain(format!("task {name} ended before the drain")),
        Some(Ok((name, Err(error)))) => Fault {
            text: format!("task {name} failed: {error:#}"),
            fsync: error.chain().any(<dyn std::error::Error>::is::<SyncFailed>),
        },
        Some(Err(error)) => plain(format!("a task panicked: {error}")),
        None => plain("a task was lost".to_owned()),
    }
}

async fn drain(running: Vec<Running>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let end = tokio::time::Instant::now() + DRAIN_BUDGET;
    for (token, mut set) in running {
        token.cancel();
        loop {
            match tokio::time::timeout_at(end, set.join_next()).await {
                Ok(None) => break,
                Ok(Some(Ok((_, Ok(()))))) => {}
                Ok(Some(Ok((name, Err(error))))) => tracing::warn!("task {name} failed during the drain: {error:#}"),
                Ok(Some(Err(error))) => {
                    tracing::error!("a task panicked during the drain: {error}");
                    code = ExitCode::from(EXIT_TASK);
                }
                // Nothing is lost: committed rows wait in the store, and the next start publishes and processes them.
                Err(_) => {
                    tracing::warn!("the drain takes too long; aborting {} tasks", set.len());
                    set.abort_all();
                    break;
                }
            }
        }
    }
    code
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }

    /// Waits for Ctrl-C. A second SIGTERM is ignored: supervisors send one to a group and one to each member.
    async fn interrupt(&mut self) {
        self.int.recv().await;
    }
}

/// Prints the line from which scripts read the process's addresses.
pub fn print_ready(status: &Status) {
    use std::fmt::Write as _;
    use std::io::Write as _;
    let mut line = "ready".to_owned();
    let bound = status.addresses();
    for name in ["http", "grpc", "admin", "kafka"] {
        if let Some((_, addr)) = bound.iter().find(|(n, _)| *n == name) {
            let _ = write!(line, " {name}={addr}");
        }
    }
    let mut out = std::io::stdout().lock();
    if std::io::IsTerminal::is_terminal(&out) {
        line.push_str(&banner(&bound));
    }
    // A closed stdout must not end the service.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Shows a person at a terminal what to try first.
fn banner(bound: &[(&'static str, std::net::SocketAddr)]) -> String {
    use std::fmt::Write as _;
    let addr = |name| bound.iter().find(|(n, _)| *n == name).map(|(_, addr)| addr);
    let mut text = String::new();
    if let Some(http) = addr("http") {
        let _ = write!(
            text,
            "\n\nMiniShop is up. Create an order:\n  curl -i http://{http}/orders -H 'content-type: application/json' \\\n    -d '{{\"customerId\":\"c1\",\"items\":[{{\"productId\":\"p1\",\"qty\":2,\"price\":10.5}}]}}'"
        );
    }
    if let Some(grpc) = addr("grpc") {
        let _ = write!(
            text,
            "\n  grpcurl -plaintext -d '{{\"customer_id\":\"c1\",\"items\":[{{\"product_id\":\"p1\",\"qty\":2,\"price\":10.5}}]}}' \\\n    {grpc} minishop.orders.v1.OrderService/CreateOrder\n"
        );
    }
    text
}

/// Locks a data directory against other processes while it lives.
#[derive(Debug)]
pub struct DataDirLock(#[expect(dead_code, reason = "the lock lives as long as the open file")] std::fs::File);

/// Creates and locks the data directory (mode 0700); the error names the holder's pid.
pub fn lock_data_dir(dir: &Path) -> anyhow::Result<DataDirLock> {
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
        format!("error[DATA_DIR] data-dir: cannot create {}; choose a writable directory with --data-dir", dir.display())
    })?;
    let path = dir.join("lock");
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).with_context(|| {
            format!("error[DATA_DIR] data-dir: cannot write {}; choose a writable directory with --data-dir", dir.display())
        })?;
    if !file.try_lock_exclusive().context("cannot lock the data directory")? {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        anyhow::bail!(
            "error[DATA_DIR_LOCKED] data-dir: {} is held by process {}; stop it or choose another directory",
            dir.display(),
            holder.trim()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(DataDirLock(file))
}
