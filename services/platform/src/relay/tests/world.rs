//! The scheduler: draws from one seed what happens and when.

mod requests;
mod troubles;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::VecDeque;
use std::time::Duration;

use minishop_bus::produce::Token;
use minishop_store::{Leadership, OutboxRow};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::messages::{Job, Trouble, Want};
use super::super::shard::{Alarm, Moment, Sabotage};
use super::broker::Broker;
use super::process::Process;
use super::store::{SHARDS, Store};

const PROCESSES: usize = 3;
/// How long faults happen and events are written; then everything heals.
const TROUBLE: Duration = Duration::from_secs(40);
/// How long the backlog may then take to empty.
const HEALED: Duration = Duration::from_mins(1);
/// The most records in a producer.
const PRODUCER: usize = 12;
const SHARD_COUNT: usize = SHARDS as usize;

#[derive(Debug)]
pub enum Event {
    Step,
    Hand(Vec<OutboxRow>, Moment),
    Verify,
    Run(Want),
    Answer(Answer),
    Take { session: u64, shard: i16, alone: bool },
    Report { session: u64, token: Token, outcome: Result<(), Trouble> },
    Write,
    Trouble,
    StepOver { shard: i16, numbers: std::ops::Range<i64> },
}

#[derive(Debug)]
pub enum Answer {
    Led(Moment, Leadership),
    Brought(Want, Vec<OutboxRow>),
    Acknowledged(Want, bool),
    Aside(Want, bool),
    Failed(Job),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    Happen,
    /// Processes only join, one by one: nothing may be published twice.
    Never,
}

/// Formats rows for people.
fn names(rows: &[OutboxRow]) -> Vec<String> {
    rows.iter().map(|row| format!("{}/{}:{:x}", row.event.shard, row.number, row.event.event_id.0.as_u128())).collect()
}

impl Event {
    fn told(&self) -> String {
        match self {
            Self::Hand(rows, _) => format!("hand {:?}", names(rows)),
            Self::Answer(Answer::Brought(Want::Read(asks, _), rows)) => format!("brought {asks:?} {:?}", names(rows)),
            other => format!("{other:?}"),
        }
    }
}

/// An event at its time, for one start of a process.
struct At {
    moment: Moment,
    order: u64,
    process: usize,
    start: u64,
    event: Event,
}

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        (self.moment, self.order) == (other.moment, other.order)
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.moment, self.order).cmp(&(other.moment, other.order))
    }
}

