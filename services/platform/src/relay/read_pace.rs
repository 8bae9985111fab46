//! The pace of table reads: when the next one is due, and how many rows it may bring.

use std::time::Duration;

use minishop_store::OutboxRow;

use super::shard::Moment;

/// The interval of table reads for rows that nobody hands over. It starts at the first value and doubles while nothing is found,
/// up to the second while other processes write, else up to the third.
const LOOK: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(500)];
/// How soon the next read may follow: after this many times the duration of the last ones, within bounds. On a busy server reads
/// are slow; then fewer of them bring more rows each.
const READ_PAUSE: u32 = 24;
const READ_EVERY: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(40));
/// Bytes and rows of one read of a shard.
const READ_BYTES: usize = 1 << 20;
const READ_ROWS: (usize, usize) = (16, 1_000);

/// When the table is read. A read of the whole table looks for rows that nobody hands over; between two of them, a read brings
/// only rows that shards are known to miss.
#[derive(Debug)]
pub(super) struct ReadPace {
    /// Whether other processes write rows that this one publishes.
    pub others_write: bool,
    /// When the whole table is read next, and the interval until then.
    look_at: Moment,
    look_every: Duration,
    /// When the last read began, and how soon the next one may follow.
    read_from: Moment,
    read_every: Duration,
    typical_size: usize,
}

impl Default for ReadPace {
    fn default() -> Self {
        Self {
            others_write: false,
            look_at: Moment::ZERO,
            look_every: LOOK[0],
            read_from: Moment::ZERO,
            read_every: READ_EVERY.0,
            typical_size: 2_048,
        }
    }
}

impl ReadPace {
    /// Returns when the next read is due; `misses` tells whether some shard misses rows.
    pub fn next(&self, now: Moment, misses: bool) -> Moment {
        let due = if misses { now } else { self.look_at };
        due.max(self.read_from + self.read_every)
    }

    /// Starts a read if one is due; returns whether it is one of the whole table.
    pub fn start(&mut self, now: Moment, misses: bool) -> Option<bool> {
        let whole = now >= self.look_at;
        if !(whole || misses) || now < self.read_from + self.read_every {
            return None;
        }
        if whole {
            self.look_every = (self.look_every * 2).min(LOOK[if self.others_write { 1 } else { 2 }]);
            self.look_at = now + self.look_every;
        }
        self.read_from = now;
        Some(whole)
    }

    /// Returns the most rows that one read may bring of each shard.
    pub fn limit(&self) -> usize {
        (READ_BYTES / self.typical_size).clamp(READ_ROWS.0, READ_ROWS.1)
    }

    /// Learns the size of a row.
    pub fn measure(&mut self, row: &OutboxRow) {
        self.typical_size = (self.typical_size * 15 + row.size()) / 16;
    }

    /// Ends a read: `new` if it brought new rows, `more` if the table has more of them than one read may bring.
    pub fn ended(&mut self, now: Moment, new: bool, more: bool) {
        let wanted = (now.saturating_sub(self.read_from) * READ_PAUSE).clamp(READ_EVERY.0, READ_EVERY.1);
        self.read_every = if more { READ_EVERY.0 } else { (self.read_every * 3 + wanted) / 4 };
        if new {
            self.look_every = LOOK[0];
        }
    }

    /// Makes a read of the whole table due at once.
    pub fn look(&mut self) {
        self.look_every = LOOK[0];
        self.look_at = Moment::ZERO;
    }
}
