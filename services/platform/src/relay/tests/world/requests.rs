//! Requests to the store: of writers, and of relays.

use std::time::Duration;

use minishop_core::ids::EventId;
use rand::Rng;

use super::super::super::messages::{Job, Want};
use super::super::super::shard::Sabotage;
use super::super::store::SHARDS;
use super::{Answer, Event, World, names};

impl World {
    pub(super) fn write(&mut self, process: usize) {
        if self.is_calm() {
            return;
        }
        self.after(1_000, 400_000, process, Event::Write);
        if self.processes[process].stopped_until > self.now || self.store_away_until > self.now {
            return;
        }
        let count = self.random.random_range(1..=4);
        let mut events = Vec::new();
        for _ in 0..count {
            self.events += 1;
            let id = EventId(uuid::Uuid::from_u128(self.events));
            if self.chance(2) {
                self.broker.poison.insert(id);
            }
            events.push((self.random.random_range(0..SHARDS), id));
        }
        // A writer on a new connection reports it first.
        if std::mem::take(&mut self.processes[process].writer_is_cut) {
            self.after(0, 0, process, Event::Verify);
        }
        // Rolled back: its numbers go to the next commit.
        if self.chance(8) {
            if self.sabotage == Some(Sabotage::HandOverBeforeTheAnswer) {
                let mut copy = self.store.clone();
                let rows = copy.commit(&events);
                self.after(10, 100, process, Event::Hand(rows, self.now));
            }
            return;
        }
        let rows = self.store.commit(&events);
        self.say(|| format!("p{process} commits {:?}", names(&rows)));
        match self.random.random_range(if self.is_peaceful() { 20..100 } else { 0..100 }) {
            // The answer is lost: nobody hands over.
            0..10 => self.after(1_000, 300_000, process, Event::Verify),
            // Handed over long after the table was read.
            10..20 => self.after(100_000, 3_000_000, process, Event::Hand(rows, self.now)),
            _ => self.after(10, 3_000, process, Event::Hand(rows, self.now)),
        }
    }

    /// Runs or fails a request in the store; the answer may be lost.
    pub(super) fn run_job(&mut self, process: usize, want: Want) -> Result<(), String> {
        let failed = match &want {
            Want::Lead(_) => Job::Lead,
            Want::Read(..) => Job::Read,
            Want::Acknowledge(_) => Job::Acknowledge,
            Want::SetAside(_) => Job::SetAside,
        };
        let (now, calm) = (self.now, self.is_calm());
        let is_cut = std::mem::take(&mut self.processes[process].relay_is_cut);
        if is_cut || now < self.store_away_until || (!calm && self.chance(1)) {
            self.after(1_000, 2_000_000, process, Event::Answer(Answer::Failed(failed)));
            return Ok(());
        }
        let answer = match want {
            Want::Lead(renewal) => {
                let start = usize::try_from(self.processes[process].start).unwrap();
                Answer::Led(now.checked_sub(Duration::from_millis(2)).unwrap(), self.store.lead(start, &renewal, now))
            }
            Want::Read(asks, limit) => {
                let limit = limit.min(5);
                let spans: Vec<_> = asks.iter().flat_map(|ask| ask.spans.iter().copied()).collect();
                let rows = self.store.read(&spans, limit);
                Answer::Brought(Want::Read(asks, limit), rows)
            }
            Want::Acknowledge(all) => {
                let start = usize::try_from(self.processes[process].start).unwrap();
                let by_number = self.sabotage == Some(Sabotage::RemoveByNumberAlone);
                let broker = &self.broker;
                let agreed = self.store.acknowledge(start, &all, by_number, |shard, id| broker.has(shard, id))?;
                Answer::Acknowledged(Want::Acknowledge(all), agreed)
            }
            Want::SetAside(aside) => {
                let agreed = self.store.set_aside(aside.token.shard, aside.token.number, aside.event_id);
                Answer::Aside(Want::SetAside(aside), agreed)
            }
        };
        // Done, but the answer is lost.
        let answer = if !calm && self.chance(1) { Answer::Failed(failed) } else { answer };
        let latest = if !calm && self.chance(3) { 1_500_000 } else { 2_000 };
        self.after(50, latest, process, Event::Answer(answer));
        Ok(())
    }

    pub(super) fn answer(&mut self, process: usize, answer: Answer) {
        let now = self.now;
        let machine = &mut self.processes[process].machine;
        match answer {
            Answer::Led(asked_at, view) => machine.led(asked_at, &view),
            Answer::Brought(Want::Read(asks, limit), rows) => machine.brought(&asks, limit, rows, now),
            Answer::Acknowledged(Want::Acknowledge(all), agreed) => drop(machine.acknowledged(&all, agreed)),
            Answer::Aside(Want::SetAside(aside), agreed) => machine.aside(&aside, agreed),
            Answer::Failed(failed) => machine.store_failed(failed, now + Duration::from_millis(20)),
            other => unreachable!("{other:?} answers another question"),
        }
    }
}
