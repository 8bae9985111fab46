//! Opens the store and checks the topics at start; retries while the database or Kafka is away.

use std::sync::Arc;
use std::time::Duration;

use minishop_bus::topics;
use minishop_core::clock::Clock;
use minishop_store::error::OpenError;
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::{Store, sqlite};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Shape};
use crate::ctx::{Status, Task};

/// The timeout of one attempt to reach Kafka at start.
const KAFKA_PATIENCE: Duration = Duration::from_secs(3);
/// The longest pause between two attempts, and between checks of topics that are missing.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why Kafka is not ready.
const AWAY: &str = "the event log does not answer";

/// Formats a final store error like all startup errors.
pub fn store_refused(error: OpenError) -> anyhow::Error {
    let code = error.code();
    anyhow::anyhow!("error[{code}] store: {:#}", anyhow::Error::from(error))
}

/// Opens the store. While the database is away, retries; readiness reports it.
pub(super) async fn open_store(name: &str, config: &Config, clock: Arc<dyn Clock>, status: &Status) -> anyhow::Result<Store> {
    let mut pause = Duration::from_millis(100);
    loop {
        let opened = match &config.database_url {
            Some(url) => {
                let settings = PostgresSettings { app_name: name.to_owned(), migrate: config.migrate };
                postgres::connect(url.expose_secret(), &settings).await
            }
            None => sqlite::open(&config.store_file(), clock.clone(), config.migrate).await,
        };
        match opened {
            Ok(store) => {
                status.set("store", Ok(()));
                return Ok(store);
            }
            Err(error) if error.is_retry() => {
                status.set("store", Err(error.to_string()));
                tracing::warn!("the store is unavailable; retrying: {:#}", anyhow::Error::from(error));
            }
            Err(error) => return Err(store_refused(error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until Kafka has all topics. The API accepts orders meanwhile: if Kafka is away, it gets a task that checks later.
pub(super) async fn await_topics(
    config: &Arc<Config>,
    shape: Shape,
    brokers: &str,
    status: &Status,
    drain: &CancellationToken,
) -> anyhow::Result<Option<Task>> {
    let mut pause = Duration::from_millis(200);
    loop {
        match topics::missing(brokers, &config.topic_prefix, KAFKA_PATIENCE).await {
            Ok(missing) if missing.is_empty() => {
                status.set("kafka", Ok(()));
                return Ok(None);
            }
            Ok(missing) => anyhow::bail!(topics_missing(&missing)),
            Err(error) if shape == Shape::Api => {
                tracing::warn!("Kafka does not answer; orders are accepted and their events wait: {error:#}");
                status.note("kafka", Some(AWAY.to_owned()));
                let later = check_topics_later(config.clone(), brokers.to_owned(), status.clone(), drain.clone());
                return Ok(Some(Task::new("topics", later)));
            }
            Err(error) => {
                status.set("kafka", Err(AWAY.to_owned()));
                tracing::warn!("Kafka does not answer; retrying: {error:#}");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn topics_missing(missing: &[String]) -> String {
    format!("error[TOPIC_MISSING] KAFKA_BROKERS: {} missing; run `minishop topics create`", missing.join(", "))
}

/// Polls until all topics exist, for an API that started while Kafka was away. Until then it notes what is missing; with Kafka
/// up, the process would not have started.
async fn check_topics_later(
    config: Arc<Config>,
    brokers: String,
    status: Status,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let known = async {
        loop {
            let reason = match topics::missing(&brokers, &config.topic_prefix, KAFKA_PATIENCE).await {
                Ok(missing) if missing.is_empty() => break,
                Ok(missing) => topics_missing(&missing),
                Err(_) => AWAY.to_owned(),
            };
            if status.notes().iter().all(|(part, noted)| *part != "kafka" || *noted != reason) {
                tracing::error!("{reason}");
            }
            status.note("kafka", Some(reason));
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
        tracing::info!("the event log answers and all topics exist");
        status.note("kafka", None);
        status.set("kafka", Ok(()));
    };
    tokio::select! { () = known => drain.cancelled().await, () = drain.cancelled() => {} }
    Ok(())
}
