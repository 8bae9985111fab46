//! What goes wrong, and how it heals.

use std::time::Duration;

use rand::Rng;

use super::super::process::Process;
use super::super::store::SHARDS;
use super::{Event, PROCESSES, SHARD_COUNT, World};

impl World {
    pub(super) fn trouble(&mut self) {
        if self.is_calm() {
            return self.heal();
        }
        self.after(50_000, 4_000_000, 0, Event::Trouble);
        let process = self.random.random_range(0..PROCESSES);
        let long = Duration::from_millis(self.random.random_range(50..14_000));
        let kind = self.random.random_range(0..12);
        self.say(|| format!("p{process} TROUBLE {kind} {long:?}"));
        match kind {
            0 | 1 => self.crash(process),
            2 | 3 => self.processes[process].stopped_until = self.now + long,
            4 => self.store_away_until = self.now + long,
            5 => self.broker.away_until = self.now + long,
            6 => self.broker.refuses_until = self.now + long.min(Duration::from_secs(3)),
            7 => self.producer_dies(process),
            8 | 9 => {
                self.copies.push_back(self.store.clone());
                if self.copies.len() > 3 {
                    self.copies.pop_front();
                }
            }
            10 => self.go_back(),
            _ => self.lose_a_row(),
        }
    }

    fn lose_a_row(&mut self) {
        if self.chance(90) {
            return;
        }
        let (shard, n) = (self.random.random_range(0..SHARDS), self.random.random_range(0..20));
        self.say(|| format!("a row of shard {shard} is lost"));
        self.store.remove(shard, n);
        // Such alarms are right, too.
        self.went_back = true;
    }

    fn heal(&mut self) {
        (self.store_away_until, self.broker.away_until) = (self.now, self.now);
        self.broker.refuses_until = self.now;
        for process in &mut self.processes {
            process.stopped_until = self.now;
        }
    }

    pub(super) fn crash(&mut self, process: usize) {
        self.empty_producer(process);
        let start = PROCESSES as u64 + self.order;
        self.processes[process] = Process::new(start, SHARD_COUNT, self.sabotage);
        self.after(1_000, 3_000_000, process, Event::Step);
    }

    /// Replaces the store with an older copy. Usually all sessions break; sometimes nobody notices.
    fn go_back(&mut self) {
        let Some(copy) = self.copies.pop_front() else { return };
        self.say(|| "the store goes back".to_owned());
        self.copies.clear();
        let aside = self.store.aside.clone();
        self.store = copy;
        // `judge` must still know what was set aside; the store itself loses the mark with its rows.
        self.store.aside.extend(aside);
        self.went_back = true;
        if self.chance(20) {
            self.unnoticed = true;
            return;
        }
        for process in &mut self.processes {
            (process.relay_is_cut, process.writer_is_cut) = (true, true);
        }
    }
}
