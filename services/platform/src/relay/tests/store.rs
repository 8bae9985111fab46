//! A store that keeps the promises of `store::Outbox` and can be copied and restored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use minishop_core::ids::EventId;
use minishop_store::{Acknowledged, LEASE, Leadership, Led, NewEvent, OutboxRow, Renewal, Span};

use super::super::shard::Moment;

pub const SHARDS: i16 = 2;

#[derive(Debug, Clone, Default)]
struct Shard {
    rows: BTreeMap<i64, (EventId, bool)>,
    acknowledged: i64,
    owner: Option<usize>,
    epoch: i64,
    expires: Moment,
    /// Everything ever committed in this history of the store.
    history: Vec<EventId>,
}

#[derive(Debug, Clone, Default)]
pub struct Store {
    shards: Vec<Shard>,
    owners: BTreeMap<usize, Moment>,
    pub aside: BTreeSet<EventId>,
}

impl Store {
    pub fn new() -> Self {
        Self { shards: vec![Shard::default(); usize::try_from(SHARDS).unwrap()], ..Self::default() }
    }

    fn shard(&mut self, shard: i16) -> &mut Shard {
        &mut self.shards[usize::try_from(shard).unwrap()]
    }

    /// Commits events and numbers them.
    pub fn commit(&mut self, events: &[(i16, EventId)]) -> Vec<OutboxRow> {
        let commit = |(shard, id): &(i16, EventId)| {
            let of = self.shard(*shard);
            let number = of.rows.last_key_value().map_or(of.acknowledged, |(number, _)| *number) + 1;
            of.rows.insert(number, (*id, false));
            of.history.push(*id);
            row(*shard, number, *id, false)
        };
        events.iter().map(commit).collect()
    }

    pub fn lead(&mut self, owner: usize, renewal: &Renewal, now: Moment) -> Leadership {
        self.owners.retain(|other, until| *other == owner || *until >= now);
        self.owners.insert(owner, now + LEASE);
        let most = self.shards.len().div_ceil(self.owners.len());
        let free = |shard: &Shard| shard.owner.is_none() || shard.expires < now;
        let numbers = || 0..SHARDS;
        let at = |n: i16| &self.shards[usize::try_from(n).unwrap()];
        let own = numbers().filter(|n| at(*n).owner == Some(owner) && !free(at(*n)));
        let others = numbers().filter(|n| free(at(*n)));
        let mut led: Vec<(i16, bool)> = own.clone().chain(others).take(most).map(|n| (n, false)).collect();
        led.extend(own.skip(most).filter(|n| !renewal.finished.contains(n)).map(|n| (n, true)));
        for n in numbers().filter(|n| led.iter().all(|(kept, _)| kept != n)) {
            let shard = self.shard(n);
            if shard.owner == Some(owner) {
                (shard.owner, shard.expires) = (None, Duration::ZERO);
            }
        }
        let take = |(n, surplus): &(i16, bool)| {
            let shard = self.shard(*n);
            if shard.owner != Some(owner) || shard.expires < now || renewal.anew.contains(n) {
                shard.epoch += 1;
            }
            (shard.owner, shard.expires) = (Some(owner), now + LEASE);
            Led { shard: *n, epoch: shard.epoch, acknowledged: shard.acknowledged, surplus: *surplus }
        };
        let shards = led.iter().map(take).collect();
        Leadership { shards, others_write: self.owners.len() > 1 }
    }

    pub fn read(&mut self, spans: &[Span], limit: usize) -> Vec<OutboxRow> {
        let of = |span: &Span| {
            let rows = self.shard(span.shard).rows.range(span.low..span.high).take(limit);
            rows.map(|(number, (id, aside))| row(span.shard, *number, *id, *aside)).collect::<Vec<_>>()
        };
        spans.iter().flat_map(of).collect()
    }

    /// Stores what is published. Fails if an acknowledged event is not.
    pub fn acknowledge(
        &mut self,
        owner: usize,
        all: &[Acknowledged],
        by_number_alone: bool,
        is_published: impl Fn(i16, &EventId) -> bool,
    ) -> Result<bool, String> {
        let before = self.shards.clone();
        for to in all {
            let aside = self.aside.clone();
            let shard = self.shard(to.shard);
            let leads = shard.owner == Some(owner) && shard.epoch == to.epoch && shard.acknowledged == to.low;
            let high = to.high();
            let same = shard.rows.range(to.low + 1..=high).map(|(_, (id, _))| *id).eq(to.events.iter().copied());
            if !(by_number_alone || leads && same) {
                self.shards = before;
                return Ok(false);
            }
            for (number, (id, _)) in shard.rows.range(to.low.max(1)..=high) {
                let is_known = aside.contains(id) || of_nobody(id);
                if *number > to.low && !is_published(to.shard, id) && !is_known {
                    return Err(format!("shard {} number {number} was acknowledged and is not published", to.shard));
                }
            }
            shard.rows.retain(|number, _| *number < to.low || *number >= high);
            shard.acknowledged = shard.acknowledged.max(high);
        }
        Ok(true)
    }

    pub fn set_aside(&mut self, shard: i16, number: i64, id: EventId) -> bool {
        let Some(row) = self.shard(shard).rows.get_mut(&number).filter(|(known, _)| *known == id) else { return false };
        row.1 = true;
        self.aside.insert(id);
        true
    }

    /// Removes a waiting row before another, as a careless person does.
    pub fn remove(&mut self, shard: i16, n: usize) {
        let of = self.shard(shard);
        let waiting: Vec<i64> = of.rows.range(of.acknowledged + 1..).map(|(number, _)| *number).collect();
        if waiting.len() < 2 {
            return;
        }
        if let Some((id, _)) = of.rows.remove(&waiting[n % (waiting.len() - 1)]) {
            self.aside.insert(id);
        }
    }

    /// Steps over missing numbers.
    pub fn fill(&mut self, shard: i16, numbers: std::ops::Range<i64>) {
        let of = self.shard(shard);
        if of.rows.range(numbers.end..).next().is_none() {
            return;
        }
        for number in numbers {
            let nobody = EventId(uuid::Uuid::from_u128((u128::from(number.unsigned_abs()) << 64) | 1));
            if number > of.acknowledged {
                of.rows.entry(number).or_insert((nobody, true));
            }
        }
    }

    pub fn history(&self, shard: i16) -> &[EventId] {
        &self.shards[usize::try_from(shard).unwrap()].history
    }

    pub fn waits(&self) -> bool {
        self.shards.iter().any(|s| s.rows.last_key_value().is_some_and(|(number, _)| *number > s.acknowledged))
    }
}

/// Returns whether an event stands in for a missing one.
fn of_nobody(id: &EventId) -> bool {
    id.0.as_u128() >> 64 > 0
}

pub fn row(shard: i16, number: i64, event_id: EventId, set_aside: bool) -> OutboxRow {
    let event = NewEvent {
        shard,
        event_id,
        topic: String::new(),
        record_key: Bytes::new(),
        order_id: None,
        order_version: None,
        payload: None,
        headers: Bytes::new(),
        brief: None,
    };
    OutboxRow { number, event, set_aside }
}
