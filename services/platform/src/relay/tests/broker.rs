//! A broker: it appends what producers send, in the order of each producer and partition, and reports sooner or later.

use std::collections::{HashMap, HashSet};

use minishop_core::ids::EventId;

use super::super::shard::Moment;
use super::store::SHARDS;

#[derive(Debug)]
pub struct Broker {
    /// First deliveries, by partition; each shard has one.
    logs: Vec<Vec<EventId>>,
    seen: Vec<HashMap<EventId, usize>>,
    /// Records that were published again.
    pub copies: usize,
    /// Events that can never be published.
    pub poison: HashSet<EventId>,
    /// Until then, it does not answer.
    pub away_until: Moment,
    /// Until then, its topic refuses everything.
    pub refuses_until: Moment,
}

impl Broker {
    pub fn new() -> Self {
        let shards = usize::try_from(SHARDS).unwrap();
        Self {
            logs: vec![Vec::new(); shards],
            seen: vec![HashMap::new(); shards],
            copies: 0,
            poison: HashSet::new(),
            away_until: Moment::ZERO,
            refuses_until: Moment::ZERO,
        }
    }

    pub fn append(&mut self, shard: i16, id: EventId) {
        let n = usize::try_from(shard).unwrap();
        let place = self.logs[n].len();
        if self.seen[n].insert(id, place).is_none() {
            self.logs[n].push(id);
            return;
        }
        self.copies += 1;
        if let Some(first) = self.logs[n].iter().position(|known| *known == id) {
            self.seen[n].insert(id, first);
        }
    }

    pub fn has(&self, shard: i16, id: &EventId) -> bool {
        self.seen[usize::try_from(shard).unwrap()].contains_key(id)
    }

    pub fn place(&self, shard: i16, id: &EventId) -> Option<usize> {
        self.seen[usize::try_from(shard).unwrap()].get(id).copied()
    }
}
