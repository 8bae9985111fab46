//! An embedded event log: a listener that speaks the Kafka protocol over one SQLite file.
//!
//! It is for one machine: one broker, no replicas, no transactions, no authentication, so it belongs on a loopback address.
//! It guarantees: an acknowledged produce request is on disk (`synchronous=FULL`), an idempotent producer's retry is stored
//! once, offsets have no gaps, and committed offsets survive a restart.
//!
//! [`open`] prepares the file and binds the address, [`EventLog::run`] serves until its token is cancelled.

mod api;
mod batch;
mod catalog;
mod error;
mod groups;
mod listener;
mod log;
mod retention;
mod settings;
mod shared;
mod storage;
mod tail;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use settings::{Limits, Settings, TopicSettings};

use catalog::Catalog;
use groups::Groups;
use log::Writer;
use shared::Shared;

/// Capacity of the writer's queue; further requests wait in their connections.
const QUEUE: usize = 1024;

/// Opens or creates the file, verifies it and its SQLite settings, and binds the address.
///
/// Reads only small tables, so its duration does not grow with the log. Clients that connect before [`EventLog::run`] wait
/// in the listener's backlog.
///
/// # Errors
/// [`Error::Corrupt`] for a file that is not an event log or is visibly damaged; the file is not changed. See [`Error`] for
/// the others.
pub async fn open(settings: Settings) -> Result<EventLog, Error> {
    let file = settings.file.clone();
    storage::file::prepare(&file).await?;
    let mut connection = storage::writer(&file, settings.max_file_bytes).await?;
    let start = storage::read::start(&mut connection)
        .await
        .map_err(|e| storage::refused(&file, "read the event log's topics", e))?
        .map_err(|reason| Error::Corrupt { file: file.clone(), reason })?;
    let bind = |source| Error::Bind { addr: settings.addr, source };
    let listener = TcpListener::bind(settings.addr).await.map_err(bind)?;
    let addr = listener.local_addr().map_err(bind)?;
    let host = settings.advertised_host.clone().unwrap_or_else(|| reachable(addr));
    let (writer, commands) = mpsc::channel(QUEUE);
    let catalog = Catalog::default();
    for topic in start.topics {
        catalog.insert(Arc::new(topic));
    }
    let shared = Arc::new(Shared {
        addr,
        host: StrBytes::from_string(host),
        cluster: StrBytes::from_string(start.cluster.simple().to_string()),
        catalog,
        groups: Groups::new(start.run_id, settings.limits.clone(), settings.rebalance_delay),
        readers: storage::readers(&file),
        writer,
        writable: AtomicBool::new(true),
        memory: Arc::new(Semaphore::new(settings.limits.memory_bytes)),
        inflating: Mutex::default(),
        settings,
    });
    let stop_writer = CancellationToken::new();
    let mut writing = JoinSet::new();
    writing.spawn(Writer::new(Arc::clone(&shared), connection, commands, stop_writer.clone()).run());
    Ok(EventLog { shared, listener, writer: writing, stop_writer })
}

/// Returns the host that clients on this machine can reach; loopback if the listener is bound to all addresses.
fn reachable(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "::1".to_owned(),
        other => other.ip().to_string(),
    }
}

/// An open event log. Its writer runs from the start; clients are served while [`EventLog::run`] runs.
pub struct EventLog {
    shared: Arc<Shared>,
    listener: TcpListener,
    writer: JoinSet<Result<(), Error>>,
    stop_writer: CancellationToken,
}

impl EventLog {
    /// Returns a handle that stays usable after [`EventLog::run`] has consumed `self`.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Serves until `shutdown`: then stops reading requests, sends the answers that are ready within half a second, commits
    /// what is queued, checkpoints the write-ahead log and closes the file.
    ///
    /// # Errors
    /// [`Error::Fsync`] or [`Error::Corrupt`] as soon as the file cannot be trusted; the process must then end, because the
    /// state of the disk is unknown. A full disk is not an error here: the log refuses produce requests and recovers by
    /// itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { shared, listener, mut writer, stop_writer } = self;
        let stop = shutdown.child_token();
        let serve = async {
            let retention = retention::run(Arc::clone(&shared), stop.clone());
            tokio::join!(listener::run(Arc::clone(&shared), listener, stop.clone()), retention);
        };
        tokio::select! {
            () = serve => {}
            () = shared.groups.run_timers() => {}
            ended = writer.join_next() => return outcome(ended),
        }
        stop_writer.cancel();
        outcome(writer.join_next().await)
    }
}

fn outcome(ended: Option<Result<Result<(), Error>, tokio::task::JoinError>>) -> Result<(), Error> {
    match ended {
        Some(Ok(outcome)) => outcome,
        Some(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        _ => Err(Error::Stopped),
    }
}

/// A cheap, cloneable handle to an open log.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Returns the bound address; its port is never 0.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Returns false while the disk refuses writes; produce then fails with Kafka's error 56.
    pub fn writable(&self) -> bool {
        self.0.writable.load(Ordering::Relaxed)
    }

    /// Creates a topic unless it exists; the settings of an existing topic stay unchanged.
    ///
    /// # Errors
    /// [`Error::Topic`] if it exists with another partition count or cannot be created; [`Error::Stopped`] if the log
    /// cannot write.
    pub async fn ensure_topic(&self, name: &str, partitions: i32, settings: TopicSettings) -> Result<(), Error> {
        let refused = |reason: String| Error::Topic { name: name.to_owned(), reason };
        let topic = match self.0.create_topic(name, partitions, settings).await {
            Ok(topic) => topic,
            Err(ResponseError::TopicAlreadyExists) => self.0.catalog.get(name).ok_or(Error::Stopped)?,
            Err(ResponseError::KafkaStorageError) => return Err(Error::Stopped),
            Err(error) => return Err(refused(error.to_string())),
        };
        match topic.partitions.len() {
            n if i32::try_from(n) == Ok(partitions) => Ok(()),
            n => Err(refused(format!("has {n} partitions instead of {partitions}"))),
        }
    }
}
