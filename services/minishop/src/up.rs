//! `minishop up`: all roles in one process, on embedded parts unless servers are named.

use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use minishop_broker::{Error, Settings, TopicSettings};
use minishop_bus::topics::largest_record;
use minishop_contracts::topics;
use minishop_platform::boot::process::{EmbeddedLog, Process};
use minishop_platform::config::{Config, Shape};
use minishop_store::error::SyncFailed;

/// Runs until a signal or a fault.
pub async fn run(config: Config) -> ExitCode {
    Process { name: "minishop", shape: Shape::Up, config, open_log: Some(open_log) }
        .run(async |ctx| {
            let mut tasks = minishop_api::start(ctx.clone()).await?;
            tasks.extend(minishop_worker::start(ctx)?);
            Ok(tasks)
        })
        .await
}

fn open_log(config: Arc<Config>) -> BoxFuture<'static, anyhow::Result<EmbeddedLog>> {
    async move {
        let mut settings = Settings::new(config.kafka_addr, config.data_dir.join("log.db"));
        settings.partitions = config.topic_partitions;
        let log = minishop_broker::open(settings).await.map_err(|error| refused(&error))?;
        let handle = log.handle();
        for topic in topics::ALL {
            let name = topics::prefixed(&config.topic_prefix, topic);
            let max_message_bytes = largest_record(topic == topics::CREATED_DEAD_LETTERS);
            let settings = TopicSettings { max_message_bytes, ..TopicSettings::default() };
            handle.ensure_topic(&name, config.topic_partitions, settings).await.map_err(|error| refused(&error))?;
        }
        let addr = handle.addr();
        let writable = Box::new(move || handle.writable());
        Ok(EmbeddedLog { addr, writable, run: Box::new(|drain| async move { log.run(drain).await.map_err(fault) }.boxed()) })
    }
    .boxed()
}

fn refused(error: &Error) -> anyhow::Error {
    anyhow::anyhow!("error[{}] event log: {error}", error.code())
}

/// Converts a failed fsync to [`SyncFailed`], by which boot recognizes a failed disk.
fn fault(error: Error) -> anyhow::Error {
    match error {
        Error::Fsync(source) => SyncFailed(source.to_string()).into(),
        other => other.into(),
    }
}
