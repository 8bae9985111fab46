//! State of idempotent producers: which batch comes next, and which are repeats.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::append::Round;

/// Remembered batches of a producer, to recognize repeats: clients keep at most five in flight.
const REMEMBERED: usize = 5;
/// Cached producers; above this the cache is cleared and refilled from the rows.
const PRODUCERS: usize = 20_000;

/// First and last sequence number of a stored batch and the offset of its first record.
pub(super) type Recent = (i32, i32, i64);

/// State of one producer in one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Producer {
    /// `None` until its first batch.
    pub epoch: Option<i16>,
    pub recent: Vec<Recent>,
}

pub(super) enum Verdict {
    Append(Producer),
    Repeated(i64),
    Refused(ResponseError),
}

impl Producer {
    /// Judges a batch with sequence numbers `sequence` to `last` that would be stored at `base`.
    pub fn judge(&self, epoch: i16, sequence: i32, last: i32, base: i64) -> Verdict {
        let mut after = Self { epoch: Some(epoch), recent: vec![(sequence, last, base)] };
        match self.epoch {
            // The producer's rows expired or its topic was recreated: this error lets clients restart at 0.
            None if sequence != 0 => Verdict::Refused(ResponseError::UnknownProducerId),
            Some(known) if epoch < known => Verdict::Refused(ResponseError::InvalidProducerEpoch),
            Some(known) if epoch > known && sequence != 0 => Verdict::Refused(ResponseError::OutOfOrderSequenceNumber),
            Some(known) if epoch == known => self.follow(sequence, last, &mut after).unwrap_or(Verdict::Append(after)),
            _ => Verdict::Append(after),
        }
    }

    fn follow(&self, sequence: i32, last: i32, after: &mut Self) -> Option<Verdict> {
        if let Some((.., base)) = self.recent.iter().find(|(first, end, _)| (*first, *end) == (sequence, last)) {
            return Some(Verdict::Repeated(*base));
        }
        let (oldest, ..) = self.recent.first()?;
        let (_, newest, _) = self.recent.last()?;
        if sequence == advance(*newest, 1) {
            let keep = self.recent.len().saturating_sub(REMEMBERED - 1);
            after.recent.splice(0..0, self.recent[keep..].iter().copied());
            return None;
        }
        // Sequence numbers have no gaps, so a batch wholly before the oldest known one was stored. They wrap around, so
        // half of them count as before, the other half as ahead.
        let next = advance(*newest, 1);
        let behind = |sequence: i32| next.wrapping_sub(sequence) & i32::MAX;
        let older = (behind(*oldest) + 1..1 << 30).contains(&behind(sequence)) && behind(last) > behind(*oldest);
        Some(Verdict::Refused(if older {
            ResponseError::DuplicateSequenceNumber
        } else {
            ResponseError::OutOfOrderSequenceNumber
        }))
    }
}

/// Adds to a sequence number; 0 follows 2³¹ − 1.
pub(super) fn advance(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}

/// Cache of producer state, filled from the rows when a producer first appears.
#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<(i64, i64), Producer>);

impl Producers {
    pub fn get(&self, key: &(i64, i64)) -> Option<&Producer> {
        self.0.get(key)
    }

    pub fn remember(&mut self, newer: HashMap<(i64, i64), Producer>) {
        self.0.extend(newer);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Loads the producers of `round` that are not cached.
    pub async fn load(&mut self, connection: &mut SqliteConnection, round: &Round) -> sqlx::Result<()> {
        if self.0.len() > PRODUCERS {
            self.0.clear();
        }
        let mut unknown: Vec<_> = round
            .appends()
            .filter(|append| append.header.producer >= 0)
            .map(|append| (append.partition.id, append.header.producer))
            .filter(|key| !self.0.contains_key(key))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort_unstable();
        unknown.dedup();
        let rows = sqlx::query(
            "SELECT p.part, p.id, p.epoch, p.recent FROM json_each(?1) j
             JOIN producer p ON p.part = j.value ->> 0 AND p.id = j.value ->> 1",
        )
        .bind(json!(unknown).to_string())
        .fetch_all(connection)
        .await?;
        self.0.extend(unknown.into_iter().map(|key| (key, Producer::default())));
        for row in rows {
            let recent = serde_json::from_str(row.try_get(3)?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            self.0.insert((row.try_get(0)?, row.try_get(1)?), Producer { epoch: Some(row.try_get(2)?), recent });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the batch's offset, or the refusal's code.
    fn decide(producer: &mut Producer, sequence: i32, count: i32, base: i64) -> Result<i64, i16> {
        match producer.judge(0, sequence, advance(sequence, count - 1), base) {
            Verdict::Append(after) => {
                *producer = after;
                Ok(base)
            }
            Verdict::Repeated(base) => Ok(base),
            Verdict::Refused(error) => Err(error.code()),
        }
    }

    #[test]
    fn sequences_start_again_at_0_after_the_largest() {
        let mut producer = Producer { epoch: Some(0), recent: vec![(i32::MAX - 4, i32::MAX - 2, 10)] };
        assert_eq!(decide(&mut producer, 0, 1, 13), Err(45), "two numbers are still due");
        assert_eq!(decide(&mut producer, i32::MAX - 1, 4, 13), Ok(13), "a batch may cross the largest number");
        assert_eq!(producer.recent.last(), Some(&(i32::MAX - 1, 1, 13)));
        assert_eq!(decide(&mut producer, i32::MAX - 1, 4, 99), Ok(13), "its repeat is known");
        assert_eq!(decide(&mut producer, 2, 1, 17), Ok(17));
    }

    #[test]
    fn five_batches_are_remembered_and_no_more() {
        let mut producer = Producer::default();
        for n in 0..7 {
            assert_eq!(decide(&mut producer, n, 1, i64::from(n)), Ok(i64::from(n)));
        }
        assert_eq!(producer.recent.len(), REMEMBERED);
        assert_eq!(decide(&mut producer, 2, 1, 99), Ok(2));
        assert_eq!(decide(&mut producer, 1, 1, 99), Err(46));
    }
}
