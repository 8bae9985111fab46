//! What producers and the broker do with records.

use minishop_bus::produce::Token;
use minishop_core::ids::EventId;
use rand::Rng;

use super::super::messages::Trouble;
use super::store::SHARDS;
use super::world::{Event, World};

impl World {
    /// Returns whether the broker answers. While it does not, a producer retries.
    fn broker_answers(&mut self, process: usize, session: u64, shard: i16, alone: bool) -> bool {
        if self.processes[process].session != session {
            return false;
        }
        if self.broker.away_until > self.now {
            let wait = u64::try_from(self.broker.away_until.checked_sub(self.now).unwrap().as_micros()).unwrap();
            self.after(wait, wait + 20_000, process, Event::Take { session, shard, alone });
            return false;
        }
        true
    }

    pub fn broker_takes_one(&mut self, process: usize, session: u64, shard: i16) {
        if !self.broker_answers(process, session, shard, true) {
            return;
        }
        let Some((token, id)) = self.processes[process].single[usize::try_from(shard).unwrap()].pop_front() else { return };
        let outcome = if self.broker.refuses_until > self.now {
            Err(Trouble::OfTopic)
        } else if self.broker.poison.contains(&id) {
            Err(Trouble::OfRecord("poison".to_owned()))
        } else {
            self.publish(process, token, id);
            Ok(())
        };
        self.after(50, 5_000, process, Event::Report { session, token, outcome });
    }

    pub fn broker_takes_batch(&mut self, process: usize, session: u64, shard: i16) {
        if !self.broker_answers(process, session, shard, false) {
            return;
        }
        let n = usize::try_from(shard).unwrap();
        let held = self.processes[process].queues[n].len();
        let batch: Vec<_> = (0..held.min(self.random.random_range(1..=3)))
            .filter_map(|_| self.processes[process].queues[n].pop_front())
            .collect();
        let ids = batch.iter().map(|(_, id)| id.0.as_u128());
        // Some are too large only together.
        let is_too_large = !self.is_peaceful() && ids.clone().count() > 1 && ids.sum::<u128>().is_multiple_of(16);
        let is_poisoned = batch.iter().any(|(_, id)| self.broker.poison.contains(id));
        if self.broker.refuses_until > self.now {
            return self.fail_batch(process, &batch, n, &Trouble::OfTopic);
        }
        if is_too_large || is_poisoned {
            return self.fail_batch(process, &batch, n, &Trouble::OfRecord("one of them".to_owned()));
        }
        for (token, id) in batch {
            self.publish(process, token, id);
            // Reports overtake each other.
            let latest = if !self.is_calm() && self.chance(3) { 2_000_000 } else { 5_000 };
            self.after(50, latest, process, Event::Report { session, token, outcome: Ok(()) });
        }
    }

    fn publish(&mut self, process: usize, token: Token, id: EventId) {
        self.broker.append(token.shard, id);
        self.say(|| {
            format!("p{process} publishes {}/{}:{:x} generation {}", token.shard, token.number, id.0.as_u128(), token.generation)
        });
    }

    /// Fails a batch, and its producer with it: nothing queued behind it is published.
    fn fail_batch(&mut self, process: usize, batch: &[(Token, EventId)], n: usize, trouble: &Trouble) {
        let (now, at) = (self.now, &mut self.processes[process]);
        at.queues[n].clear();
        for (token, _) in batch {
            at.machine.report(*token, Err(trouble.clone()), now);
        }
        self.producer_dies(process);
    }

    /// Publishes what a dead producer held, up to some point of each partition.
    pub fn empty_producer(&mut self, process: usize) {
        for shard in 0..SHARDS {
            let n = usize::try_from(shard).unwrap();
            let at = &mut self.processes[process];
            let held: Vec<_> = at.queues[n].drain(..).chain(at.single[n].drain(..)).collect();
            let sent = if self.broker.away_until > self.now || self.broker.refuses_until > self.now {
                0
            } else {
                self.random.random_range(0..=held.len())
            };
            for (_, id) in held.into_iter().take(sent) {
                if !self.broker.poison.contains(&id) {
                    self.broker.append(shard, id);
                }
            }
        }
    }

    pub fn producer_dies(&mut self, process: usize) {
        if self.processes[process].stopped_until > self.now {
            return;
        }
        self.empty_producer(process);
        let now = self.now;
        let at = &mut self.processes[process];
        at.session += 1;
        at.machine.producer_lost(now);
        self.step(process);
    }
}
