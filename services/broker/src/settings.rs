//! Settings of an event log: its address and file, what it keeps, and its limits on clients.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Address, file, retention and limits of an event log.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free port, see [`crate::Handle::addr`].
    pub addr: SocketAddr,
    /// The log's own SQLite file, created on the first start. No other program may write it.
    pub file: PathBuf,
    /// Host name that clients are given to connect to; `None` uses the bound address.
    pub advertised_host: Option<String>,
    pub topic: TopicSettings,
    /// Partitions of a topic whose creator leaves the count to the broker (−1).
    pub partitions: i32,
    pub limits: Limits,
    pub retention_interval: Duration,
    /// How long the first member of an empty group waits for others, so that members that start together share one
    /// rebalance. Each newcomer restarts the wait; in total it lasts at most four times as long.
    pub rebalance_delay: Duration,
    /// File size in bytes above which produce is refused as on a full disk; `None` sets no limit.
    pub max_file_bytes: Option<u64>,
}

impl Settings {
    /// Returns settings with this address and file and defaults for everything else.
    pub fn new(addr: SocketAddr, file: impl Into<PathBuf>) -> Self {
        Self {
            addr,
            file: file.into(),
            advertised_host: None,
            topic: TopicSettings::default(),
            partitions: 8,
            limits: Limits::default(),
            retention_interval: Duration::from_secs(30),
            rebalance_delay: Duration::from_millis(50),
            max_file_bytes: None,
        }
    }
}

/// What one topic keeps and accepts. It cannot be changed after creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// How long a batch is kept, in whole milliseconds (`retention.ms`); `None` keeps it for ever.
    ///
    /// Age counts from storing, not from the record's timestamp: a replayed old record is kept as long as a new one.
    pub retention: Option<Duration>,
    /// Bytes kept in each partition (`retention.bytes`); the newest batch always stays. `None` sets no limit.
    pub retention_bytes: Option<u64>,
    /// Largest record batch accepted, in bytes (`max.message.bytes`).
    pub max_message_bytes: u32,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self { retention: Some(Duration::from_hours(7 * 24)), retention_bytes: Some(1 << 30), max_message_bytes: 1_000_000 }
    }
}

/// Limits on client requests; each is enforced before memory is spent.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; further ones are closed at once.
    pub connections: usize,
    pub frame_bytes: usize,
    /// Timeout for the first byte of a new connection.
    pub first_byte: Duration,
    /// Timeout for a frame from its first byte to its last, and for sending an answer.
    pub frame: Duration,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// Requests of one connection that are read before their answers are sent.
    pub pipeline: usize,
    pub fetch_bytes: usize,
    /// Longest wait of a fetch for new records.
    pub fetch_wait: Duration,
    /// Bytes that requests above 64 KiB and fetch answers may hold together; others wait for memory.
    pub memory_bytes: usize,
    /// Bytes of the newest batches cached in memory, over all partitions, for consumers at the end of the log.
    pub tail_bytes: usize,
    pub partitions: i32,
    pub members: usize,
    /// Groups with members or with member ids that wait for their join.
    pub groups: usize,
    /// Session timeouts that a group member may request.
    pub session: RangeInclusive<Duration>,
    /// Bytes of the metadata text of a committed offset.
    pub offset_metadata_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            frame_bytes: 16 * MIB,
            first_byte: Duration::from_secs(10),
            frame: Duration::from_secs(30),
            idle: Duration::from_mins(10),
            pipeline: 8,
            fetch_bytes: 8 * MIB,
            fetch_wait: Duration::from_secs(30),
            memory_bytes: 64 * MIB,
            tail_bytes: 8 * MIB,
            partitions: 64,
            members: 50,
            groups: 1_000,
            session: Duration::from_secs(6)..=Duration::from_mins(30),
            offset_metadata_bytes: 4 * KIB,
        }
    }
}
