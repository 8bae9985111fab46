//! What became of the requests of a load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::connection::Answer;
use super::micros;
use super::schedule::Slot;
use super::series::Series;

/// Counts of a load, and its times in microseconds.
#[derive(Debug)]
pub struct Tally {
    pub begun: Instant,
    /// When the last answer came.
    last: Instant,
    pub sent: u64,
    /// From the intended time to the acknowledgement.
    pub accepts: Histogram<u64>,
    /// How much later than possible the requests were sent: the generator's own delay.
    pub late: Histogram<u64>,
    /// Requests that were sent after their time because all connections waited for the server.
    pub waited: u64,
    /// Refusals, by status and code.
    pub refused: BTreeMap<String, u64>,
    /// Requests without an answer.
    pub failed: u64,
    pub over_time: Series,
}

impl Tally {
    /// Begins to count.
    pub fn new(begun: Instant) -> Self {
        let empty = || Histogram::new(3).expect("three digits are a lawful precision");
        Self {
            begun,
            last: begun,
            sent: 0,
            accepts: empty(),
            late: empty(),
            waited: 0,
            refused: BTreeMap::new(),
            failed: 0,
            over_time: Series::new(begun),
        }
    }

    /// Records a request that was sent at `sent` and what came of it at `now`; `None` if there was no answer.
    pub fn record(&mut self, slot: Slot, sent: Instant, now: Instant, answer: Option<&Answer>) {
        self.sent += 1;
        self.last = self.last.max(now);
        let grows = "the histogram grows as needed";
        self.late.record(micros(sent.saturating_duration_since(slot.intended.max(slot.free)))).expect(grows);
        self.waited += u64::from(slot.free > slot.intended);
        match answer {
            Some(Answer::Accepted(_)) => {
                let took = micros(now.saturating_duration_since(slot.intended));
                self.accepts.record(took).expect(grows);
                self.over_time.record(now, took);
            }
            Some(Answer::Refused(code)) => *self.refused.entry(code.clone()).or_default() += 1,
            None => self.failed += 1,
        }
    }

    /// Returns how long the load took, to its last answer.
    pub fn length(&self) -> Duration {
        self.last - self.begun
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn latency_counts_from_the_intended_time_and_the_generators_delay_from_when_it_could_send() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut tally = Tally::new(begun);
        let accepted = Answer::Accepted(Uuid::nil());
        // Its connection was free early; the generator sent it 2 ms late.
        tally.record(Slot { number: 0, intended: at(10), free: at(5) }, at(12), at(15), Some(&accepted));
        // Its connection was busy until 40 ms after its time: the server's delay, not the generator's.
        tally.record(Slot { number: 1, intended: at(20), free: at(60) }, at(61), at(70), Some(&accepted));
        tally.record(
            Slot { number: 2, intended: at(80), free: at(70) },
            at(80),
            at(90),
            Some(&Answer::Refused("503".to_owned())),
        );
        tally.record(Slot { number: 3, intended: at(81), free: at(70) }, at(81), at(85), None);
        let rounded = |micros: u64| (micros + 50) / 100;
        assert_eq!((rounded(tally.accepts.min()), rounded(tally.accepts.max())), (50, 500));
        assert_eq!((rounded(tally.late.min()), rounded(tally.late.max())), (0, 20));
        assert_eq!((tally.sent, tally.accepts.len(), tally.waited, tally.failed), (4, 2, 1, 1));
        assert_eq!(tally.refused, BTreeMap::from([("503".to_owned(), 1)]));
        assert_eq!(tally.length(), Duration::from_millis(90));
    }
}
