//! Partitions blocked at unreadable records: detection, alarms, and the skips that operators request.

use std::time::{Duration, Instant};

use minishop_bus::Record;
use minishop_bus::consume::{Look, Partition, Reach, look_at};
use minishop_core::position::Position;

use super::gap::Gap;
use super::poll::Poller;
use super::sight::{Blocked, Passing};

/// How long one diagnostic read may take. It blocks the poll thread.
const LOOK: Duration = Duration::from_secs(3);
/// How long the leader may take to return its partition's range, the store the requested skips, and a seek.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a blocked offset is tried again, and how often it is logged.
const TRY_AGAIN: Duration = Duration::from_secs(30);
const SPEAK_AGAIN: Duration = Duration::from_mins(5);

/// When blocked partitions were last handled.
#[derive(Debug, Default)]
pub(super) struct Watch {
    statistics: u64,
    tried_at: Option<Instant>,
    spoke_at: Option<Instant>,
}

/// Returns whether `every` has passed since `at`; if so, sets `at` to now.
fn is_time(at: &mut Option<Instant>, every: Duration) -> bool {
    let due = at.is_none_or(|at| at.elapsed() >= every);
    if due {
        *at = Some(Instant::now());
    }
    due
}

impl Poller<'_> {
    /// Judges a delivered record; returns whether it is to be processed.
    pub(super) fn admits(&mut self, record: &Record) -> bool {
        let missing = match self.sight.passes(record, Instant::now()) {
            Passing::Yes => return true,
            Passing::No => return false,
            Passing::Doubtful(missing) => missing,
        };
        let partition = record.place();
        match look_at(&self.ctx.brokers, &partition, missing, LOOK) {
            // The missing offsets hold a transaction marker, or were compacted.
            Ok(Look::Record(offset)) if offset >= record.offset => {
                self.sight.accept(record);
                return true;
            }
            Ok(Look::Unreadable(error)) => self.block(&partition, missing, error),
            // It is read and judged again.
            Ok(_) => self.read_from(&partition, missing),
            Err(error) => {
                tracing::debug!(error = ?error, "cannot inspect an offset of the event log; reading it again");
                self.read_from(&partition, missing);
            }
        }
        false
    }

    /// Handles partitions that make no progress; runs once per client statistics.
    pub(super) fn watch(&mut self) {
        let (statistics, reaches) = self.consumer.reaches();
        if statistics == self.watch.statistics {
            return;
        }
        self.watch.statistics = statistics;
        let ours = self.shared.lock().partitions();
        self.sight.keep(|partition| ours.contains_key(partition));
        for (partition, is_checked) in &ours {
            let reach = reaches.get(&(partition.topic.to_string(), partition.partition));
            match reach {
                Some(reach) if *is_checked && !self.paused => self.find_still(partition, *reach),
                _ => self.sight.clear_standstill(partition),
            }
        }
        let blocked = self.sight.blocked();
        if !blocked.is_empty() {
            self.skip(&blocked);
            let again = is_time(&mut self.watch.tried_at, TRY_AGAIN);
            for (partition, blocked) in self.sight.blocked() {
                if again { self.seek(&partition, blocked.offset) } else { self.rest(&partition) }
            }
        }
        self.report();
    }

    fn find_still(&mut self, partition: &Partition, reach: Reach) {
        let now = Instant::now();
        let Some(next) = self.sight.note_reach(partition, reach, now) else { return };
        // Only the leader's answer counts: while it is unavailable, or a transaction is open, there is no standstill.
        if self.consumer.range(partition, ANSWER).is_ok_and(|(_, end)| end > next) {
            if self.sight.cannot_be_read(partition, now) {
                let error = match look_at(&self.ctx.brokers, partition, next, LOOK) {
                    // Another client can read it: this one tries again.
                    Ok(Look::Record(_)) => return self.read_from(partition, next),
                    Ok(Look::Unreadable(error)) => error,
                    Ok(Look::Nothing) => "its bytes are not valid records".to_owned(),
                    Err(_) => return self.sight.clear_standstill(partition),
                };
                self.block(partition, next, error);
            }
        } else {
            self.sight.clear_standstill(partition);
        }
    }

    fn block(&mut self, partition: &Partition, offset: i64, error: String) {
        if self.sight.block(partition, offset, error) {
            self.watch.spoke_at = None;
        }
    }

    /// Seeks to a partition's end, where the client finds nothing unreadable.
    fn rest(&self, partition: &Partition) {
        if let Ok((_, end)) = self.consumer.range(partition, ANSWER) {
            self.seek(partition, end);
        }
    }

    /// Reads a partition from an offset.
    pub(super) fn read_from(&mut self, partition: &Partition, offset: i64) {
        self.sight.begins(partition, offset);
        self.seek(partition, offset);
    }

    fn seek(&self, partition: &Partition, offset: i64) {
        let to = Position { topic: partition.topic.to_string(), partition: partition.partition, next_offset: offset };
        if let Err(error) = self.consumer.seek(&to, ANSWER) {
            tracing::debug!(error = ?error, "cannot seek in a partition");
        }
    }

    /// Has the processor step over the gaps that operators want skipped; resumes reading behind those that it has stepped over.
    fn skip(&mut self, blocked: &[(Partition, Blocked)]) {
        let skips = self.ctx.store.operations.skips(&self.ctx.config.kafka_group);
        let Ok(Ok(skips)) = self.runtime.block_on(async { tokio::time::timeout(ANSWER, skips).await }) else { return };
        for (partition, blocked) in blocked {
            let is_here = |topic: &str, n: i32| *partition.topic == *topic && partition.partition == n;
            let said = skips.iter().find(|(gap, _)| is_here(&gap.topic, gap.partition) && gap.offset == blocked.offset);
            let Some((gap, requested_by)) = said else { continue };
            if self.shared.lock().known(partition).0.is_some_and(|settled| settled >= gap.until) {
                self.read_from(partition, gap.until);
                continue;
            }
            match self.consumer.range(partition, ANSWER) {
                Ok((_, end)) if gap.until <= end && gap.until > gap.offset => {
                    let (from, until) = (gap.offset, gap.until);
                    let (error, requested_by) = (blocked.error.clone(), requested_by.clone());
                    self.shared.lock().step_over(Gap { partition: partition.clone(), from, until, error, requested_by });
                    self.shared.wake();
                }
                Ok(_) => tracing::warn!(
                    topic = &*partition.topic,
                    partition = partition.partition,
                    offset = gap.offset,
                    read.offset = gap.until,
                    "the requested skip does not end within the log; nothing is skipped"
                ),
                Err(_) => {}
            }
        }
    }

    /// Raises alarms for the blocked partitions, and clears those that no longer apply.
    fn report(&mut self) {
        let blocked = self.sight.blocked();
        self.metrics.unreadable(blocked.iter().map(|(partition, _)| partition));
        let say = |(p, blocked): &(Partition, Blocked)| {
            let (n, offset, error) = (p.partition, blocked.offset, &blocked.error);
            format!("partition {n} of {} cannot be read at offset {offset} ({error}); see `minishop topics skip --help`", p.topic)
        };
        let note = (!blocked.is_empty()).then(|| blocked.iter().map(say).collect::<Vec<_>>().join("; "));
        self.ctx.status.note("event_log", note);
        if blocked.is_empty() || !is_time(&mut self.watch.spoke_at, SPEAK_AGAIN) {
            return;
        }
        for (partition, blocked) in blocked {
            tracing::error!(
                topic = &*partition.topic,
                partition = partition.partition,
                offset = blocked.offset,
                error = blocked.error,
                "records cannot be read; their partition waits, others continue. To give the records up: minishop topics skip"
            );
        }
    }
}
