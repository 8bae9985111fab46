//! The lifecycle of a process: `open` what it needs, `wire` the tasks of its roles, `run` them until the drain has ended.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use futures::future::BoxFuture;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_store::{Role, Store, sqlite};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::dependencies::{await_topics, open_store};
use super::disk::{self, Writable};
use super::{DataDirLock, EXIT_USAGE, Phases, Signals, lock_data_dir, print_ready, supervise};
use crate::clock::{SystemClock, SystemIds};
use crate::config::{Config, Shape};
use crate::ctx::{Ctx, Metrics, Status, Task};
use crate::hints::{Hints, HintsTask};
use crate::relay::{RelaySettings, RelayTask};
use crate::serve::{self, Limits};
use crate::{admin, telemetry};

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
    pub config: Config,
    /// Opens the event log if no Kafka is named.
    pub open_log: Option<OpenLog>,
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
        let opened = tokio::select! {
            opened = self.open() => opened?,
            // Nothing needs draining yet.
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        let wired = opened.wire(roles).await?;
        let code = wired.run(&mut signals).await;
        flush.finish().await;
        Ok(code)
    }

    /// Opens what the roles need: data directory, admin listener, event log, store and topics.
    async fn open(self) -> anyhow::Result<Opened> {
        let Self { name, shape, config, open_log } = self;
        let config = Arc::new(config);
        let (status, metrics, drain) = (Status::default(), Metrics::default(), CancellationToken::new());
        status.set("process", Err("starting".to_owned()));
        let embedded = shape == Shape::Up && (config.database_url.is_none() || config.kafka_brokers.is_none());
        let lock = embedded.then(|| lock_data_dir(&config.data_dir)).transpose()?;
        let admin = Admin::start(&config, &metrics, &status).await?;
        let log = match open_log.filter(|_| shape == Shape::Up && config.kafka_brokers.is_none()) {
            Some(open) => Some(open(config.clone()).await?),
            None => None,
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = open_store(name, &config, clock.clone(), &status).await?;
        let brokers = log.as_ref().map(|log| log.addr.to_string()).or_else(|| config.kafka_brokers.clone()).unwrap_or_default();
        let topics = if log.is_none() { await_topics(&config, shape, &brokers, &status, &drain).await? } else { None };
        Ok(Opened { name, shape, config, status, metrics, drain, lock, admin, log, clock, store, brokers, topics })
    }
}

/// The running admin listener. It answers before the stores do.
struct Admin {
    addr: SocketAddr,
    drain: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Admin {
    async fn start(config: &Config, metrics: &Metrics, status: &Status) -> anyhow::Result<Self> {
        let listener = serve::bind("admin", config.admin_addr).await?;
        let (addr, drain) = (listener.addr(), CancellationToken::new());
        admin::build_info(metrics);
        let routes = admin::router(metrics.clone(), status.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "health must answer while the stores are still away; joined as the last phase"
        )]
        let serving = tokio::spawn(listener.serve(routes, Limits::default(), drain.clone()));
        Ok(Self { addr, drain, serving })
    }
}

/// An open process, before its roles start.
struct Opened {
    name: &'static str,
    shape: Shape,
    config: Arc<Config>,
    status: Status,
    metrics: Metrics,
    /// Of the roles.
    drain: CancellationToken,
    lock: Option<DataDirLock>,
    admin: Admin,
    log: Option<EmbeddedLog>,
    clock: Arc<dyn Clock>,
    store: Store,
    brokers: String,
    /// Checks topics that could not be checked yet.
    topics: Option<Task>,
}

impl Opened {
    /// Creates the relay, starts the roles, and orders all tasks by the phases of the drain.
    async fn wire(self, roles: impl AsyncFnOnce(Ctx) -> anyhow::Result<Vec<Task>>) -> anyhow::Result<Wired> {
        let Self { name, shape, config, status, metrics, drain, lock, admin, log, clock, store, brokers, topics } = self;
        let ids: Arc<dyn Ids> = Arc::new(SystemIds);
        let owner = owner(name, ids.as_ref());
        let (hints, hints_task) = hints(&config, &owner, &metrics, &status).await?;
        let changes = hints.changes().clone();
        let (roles_of, compression) = (roles_of(shape), config.kafka_compression);
        let settings = RelaySettings { owner, roles: roles_of, brokers: brokers.clone(), compression, hints };
        let (relay, relay_task) = RelayTask::new(&store, settings, status.clone(), &metrics)?;
        let (drain_relay, drain_log) = (CancellationToken::new(), CancellationToken::new());
        status.bound("admin", admin.addr);
        if let Some(log) = &log {
            status.bound("kafka", log.addr);
        }
        // The log runs only once `supervise` spawns it: `roles` must not wait for it.
        let (log_task, writable) = log.map(|log| (Task::new("event_log", (log.run)(drain_log.clone())), log.writable)).unzip();
        let disk = disk::watch(store.orders.clone(), writable, status.clone(), drain.clone());
        let ctx = Ctx {
            config: config.clone(),
            clock,
            ids,
            store,
            brokers,
            relay,
            changes,
            metrics,
            drain: drain.clone(),
            status: status.clone(),
        };
        let mut tasks = roles(ctx).await?;
        tasks.push(Task::new("store", disk));
        tasks.extend(topics);
        tasks.extend(hints_task.map(|task| Task::new("hints", task.run(drain.clone()))));
        let mut phases = Phases::default();
        phases.push(drain, tasks);
        phases.push(drain_relay.clone(), vec![Task::new("relay", relay_task.run(drain_relay))]);
        phases.push(drain_log, log_task.into_iter().collect());
        phases.push(admin.drain, vec![Task::new("admin", async move { admin.serving.await? })]);
        Ok(Wired { config, status, phases, _lock: lock })
    }
}

/// A process with all its tasks, ready to run.
struct Wired {
    config: Arc<Config>,
    status: Status,
    phases: Phases,
    _lock: Option<DataDirLock>,
}

impl Wired {
    /// Runs the tasks until a signal or a fault, and drains them.
    async fn run(self, signals: &mut Signals) -> ExitCode {
        let ready = self.status.clone();
        let announce = async move {
            ready.set("process", Ok(()));
            print_ready(&ready);
        };
        let code = supervise(&self.status, self.phases, announce, signals, self.config.drain_wait).await;
        if self.config.database_url.is_none() && code == ExitCode::SUCCESS {
            sqlite::checkpoint(&self.config.store_file()).await;
        }
        code
    }
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
