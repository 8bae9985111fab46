//! The scheduler: draws from one seed what happens and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::VecDeque;
use std::time::Duration;

use minishop_bus::produce::Token;
use minishop_core::ids::EventId;
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

    fn write(&mut self, process: usize) {
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
    fn run_job(&mut self, process: usize, want: Want) -> Result<(), String> {
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

    fn answer(&mut self, process: usize, answer: Answer) {
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

    fn trouble(&mut self) {
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

    fn crash(&mut self, process: usize) {
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
