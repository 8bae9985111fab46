//! One outbox shard in the hands of its leader.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::OutboxRow;

/// What the leader knows of a shard.
#[derive(Debug)]
pub(super) struct Shard {
    /// Until when rows may be sent.
    pub lease_until: Instant,
    /// Where it stands.
    pub state: State,
    /// Rows to send, in the order of their ids.
    pub queue: VecDeque<OutboxRow>,
    /// Rows that were queued or sent and are not yet deleted, with their keys.
    in_hand: HashMap<i64, Bytes>,
    /// Rows that the producer has and has not reported.
    pub in_flight: usize,
    /// Ids that were reported delivered since the last failure, kept back until the shard's fate is known.
    delivered: Vec<i64>,
    /// The first failed id of each key.
    failed: HashMap<Bytes, i64>,
    /// Records that were refused for their size.
    pub too_large: HashSet<i64>,
}

/// Where a led shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The table must be read before anything is sent; rows from memory wait behind it.
    Load,
    /// The table is being read.
    Loading,
    /// The table holds more than was read: what is queued is sent, then the table is read again. Rows from memory stay there.
    Behind,
    /// Rows are sent as they come.
    Live,
    /// A record failed: nothing is sent until all reports are in, then the table is read again, not before this time.
    Broken(Instant),
}

impl Shard {
    /// Takes up a shard that was just won.
    pub fn won(lease_until: Instant) -> Self {
        Self {
            lease_until,
            state: State::Load,
            queue: VecDeque::new(),
            in_hand: HashMap::new(),
            in_flight: 0,
            delivered: Vec::new(),
            failed: HashMap::new(),
            too_large: HashSet::new(),
        }
    }

    /// Queues rows, sorted by id, that are not in hand yet.
    pub fn take(&mut self, rows: impl IntoIterator<Item = OutboxRow>) -> usize {
        let mut taken = 0;
        for row in rows {
            if self.in_hand.insert(row.id, row.event.record_key.clone()).is_none() {
                self.queue.push_back(row);
                taken += 1;
            }
        }
        taken
    }

    /// Puts what the table holds before what memory brought meanwhile, both in the order of ids.
    pub fn merge(&mut self, rows: Vec<OutboxRow>) {
        let fresh: Vec<_> = rows.into_iter().filter(|row| !self.in_hand.contains_key(&row.id)).collect();
        self.take(fresh);
        self.queue.make_contiguous().sort_by_key(|row| row.id);
    }

    /// Tells whether a row was queued or sent and is not yet deleted.
    pub fn holds(&self, id: i64) -> bool {
        self.in_hand.contains_key(&id)
    }

    /// Asks for a read of the table before anything else is sent; a broken shard gets one anyhow.
    pub fn read_first(&mut self) {
        if !matches!(self.state, State::Broken(_)) {
            self.state = State::Load;
        }
    }

    /// Lists the rows in hand.
    pub fn in_hand(&self) -> impl Iterator<Item = i64> {
        self.in_hand.keys().copied()
    }

    /// Notes that a record was delivered; returns the id if its row may be deleted now.
    pub fn delivered(&mut self, id: i64) -> Option<i64> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if matches!(self.state, State::Broken(_)) {
            self.delivered.push(id);
            return None;
        }
        Some(id)
    }

    /// Notes that a record failed: nothing more is sent, and the table is read again when all reports are in.
    pub fn failed(&mut self, id: i64, again_at: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(key) = self.in_hand.get(&id) {
            let first = self.failed.entry(key.clone()).or_insert(id);
            *first = id.min(*first);
        }
        self.stop(again_at);
    }

    /// Stops sending; the queue is dropped, since its rows stand in the table.
    pub fn stop(&mut self, again_at: Instant) {
        self.drop_queue();
        self.state = State::Broken(again_at);
    }

    /// Leaves what is queued to the table.
    pub fn drop_queue(&mut self) {
        for row in self.queue.drain(..) {
            self.in_hand.remove(&row.id);
        }
    }

    /// Ends the wait of a broken shard whose reports are all in; returns the ids to delete: per key only those before its
    /// first failure, so that nothing after it counts as sent.
    pub fn mend(&mut self, now: Instant) -> Option<Vec<i64>> {
        match self.state {
            State::Broken(again_at) if self.in_flight == 0 && now >= again_at => {}
            _ => return None,
        }
        let in_hand = std::mem::take(&mut self.in_hand);
        let failed = std::mem::take(&mut self.failed);
        let before_failure = |id: &i64| in_hand.get(id).is_none_or(|key| failed.get(key).is_none_or(|first| id < first));
        let done: Vec<i64> = self.delivered.drain(..).filter(before_failure).collect();
        // Until the deletes have happened these rows must not be read as new.
        let kept: HashSet<i64> = done.iter().copied().collect();
        self.in_hand = in_hand.into_iter().filter(|(id, _)| kept.contains(id)).collect();
        self.state = State::Load;
        Some(done)
    }

    /// Forgets a deleted row.
    pub fn deleted(&mut self, id: i64) {
        self.in_hand.remove(&id);
        self.too_large.remove(&id);
    }
}
