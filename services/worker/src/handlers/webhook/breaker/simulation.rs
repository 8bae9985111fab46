//! Breaker and ordered retries in virtual time: the orders of a key are called one after the other with growing waits, as in the
//! lot, against an endpoint that fails at random or for some time. The seed determines a run.

use super::*;

/// How long a call takes.
const CALL: Duration = Duration::from_millis(20);
const CONCURRENCY: usize = 32;
/// The backoff and the attempts of the default configuration.
const WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_hours(1);
const ATTEMPTS: u32 = 8;
/// The delay of an event that was handed back when calls are not paused.
const REST: Duration = Duration::from_secs(1);

/// The endpoint's behaviour.
#[derive(Debug, Clone, Copy)]
struct Endpoint {
    /// The share of calls that fail at random.
    failing: f64,
    /// When it is completely down.
    down: (Duration, Duration),
    /// The first `bad_keys` keys have orders that always fail.
    bad_keys: usize,
}

const WELL: Endpoint = Endpoint { failing: 0.0, down: (Duration::ZERO, Duration::ZERO), bad_keys: 0 };

#[derive(Debug, Clone, Default)]
struct Key {
    orders: u32,
    attempts: u32,
    /// The most attempts that one of its orders has used up.
    most: u32,
    dead: bool,
}

/// The result of a run.
#[derive(Debug, Default)]
struct Totals {
    done: u32,
    dead: usize,
    outages: u32,
    most_attempts: u32,
    /// When the last order was done.
    last_done: Duration,
}

struct Run {
    seed: u64,
    began: Instant,
    endpoint: Endpoint,
    breaker: Option<Breaker>,
    keys: Vec<Key>,
    /// When each key's next order is due, soonest first.
    due: std::collections::BTreeSet<(Duration, usize)>,
    /// When each call ends, and its ticket.
    calls: std::collections::BTreeMap<(Duration, usize), Ticket>,
    totals: Totals,
}

impl Run {
    fn new(seed: u64, endpoint: Endpoint, keys: usize, orders: u32, with_breaker: bool) -> Self {
        Self {
            seed,
            began: Instant::now(),
            endpoint,
            breaker: with_breaker.then(Breaker::default),
            keys: vec![Key { orders, ..Key::default() }; keys],
            due: (0..keys).map(|key| (Duration::ZERO, key)).collect(),
            calls: std::collections::BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    /// Draws a number from 0 to 1 (splitmix64).
    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.seed;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((bits ^ (bits >> 31)) >> 32).expect("32 bits")) / f64::from(u32::MAX)
    }

    /// Runs until `end`, or until nothing is left to do.
    fn until(mut self, end: Duration) -> Totals {
        let mut now = Duration::ZERO;
        while now < end {
            let paused = self.claim(now);
            let call = self.calls.first_key_value().map(|((at, _), _)| *at);
            let room = self.room() > self.calls.len();
            let due = self.due.first().filter(|_| room).map(|(at, _)| paused.map_or(*at, |left| (now + left).max(*at)));
            let Some(next) = call.into_iter().chain(due).min() else { break };
            now = next.max(now);
            if call.is_some_and(|at| at <= now) {
                self.end_call(now);
            }
        }
        self.totals.dead = self.keys.iter().filter(|key| key.dead).count();
        self.totals.most_attempts = self.keys.iter().map(|key| key.most).max().unwrap_or_default();
        self.totals
    }

    fn room(&self) -> usize {
        self.breaker.as_ref().and_then(Breaker::room).unwrap_or(CONCURRENCY)
    }

    /// Starts due calls while there is room; returns how long calls are paused.
    fn claim(&mut self, now: Duration) -> Option<Duration> {
        let at = self.began + now;
        if let Some(pause) = self.breaker.as_mut().and_then(|breaker| breaker.paused(at)) {
            return Some(pause);
        }
        while let Some((due, key)) = self.due.first().copied().filter(|(due, _)| *due <= now && self.calls.len() < self.room()) {
            self.due.remove(&(due, key));
            match self.breaker.as_mut().map_or(Some(None), |breaker| breaker.admit(at)) {
                Some(ticket) => drop(self.calls.insert((now + CALL, key), ticket)),
                None => drop(self.due.insert((now + REST, key))),
            }
        }
        None
    }

