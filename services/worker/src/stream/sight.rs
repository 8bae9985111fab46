//! Finds records that `librdkafka` cannot read. The library does not say where they are: it stops silently at a batch that it
//! cannot parse, and skips a batch with a wrong checksum. Pure: observations go in, decisions come out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use minishop_bus::Record;
use minishop_bus::consume::{Partition, Reach};

/// How long a read error may explain a gap.
const COMPLAINT_COUNTS: Duration = Duration::from_mins(1);

/// A partition that is not read beyond an unreadable offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The first offset that cannot be read.
    pub offset: i64,
    /// The client library's error, if it reported one.
    pub error: String,
}

/// Whether a record passes to the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// It passes.
    Yes,
    /// It is behind an unreadable offset.
    No,
    /// The records from this offset up to the delivered one are missing, and the client has reported a read error, so it may have
    /// skipped them.
    Doubtful(i64),
}

/// What was observed of this member's partitions.
#[derive(Debug, Default)]
pub struct Sight {
    /// The next offset, if nothing is missing.
    expected: HashMap<Partition, i64>,
    /// The first delivered offset, of partitions whose resume point is not known yet.
    first: HashMap<Partition, i64>,
    blocked: HashMap<Partition, Blocked>,
    still: HashMap<Partition, (i64, Instant)>,
    complaint: Option<(String, Instant)>,
    /// After how long without progress a partition is unreadable.
    standstill: Duration,
}

impl Sight {
    /// Begins without partitions.
    pub fn new(standstill: Duration) -> Self {
        Self { standstill, ..Self::default() }
    }

    /// Notes a read error, which names no partition.
    pub fn complained(&mut self, error: String, now: Instant) {
        self.complaint = Some((error, now));
    }

    /// Returns the last read error, if it is recent.
    pub fn complaint(&self, now: Instant) -> Option<&str> {
        let (error, at) = self.complaint.as_ref()?;
        (now.duration_since(*at) <= COMPLAINT_COUNTS).then_some(error.as_str())
    }

    /// Judges a delivered record.
    pub fn passes(&mut self, record: &Record, now: Instant) -> Passing {
        let partition = record.place();
        if let Some(blocked) = self.blocked.get(&partition) {
            if record.offset > blocked.offset {
                return Passing::No;
            }
            self.blocked.remove(&partition);
        }
        match self.expected.get(&partition) {
            Some(expected) if record.offset > *expected && self.complaint(now).is_some() => Passing::Doubtful(*expected),
            known => {
                if known.is_none() {
                    self.first.insert(partition.clone(), record.offset);
                }
                self.expected.insert(partition, record.offset + 1);
                Passing::Yes
            }
        }
    }

    /// Lets a doubtful record pass: the missing offsets hold no record.
    pub fn accept(&mut self, record: &Record) {
        self.expected.insert(record.place(), record.offset + 1);
    }

    /// Notes the offset from which a partition should have been read; returns whether records may have been skipped before the
    /// first delivered one.
    pub fn was_to_begin(&mut self, partition: &Partition, offset: i64, now: Instant) -> bool {
        let first = self.first.remove(partition);
        self.expected.entry(partition.clone()).or_insert(offset);
        first.is_some_and(|first| first > offset) && self.complaint(now).is_some()
    }

    /// Notes the offset from which a partition is read now.
    pub fn begins(&mut self, partition: &Partition, offset: i64) {
        self.expected.insert(partition.clone(), offset);
        self.first.remove(partition);
        self.blocked.remove(partition);
        self.still.remove(partition);
    }

    /// Stops a partition before an offset; returns whether that is new.
    pub fn block(&mut self, partition: &Partition, offset: i64, error: String) -> bool {
        self.blocked.insert(partition.clone(), Blocked { offset, error }).is_none_or(|blocked| blocked.offset != offset)
    }

    /// Lists the blocked partitions.
    pub fn blocked(&self) -> Vec<(Partition, Blocked)> {
        self.blocked.iter().map(|(partition, blocked)| (partition.clone(), blocked.clone())).collect()
    }

    /// Forgets partitions that are not this member's any more.
    pub fn keep(&mut self, is_ours: impl Fn(&Partition) -> bool) {
        self.expected.retain(|partition, _| is_ours(partition));
        self.first.retain(|partition, _| is_ours(partition));
        self.blocked.retain(|partition, _| is_ours(partition));
        self.still.retain(|partition, _| is_ours(partition));
    }

    /// Notes how far the client is in a partition. Returns the offset at which it makes no progress although there may be more
    /// records; the partition's leader can confirm that.
    pub fn note_reach(&mut self, partition: &Partition, reach: Reach, now: Instant) -> Option<i64> {
        let next = self.next(partition, reach);
        // Negative offsets are unknown to the client. With an unknown `end` there may be more: the leader knows.
        let has_more = reach.queued == 0 && next >= 0 && (next < reach.end || reach.end < 0);
        let still = has_more && !self.blocked.contains_key(partition);
        if !still || self.still.get(partition).is_some_and(|(before, _)| *before != next) {
            self.still.remove(partition);
        }
        if still {
            self.still.entry(partition.clone()).or_insert((next, now));
        }
        still.then_some(next)
    }

    /// Returns the offset that the client reads next. After a wrong checksum `librdkafka` may misread bytes as an offset far beyond
    /// the end, and restart repeatedly. The first offset that was not delivered is returned then.
    fn next(&self, partition: &Partition, reach: Reach) -> i64 {
        match self.expected.get(partition) {
            Some(expected) if reach.next > reach.end || reach.next < *expected => *expected,
            _ => reach.next,
        }
    }

