//! Figures for each second of a run.

use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times of what happened, for each second.
#[derive(Debug, Clone)]
pub struct Series {
    begun: Instant,
    seconds: Vec<Histogram<u64>>,
}

impl Series {
    /// Counts seconds from `begun`.
    pub const fn new(begun: Instant) -> Self {
        Self { begun, seconds: Vec::new() }
    }

    /// Records what took so many microseconds and ended at `at`.
    pub fn record(&mut self, at: Instant, micros: u64) {
        let second = usize::try_from(at.saturating_duration_since(self.begun).as_secs()).unwrap_or_default();
        while self.seconds.len() <= second {
            self.seconds.push(Histogram::new(2).expect("two digits are a lawful precision"));
        }
        self.seconds[second].record(micros).expect("the histogram grows as needed");
    }

    /// Returns how many ended in each second.
    pub fn counts(&self) -> Vec<u64> {
        self.seconds.iter().map(Histogram::len).collect()
    }

    /// Returns how many ended in each of the first seconds: a load ends with a second of late answers.
    pub fn counts_until(&self, seconds: u64) -> Vec<u64> {
        let mut counts = self.counts();
        counts.truncate(usize::try_from(seconds).unwrap_or(usize::MAX));
        counts
    }

    /// Returns a quantile of each second, in microseconds; 0 where nothing ended.
    pub fn quantiles(&self, quantile: f64) -> Vec<u64> {
        self.seconds.iter().map(|second| second.value_at_quantile(quantile)).collect()
    }

    /// Returns counts and quantiles for programs.
    pub fn json(&self) -> Value {
        json!({"count": self.counts(), "p50Micros": self.quantiles(0.5), "p99Micros": self.quantiles(0.99)})
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_ends_in_a_second_counts_there_and_empty_seconds_are_kept() {
        let begun = Instant::now();
        let mut series = Series::new(begun);
        for (millis, micros) in [(0, 10), (999, 20), (2500, 30)] {
            series.record(begun + Duration::from_millis(millis), micros);
        }
        assert_eq!(series.counts(), [2, 0, 1]);
        assert_eq!(series.counts_until(2), [2, 0]);
        assert_eq!(series.quantiles(1.0), [20, 0, 30]);
    }
}
