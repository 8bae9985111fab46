//! The lifecycle of a process: what opens in which order, what waits for what, and how it ends.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use minishop_bus::topics;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_store::error::OpenError;
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::{Role, Store, sqlite};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::disk::{self, Writable};
use super::{EXIT_USAGE, Phases, Signals, lock_data_dir, print_ready, supervise};
use crate::clock::{SystemClock, SystemIds};
use crate::config::{Config, Shape};
use crate::ctx::{Ctx, Metrics, Status, Task};
use crate::hints::{Hints, HintsTask};
use crate::relay::{RelayTask, Settings};
use crate::serve::{self, Limits};
use crate::{admin, telemetry};

/// The timeout of one attempt to reach Kafka at start.
const KAFKA_PATIENCE: Duration = Duration::from_secs(3);

/// An open embedded event log: clients may connect; they get answers once it runs.
pub struct EmbeddedLog {
    /// Its listening address.
    pub addr: SocketAddr,
    /// Returns whether it accepts writes.
    pub writable: Writable,
    /// Serves until the token is cancelled.
    pub run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Opens the embedded event log with its topics. Passed in, because this crate does not depend on the broker.
pub type OpenLog = fn(Arc<Config>) -> BoxFuture<'static, anyhow::Result<EmbeddedLog>>;

/// A process that is about to start.
#[derive(Debug)]
pub struct Process {
    /// The name in logs, traces and PostgreSQL, such as `minishop-api`.
    pub name: &'static str,
    /// The roles it runs.
    pub shape: Shape,
    /// The operator's settings.
    pub config: Config,
    /// Opens the event log if no Kafka is named.
    pub open_log: Option<OpenLog>,
}

/// The result of a startup step.
enum Started<T> {
    Done(T),
    /// A signal came first; nothing needs draining yet.
    Stopped,
}

impl Process {
    /// Runs the process from its first log line to its exit code.
    ///
    /// Calls `roles` once the store is open; spawns, watches and drains the tasks that it returns.
    pub async fn run(self, roles: impl AsyncFnOnce(Ctx) -> anyhow::Result<Vec<Task>>) -> ExitCode {
        match self.start(roles).await {
            Ok(code) => code,
            Err(error) => {
                let text = format!("{error:#}");
                eprintln!("{}{text}", if text.starts_with("error[") { "" } else { "error[START_FAILED] start: " });
                ExitCode::from(EXIT_USAGE)
            }
        }
    }

    async fn start(self, roles: impl AsyncFnOnce(Ctx) -> anyhow::Result<Vec<Task>>) -> anyhow::Result<ExitCode> {
        let flush = telemetry::start(self.name, self.config.log_format, self.config.log.as_deref())?;
        let mut signals = Signals::new().context("cannot listen for signals")?;
        let config = Arc::new(self.config);
        let (status, metrics) = (Status::default(), Metrics::default());
        status.set("process", Err("starting".to_owned()));
        let embedded = self.shape == Shape::Up && (config.database_url.is_none() || config.kafka_brokers.is_none());
        let _lock = embedded.then(|| lock_data_dir(&config.data_dir)).transpose()?;
        let (admin, drain_admin) = (serve::bind("admin", config.admin_addr).await?, CancellationToken::new());
        let admin_addr = admin.addr();
        admin::build_info(&metrics);
        let routes = admin::router(metrics.clone(), status.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "health must answer while the stores are still away; joined as the last phase"
        )]
        let admin = tokio::spawn(admin.serve(routes, Limits::default(), drain_admin.clone()));
        let log = open_log(&config, self.shape, self.open_log).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Started::Done(store) = open_store(self.name, &config, clock.clone(), &status, &mut signals).await? else {
            return Ok(ExitCode::SUCCESS);
        };
        let brokers = match &log {
            Some(log) => log.addr.to_string(),
            None => config.kafka_brokers.clone().unwrap_or_default(),
        };
        let mut later = None;
        if log.is_none() {
            let Started::Done(known) = await_topics(&config, self.shape, &brokers, &status, &mut signals).await? else {
                return Ok(ExitCode::SUCCESS);
            };
            later = (!known).then(|| (config.clone(), brokers.clone(), status.clone()));
        }
        let ids: Arc<dyn Ids> = Arc::new(SystemIds);
        let owner = owner(self.name, ids.as_ref());
        let (hints, hints_task) = hints(&config, &owner, &metrics, &status).await?;
        let settings = Settings {
            owner,
            roles: roles_of(self.shape),
            brokers: brokers.clone(),
            compression: config.kafka_compression,
            hints,
        };
        let (relay, relay_task) = RelayTask::new(&store, settings, status.clone(), &metrics)?;
        let [drain, drain_relay, drain_log] = std::array::from_fn(|_| CancellationToken::new());
        let mut phases = Phases::default();
        let kafka_addr = log.as_ref().map(|log| log.addr);
        // The log runs only once `supervise` spawns it: `roles` must not wait for it.
        let (log_task, writable) = log.map(|log| (Task::new("event log", (log.run)(drain_log.clone())), log.writable)).unzip();
        let disk = disk::watch(store.orders.clone(), writable, status.clone(), drain.clone());
        let ctx = Ctx {
            config: config.clone(),
            clock,
            ids,
            store,
            brokers,
            relay,
            metrics,
            drain: drain.clone(),
            status: status.clone(),
        };
        let mut tasks = roles(ctx).await?;
        tasks.push(Task::new("store", disk));
        tasks
            .extend(later.map(|(config, brokers, status)| {
                Task::new("topics", check_topics_later(config, brokers, status, drain.clone()))
            }));
        tasks.extend(hints_task.map(|task| Task::new("hints", task.run(drain.clone()))));
        phases.push(drain, tasks);
        phases.push(drain_relay.clone(), vec![Task::new("relay", relay_task.run(drain_relay))]);
        phases.push(drain_log, log_task.into_iter().collect());
        phases.push(drain_admin, vec![Task::new("admin", async move { admin.await? })]);
        status.bound("admin", admin_addr);
        if let Some(addr) = kafka_addr {
            status.bound("kafka", addr);
        }
        let ready = status.clone();
        let announce = async move {
            ready.set("process", Ok(()));
            print_ready(&ready);
        };
        let code = supervise(&status, phases, announce, &mut signals, config.drain_wait).await;
        if config.database_url.is_none() && code == ExitCode::SUCCESS {
            sqlite::checkpoint(&config.store_file()).await;
        }
        flush.finish().await;
        Ok(code)
    }
}