    /// Returns whether a partition has made no progress for so long that it is unreadable. Its leader must have confirmed that
    /// there is more.
    pub fn cannot_be_read(&self, partition: &Partition, now: Instant) -> bool {
        self.still.get(partition).is_some_and(|(_, since)| now.duration_since(*since) >= self.standstill)
    }

    /// Forgets that a partition makes no progress, which has a good reason: its leader does not answer, or has no more.
    pub fn clear_standstill(&mut self, partition: &Partition) {
        self.still.remove(partition);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use minishop_bus::Headers;

    use super::*;

    fn partition(n: i32) -> Partition {
        Partition { topic: Arc::from("t"), partition: n }
    }

    fn record(n: i32, offset: i64) -> Record {
        let topic = partition(n).topic;
        Record { topic, partition: n, offset, key: None, value: None, headers: Headers::default(), timestamp: 0 }
    }

    fn reach(next: i64, end: i64) -> Reach {
        Reach { next, end, queued: 0 }
    }

    #[test]
    fn a_gap_is_doubtful_only_after_a_complaint() {
        let (mut sight, now) = (Sight::new(Duration::from_secs(15)), Instant::now());
        sight.begins(&partition(0), 3);
        assert_eq!(sight.passes(&record(0, 5), now), Passing::Yes, "as of a transaction's marker");
        sight.complained("a checksum".to_owned(), now);
        assert_eq!(sight.passes(&record(0, 6), now), Passing::Yes);
        assert_eq!(sight.passes(&record(0, 9), now), Passing::Doubtful(7));
        assert_eq!(sight.passes(&record(0, 9), now + Duration::from_hours(1)), Passing::Yes, "too long ago");
        assert_eq!(sight.passes(&record(0, 12), now), Passing::Doubtful(10));
        sight.accept(&record(0, 12));
        assert_eq!(sight.passes(&record(0, 13), now), Passing::Yes);
    }

    #[test]
    fn records_that_may_have_been_passed_over_before_the_first_one_are_noticed() {
        let now = Instant::now();
        for (first, complaint, missed) in [(3, true, false), (5, false, false), (5, true, true)] {
            let mut sight = Sight::new(Duration::from_secs(15));
            if complaint {
                sight.complained("a checksum".to_owned(), now);
            }
            assert_eq!(sight.passes(&record(0, first), now), Passing::Yes, "from where it is read is not known yet");
            assert_eq!(sight.was_to_begin(&partition(0), 3, now), missed, "{first} {complaint}");
        }
    }

    #[test]
    fn nothing_passes_a_place_that_cannot_be_read_until_it_is_read_or_skipped() {
        let (mut sight, now) = (Sight::new(Duration::from_secs(15)), Instant::now());
        sight.begins(&partition(0), 3);
        assert!(sight.block(&partition(0), 3, String::new()));
        assert!(!sight.block(&partition(0), 3, "once more".to_owned()), "the same place");
        assert_eq!(sight.passes(&record(0, 4), now), Passing::No);
        assert_eq!(sight.passes(&record(1, 4), now), Passing::Yes, "others flow");
        assert_eq!(sight.passes(&record(0, 3), now), Passing::Yes, "it has become readable");
        assert_eq!((sight.blocked(), sight.passes(&record(0, 4), now)), (vec![], Passing::Yes));
        sight.block(&partition(0), 5, String::new());
        sight.begins(&partition(0), 8);
        assert_eq!(sight.passes(&record(0, 8), now), Passing::Yes);
    }

    #[test]
    fn a_partition_that_stands_still_while_its_leader_has_more_cannot_be_read() {
        let (mut sight, began) = (Sight::new(Duration::from_secs(15)), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(sight.note_reach(&partition(0), reach(7, 7), at(0)).is_none(), "it has read all");
        assert!(sight.note_reach(&partition(0), reach(-1001, 9), at(1)).is_none(), "nobody knows where it should begin");
        assert_eq!(sight.note_reach(&partition(0), reach(7, 9), at(5)), Some(7));
        assert!(!sight.cannot_be_read(&partition(0), at(10)));
        sight.clear_standstill(&partition(0));
        assert!(sight.note_reach(&partition(0), reach(7, 9), at(60)).is_some(), "while its leader was away time did not count");
        assert!(!sight.cannot_be_read(&partition(0), at(61)));
        assert!(sight.note_reach(&partition(0), reach(8, 9), at(74)).is_some(), "it has moved");
        assert!(!sight.cannot_be_read(&partition(0), at(76)));
        assert!(
            sight.note_reach(&partition(0), Reach { queued: 1, ..reach(8, 9) }, at(80)).is_none(),
            "what is read waits to be delivered"
        );
        assert!(sight.note_reach(&partition(0), reach(8, 9), at(90)).is_some());
        assert!(sight.cannot_be_read(&partition(0), at(105)));
        sight.block(&partition(0), 8, String::new());
        assert!(sight.note_reach(&partition(0), reach(8, 9), at(106)).is_none(), "that is known");
        sight.keep(|partition| partition.partition != 0);
        assert_eq!(sight.blocked(), []);
    }

    #[test]
    fn a_client_that_begins_again_and_again_stands_still_before_what_it_has_not_delivered() {
        let (mut sight, began) = (Sight::new(Duration::from_secs(15)), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        sight.begins(&partition(0), 3);
        for (second, next, end) in [(1, i64::MAX, 9), (6, 0, 9), (11, 1 << 40, -1), (16, 3, 9)] {
            assert_eq!(sight.note_reach(&partition(0), reach(next, end), at(second)), Some(3), "{next}");
        }
        assert!(sight.cannot_be_read(&partition(0), at(16)));
        assert_eq!(sight.note_reach(&partition(0), reach(9, 9), at(17)), None, "it has read all, such as a transaction's marker");
    }
}