pub struct World {
    pub random: StdRng,
    pub now: Moment,
    queue: BinaryHeap<Reverse<At>>,
    order: u64,
    pub processes: Vec<Process>,
    store: Store,
    pub broker: Broker,
    copies: VecDeque<Store>,
    /// Until then, the store answers nobody.
    store_away_until: Moment,
    went_back: bool,
    /// Whether the store went back without breaking a session: rows in memory may be sent before anybody notices, so no order is
    /// promised.
    unnoticed: bool,
    alarms: usize,
    events: u128,
    sabotage: Option<Sabotage>,
    faults: Faults,
    told: bool,
    trace: u64,
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            now: Moment::from_secs(1),
            queue: BinaryHeap::new(),
            order: 0,
            processes: (0..PROCESSES).map(|n| Process::new(n as u64, SHARD_COUNT, sabotage)).collect(),
            store: Store::new(),
            broker: Broker::new(),
            copies: VecDeque::new(),
            store_away_until: Moment::ZERO,
            went_back: false,
            unnoticed: false,
            alarms: 0,
            events: 1,
            sabotage,
            faults: Faults::Happen,
            told: false,
            trace: 0,
        }
    }

    /// Creates a world in which nothing fails.
    pub fn peaceful(seed: u64) -> Self {
        Self { faults: Faults::Never, ..Self::new(seed, None) }
    }

    pub fn is_peaceful(&self) -> bool {
        self.faults == Faults::Never
    }

    /// Prints everything that happens.
    pub fn tell(mut self) -> Self {
        self.told = true;
        self
    }

    /// Runs until nothing waits; returns a digest of the run, or the violation.
    pub fn run(mut self) -> Result<u64, String> {
        for process in 0..PROCESSES {
            let latest = if self.is_peaceful() { 10_000_000 } else { 50_000 };
            self.after(0, latest, process, Event::Step);
            self.after(0, 2_000_000, process, Event::Write);
        }
        if !self.is_peaceful() {
            self.after(0, 1_000_000, 0, Event::Trouble);
        }
        let end = TROUBLE + HEALED;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now = next.moment;
            if self.now > TROUBLE && !self.store.waits() && self.store_away_until <= self.now {
                return self.judge();
            }
            if self.now > end {
                return Err("events still wait long after everything is healed".to_owned());
            }
            self.happen(next)?;
        }
        Err("nothing is left to happen, and events wait".to_owned())
    }

    fn judge(self) -> Result<u64, String> {
        if !self.went_back && self.alarms > 0 {
            return Err("an alarm although the store never went back".to_owned());
        }
        if self.is_peaceful() && self.broker.copies > 0 {
            return Err(format!("{} events were published twice although nothing failed", self.broker.copies));
        }
        for shard in 0..SHARDS {
            let mut last = None;
            for (n, id) in self.store.history(shard).iter().enumerate() {
                if self.store.aside.contains(id) {
                    continue;
                }
                let place = self.broker.place(shard, id);
                if place.is_none() {
                    return Err(format!("event {} of shard {shard} is committed and not published", n + 1));
                }
                if place < last && !self.unnoticed {
                    return Err(format!("event {} of shard {shard} was first published before one that comes before it", n + 1));
                }
                last = place;
            }
        }
        Ok(self.trace)
    }

    /// Schedules an event in `least` to `most` microseconds.
    pub fn after(&mut self, least: u64, most: u64, process: usize, event: Event) {
        let at = self.now + Duration::from_micros(self.random.random_range(least..=most));
        self.at(at, process, event);
    }

    fn at(&mut self, at: Moment, process: usize, event: Event) {
        self.order += 1;
        let start = self.processes[process].start;
        self.queue.push(Reverse(At { moment: at, order: self.order, process, start, event }));
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>12?} {}", self.now, what());
        }
    }

    pub fn chance(&mut self, in_a_hundred: u32) -> bool {
        !self.is_peaceful() && self.random.random_range(0..100) < in_a_hundred
    }

    pub fn is_calm(&self) -> bool {
        self.now > TROUBLE
    }

    fn happen(&mut self, next: At) -> Result<(), String> {
        let At { process, start, event, .. } = next;
        match event {
            Event::Trouble => {
                self.trouble();
                return Ok(());
            }
            Event::Write => {
                self.write(process);
                return Ok(());
            }
            Event::StepOver { shard, ref numbers } => {
                self.store.fill(shard, numbers.clone());
                return Ok(());
            }
            _ => {}
        }
        if self.processes[process].start != start {
            return Ok(());
        }
        // The store works whether or not the process runs.
        if let Event::Run(want) = event {
            return self.run_job(process, want);
        }
        let stopped_until = self.processes[process].stopped_until;
        if stopped_until > self.now {
            self.order += 1;
            self.queue.push(Reverse(At { moment: stopped_until, order: self.order, process, start, event }));
            return Ok(());
        }
        self.say(|| format!("p{process} {}", event.told()));
        self.trace = self.trace.wrapping_mul(31).wrapping_add(u64::try_from(self.now.as_micros()).unwrap() ^ process as u64);
        let now = self.now;
        let at = &mut self.processes[process];
        match event {
            Event::Step if at.step_at > now => return Ok(()),
            Event::Hand(rows, answered_at) => drop(at.machine.hand(rows, answered_at)),
            Event::Verify => at.machine.verify(now),
            Event::Answer(answer) => self.answer(process, answer),
            Event::Take { session, shard, alone: false } => self.broker_takes_batch(process, session, shard),
            Event::Take { session, shard, .. } => self.broker_takes_one(process, session, shard),
            Event::Report { session, token, outcome } if session == at.session => at.machine.report(token, outcome, now),
            Event::Step | Event::Report { .. } => {}
            Event::Run(_) | Event::Write | Event::Trouble | Event::StepOver { .. } => unreachable!("dealt with above"),
        }
        self.step(process);
        Ok(())
    }

    pub fn step(&mut self, process: usize) {
        let now = self.now;
        for want in self.processes[process].machine.wants(now) {
            self.after(50, 2_000, process, Event::Run(want));
        }
        loop {
            let at = &mut self.processes[process];
            if at.held() >= PRODUCER {
                break;
            }
            let Some(next) = at.machine.next(now) else { break };
            let (token, id, alone) = (next.token, next.row.event.event_id, next.alone);
            // Half of the poisoned events are found before they are sent.
            if self.broker.poison.contains(&id) && id.0.as_u128() % 2 == 0 {
                at.machine.cannot_send(token, "poison".to_owned());
                continue;
            }
            let n = usize::try_from(token.shard).unwrap();
            (if alone { &mut at.single[n] } else { &mut at.queues[n] }).push_back((token, id));
            at.machine.sent(token);
            let session = at.session;
            self.after(100, 20_000, process, Event::Take { session, shard: token.shard, alone });
        }
        let at = &mut self.processes[process];
        let alarms: Vec<_> = at.machine.alarms.drain(..).collect();
        for alarm in alarms {
            self.say(|| format!("p{process} ALARM {alarm:?}"));
            self.alarms += 1;
            if let Alarm::Gap { shard, number, next } = alarm {
                self.after(1_000, 3_000_000, process, Event::StepOver { shard, numbers: number..next });
            }
        }
        let at = &mut self.processes[process];
        let next = at.machine.look_again(now);
        at.step_at = next;
        self.at(next, process, Event::Step);
    }
}
