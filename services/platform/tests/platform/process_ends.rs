//! Exit codes of a process.

use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use minishop_platform::boot::process::{EmbeddedLog, Process};
use minishop_platform::boot::{EXIT_FSYNC, EXIT_TASK, EXIT_USAGE};
use minishop_platform::config::{Config, Shape};
use minishop_platform::ctx::Task;
use minishop_store::error::SyncFailed;
use minishop_testkit::ctx::config;
use tokio_util::sync::CancellationToken;

fn process() -> (tempfile::TempDir, Process) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { log: Some("off".to_owned()), ..config(dir.path()) };
    (dir, Process { name: "test", shape: Shape::Up, config, open_log: Some(silent_log) })
}

/// Returns an unreachable event log: these processes end before they need it.
fn silent_log(_: Arc<Config>) -> BoxFuture<'static, anyhow::Result<EmbeddedLog>> {
    let run = Box::new(|drain: CancellationToken| {
        async move {
            drain.cancelled().await;
            Ok(())
        }
        .boxed()
    });
    async { Ok(EmbeddedLog { addr: "127.0.0.1:1".parse()?, writable: Box::new(|| true), run }) }.boxed()
}

/// Runs a whole process with a task that does `work`, beside one that would run for ever.
async fn ends_when(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> ExitCode {
    let (_dir, process) = process();
    process.run(async |_| Ok(vec![Task::new("idle", std::future::pending()), Task::new("work", work)])).await
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_with_70() {
    assert_eq!(ends_when(async { panic!("on purpose") }).await, ExitCode::from(EXIT_TASK));
    assert_eq!(EXIT_TASK, 70);
}

#[tokio::test]
async fn a_task_that_ends_early_ends_the_process_with_70() {
    assert_eq!(ends_when(async { Ok(()) }).await, ExitCode::from(EXIT_TASK));
    assert_eq!(ends_when(async { anyhow::bail!("on purpose") }).await, ExitCode::from(EXIT_TASK));
}

#[tokio::test]
async fn a_disk_that_does_not_confirm_ends_the_process_with_74() {
    let failed = async { Err(anyhow::Error::from(SyncFailed("on purpose".to_owned())).context("of a write")) };
    assert_eq!(ends_when(failed).await, ExitCode::from(EXIT_FSYNC));
    assert_eq!(EXIT_FSYNC, 74);
}

#[tokio::test]
async fn roles_that_refuse_to_start_end_the_process_with_2() {
    let (_dir, process) = process();
    assert_eq!(process.run(async |_| anyhow::bail!("on purpose")).await, ExitCode::from(EXIT_USAGE));
}