async fn open_log(config: &Arc<Config>, shape: Shape, open: Option<OpenLog>) -> anyhow::Result<Option<EmbeddedLog>> {
    match open.filter(|_| shape == Shape::Up && config.kafka_brokers.is_none()) {
        Some(open) => open(config.clone()).await.map(Some),
        None => Ok(None),
    }
}

/// Opens the store. While the database is away, retries; readiness reports it.
async fn open_store(
    name: &str,
    config: &Config,
    clock: Arc<dyn Clock>,
    status: &Status,
    signals: &mut Signals,
) -> anyhow::Result<Started<Store>> {
    let mut pause = Duration::from_millis(100);
    loop {
        let open = async {
            match &config.database_url {
                Some(url) => {
                    let settings = PostgresSettings { app_name: name.to_owned(), migrate: config.migrate };
                    postgres::connect(url.expose_secret(), &settings).await
                }
                None => sqlite::open(&config.store_file(), clock.clone(), config.migrate).await,
            }
        };
        let opened = tokio::select! { opened = open => opened, () = signals.next() => return Ok(Started::Stopped) };
        match opened {
            Ok(store) => {
                status.set("store", Ok(()));
                return Ok(Started::Done(store));
            }
            Err(error) if error.is_retry() => {
                status.set("store", Err(error.to_string()));
                tracing::warn!("the store is unavailable; retrying: {:#}", anyhow::Error::from(error));
            }
            Err(error) => return Err(store_refused(error)),
        }
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = signals.next() => return Ok(Started::Stopped) }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Formats a final store error like all startup errors.
pub fn store_refused(error: OpenError) -> anyhow::Error {
    let code = error.code();
    anyhow::anyhow!("error[{code}] store: {:#}", anyhow::Error::from(error))
}

/// Checks the topics. While Kafka is away, retries; the API, which accepts orders meanwhile, gets `false` at once.
async fn await_topics(
    config: &Config,
    shape: Shape,
    brokers: &str,
    status: &Status,
    signals: &mut Signals,
) -> anyhow::Result<Started<bool>> {
    let mut pause = Duration::from_millis(200);
    loop {
        let asked = topics::missing(brokers, &config.topic_prefix, KAFKA_PATIENCE);
        let asked = tokio::select! { asked = asked => asked, () = signals.next() => return Ok(Started::Stopped) };
        match asked {
            Ok(missing) if missing.is_empty() => {
                status.set("kafka", Ok(()));
                return Ok(Started::Done(true));
            }
            Ok(missing) => anyhow::bail!(topics_missing(&missing)),
            Err(error) if shape == Shape::Api => {
                tracing::warn!("Kafka does not answer; orders are accepted and their events wait: {error:#}");
                status.note("kafka", Some(AWAY.to_owned()));
                return Ok(Started::Done(false));
            }
            Err(error) => {
                status.set("kafka", Err(AWAY.to_owned()));
                tracing::warn!("Kafka does not answer; retrying: {error:#}");
            }
        }
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = signals.next() => return Ok(Started::Stopped) }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

const AWAY: &str = "the event log does not answer";

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
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        tracing::info!("the event log answers and all topics exist");
        status.note("kafka", None);
        status.set("kafka", Ok(()));
    };
    tokio::select! { () = known => drain.cancelled().await, () = drain.cancelled() => {} }
    Ok(())
}

/// Returns the roles whose outbox rows a process writes.
fn roles_of(shape: Shape) -> Vec<Role> {
    match shape {
        Shape::Up => vec![Role::Api, Role::Worker],
        Shape::Api => vec![Role::Api],
        Shape::Worker => vec![Role::Worker],
    }
}

/// Names this start of the process. Pids repeat, in containers at every start: only randomness distinguishes two starts.
fn owner(name: &str, ids: &dyn Ids) -> String {
    let start = u64::from_be_bytes(ids.random()[..8].try_into().expect("eight of ten bytes"));
    format!("{name}-{}-{start:016x}", std::process::id())
}

async fn hints(config: &Config, owner: &str, metrics: &Metrics, status: &Status) -> anyhow::Result<(Hints, Option<HintsTask>)> {
    let Some(url) = &config.redis_url else { return Ok((Hints::default(), None)) };
    let (hints, task) = HintsTask::new(url, &config.topic_prefix, owner, metrics, status)?;
    task.check_login().await?;
    Ok((hints, Some(task)))
}