    fn end_call(&mut self, now: Duration) {
        let Some(((_, key), ticket)) = self.calls.pop_first() else { return };
        let Endpoint { failing, down, bad_keys } = self.endpoint;
        let failed = self.draw() < failing || (down.0..down.1).contains(&now) || key < bad_keys;
        let at = self.began + now;
        let was_well = self.breaker.as_ref().is_some_and(|breaker| breaker.outage.is_none());
        let note = |breaker: &mut Breaker| breaker.note(ticket, &Bytes::from(key.to_string()), failed.then_some("500"), at);
        let counts = self.breaker.as_mut().is_none_or(note);
        self.totals.outages += u32::from(was_well && self.breaker.as_ref().is_some_and(|breaker| breaker.outage.is_some()));
        if !failed {
            self.totals.done += 1;
            self.totals.last_done = now;
            let key_of = &mut self.keys[key];
            (key_of.orders, key_of.attempts) = (key_of.orders - 1, 0);
            if key_of.orders > 0 {
                self.due.insert((now, key));
            }
            return;
        }
        if !counts {
            let pause = self.breaker.as_mut().and_then(|breaker| breaker.paused(at)).unwrap_or(REST);
            self.due.insert((now + pause, key));
            return;
        }
        let drawn = self.draw();
        let key_of = &mut self.keys[key];
        key_of.attempts += 1;
        key_of.most = key_of.most.max(key_of.attempts);
        if key_of.attempts >= ATTEMPTS {
            key_of.dead = true;
            return;
        }
        let wait = WAIT.saturating_mul(4_u32.saturating_pow(key_of.attempts - 1)).min(LONGEST_WAIT).mul_f64(drawn);
        self.due.insert((now + wait, key));
    }
}

const SEEDS: u64 = 20;

#[test]
fn many_keys_flow_though_some_calls_fail_at_random() {
    let end = Duration::from_secs(20);
    let healthy = Run::new(0, WELL, 5_000, 10, true).until(end).done;
    for seed in 0..SEEDS {
        for failing in [0.05, 0.15, 0.3] {
            let totals = Run::new(seed, Endpoint { failing, ..WELL }, 5_000, 10, true).until(end);
            let share = f64::from(totals.done) / f64::from(healthy) / (1.0 - failing);
            assert!(share >= 0.8, "seed {seed}, {failing} failing: {share:.2} of what could be, {totals:?}");
        }
    }
}

#[test]
fn to_six_keys_the_breaker_adds_nothing_but_their_retries() {
    let end = Duration::from_mins(10);
    for seed in 0..SEEDS {
        for failing in [0.05, 0.15, 0.3] {
            let run = |with_breaker| Run::new(seed, Endpoint { failing, ..WELL }, 6, 1_000_000, with_breaker).until(end).done;
            let (with, without) = (run(true), run(false));
            assert!(f64::from(with) >= 0.95 * f64::from(without), "seed {seed}, {failing} failing: {with} of {without}");
        }
    }
}

#[test]
fn an_endpoint_that_is_wholly_down_uses_up_no_attempt_beyond_the_window() {
    let hours = Duration::from_hours;
    for seed in 0..SEEDS {
        for (keys, orders) in [(3_u32, 20), (6, 100), (5_000, 3)] {
            let down = Endpoint { down: (Duration::from_millis(100), hours(6)), ..WELL };
            let totals = Run::new(seed, down, keys as usize, orders, true).until(hours(7));
            assert_eq!((totals.done, totals.dead, totals.outages), (keys * orders, 0, 1), "seed {seed}, {keys} keys: {totals:?}");
            // The window holds twelve failures: few keys share them.
            assert!(totals.most_attempts <= 12_u32.div_ceil(keys.min(12)) + 1, "seed {seed}, {keys} keys: {totals:?}");
            assert!(totals.last_done < hours(6) + LONGEST * 8, "it is found out soon: {totals:?}");
        }
    }
}

#[test]
fn orders_that_always_fail_are_given_up_and_hold_up_nobody_else() {
    for seed in 0..SEEDS {
        // Also after an outage at the start.
        for down in [Duration::ZERO, Duration::from_secs(20)] {
            let endpoint = Endpoint { bad_keys: 4, down: (Duration::ZERO, down), ..WELL };
            let totals = Run::new(seed, endpoint, 6, 1_000, true).until(Duration::from_hours(24));
            assert_eq!((totals.dead, totals.done), (4, 2_000), "seed {seed}: {totals:?}");
            assert!(totals.last_done < Duration::from_mins(3), "seed {seed}: {totals:?}");
        }
    }
}
