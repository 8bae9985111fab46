//! What an event log is told when it is opened: where it lives, what it keeps and how much it takes from a client.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Where the log listens, where it keeps its records and what it allows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one, which [`crate::EventLog::addr`] then names.
    pub addr: SocketAddr,
    /// The log's own SQLite file, made on the first start. No other program may write it.
    pub file: PathBuf,
    /// Host name that clients are told to connect to; `None` repeats the address listened on.
    pub advertised_host: Option<String>,
    /// What a topic gets whose creator says nothing else.
    pub topic: TopicSettings,
    /// Partitions of a topic whose creator leaves the count to the log (−1).
    pub partitions: i32,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// Time between two passes that remove what is too old or too much.
    pub retention_interval: Duration,
    /// How long the first member of an empty group waits for others, so that members that start together share one
    /// rebalance. Each newcomer starts the wait again, four times at most.
    pub rebalance_delay: Duration,
    /// Size in bytes that the file may reach before produce is refused as on a full disk; `None` leaves it to the disk.
    pub max_file_bytes: Option<u64>,
}

impl Settings {
    /// Names address and file and takes the defaults for everything else.
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

/// What one topic keeps and accepts. Changing it after creation is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// How long a batch is kept after it was stored, in whole milliseconds (`retention.ms`); `None` keeps it for ever.
    ///
    /// Age counts from storing, not from the record's own timestamp: a replayed old record is kept as long as a new one.
    pub retention: Option<Duration>,
    /// Bytes kept in each partition (`retention.bytes`), the newest batch aside; `None` sets no bound.
    pub retention_bytes: Option<u64>,
    /// Largest record batch accepted, in bytes (`max.message.bytes`).
    pub max_message_bytes: u32,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self { retention: Some(Duration::from_hours(7 * 24)), retention_bytes: Some(1 << 30), max_message_bytes: 1_000_000 }
    }
}

/// Bounds on what clients may ask for; each is enforced before memory is spent.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; one too many is closed at once.
    pub connections: usize,
    /// Bytes in one request frame.
    pub frame_bytes: usize,
    /// Time a new connection has for its first byte.
    pub first_byte: Duration,
    /// Time a frame has from its first byte to its last, and an answer to be taken by the client.
    pub frame: Duration,
    /// Time a connection may be silent between requests.
    pub idle: Duration,
    /// Requests of one connection that are read ahead of their answers.
    pub pipeline: usize,
    /// Bytes in one fetch answer.
    pub fetch_bytes: usize,
    /// Longest wait of a fetch for new records.
    pub fetch_wait: Duration,
    /// Bytes that all requests being read and all answers being sent may hold together; the rest waits its turn.
    pub memory_bytes: usize,
    /// Bytes of the newest batches kept in memory, over all partitions, for consumers at the end of the log.
    pub tail_bytes: usize,
    /// Partitions in one topic.
    pub partitions: i32,
    /// Members in one consumer group.
    pub members: usize,
    /// Groups with members at a time.
    pub groups: usize,
    /// Session timeouts that a group member may ask for.
    pub session: RangeInclusive<Duration>,
    /// Bytes of the text that may go with a committed offset.
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
