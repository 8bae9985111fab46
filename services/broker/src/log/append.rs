//! One round of the writer: producer checks, offsets of the batches, and the one statement that stores everything.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::producers::{Producer, Producers, Verdict, advance};
use super::{Append, Positions, Produce, Stored};
use crate::batch;
use crate::catalog::Partition;
use crate::storage::{MAX_OFFSET, row_id};
use crate::tail::TailQueue;

#[derive(Debug, Default)]
pub(super) struct Round {
    produce: Vec<Produce>,
    positions: Vec<Positions>,
    bytes: usize,
}

impl Round {
    pub fn requests(&self) -> usize {
        self.produce.len() + self.positions.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add_produce(&mut self, produce: Produce) {
        self.bytes += produce.batches.iter().map(|append| append.bytes.len()).sum::<usize>();
        self.produce.push(produce);
    }

    pub fn add_positions(&mut self, positions: Positions) {
        self.positions.push(positions);
    }

    pub fn appends(&self) -> impl Iterator<Item = &Append> {
        self.produce.iter().flat_map(|produce| &produce.batches)
    }

    pub fn refuse(self) {
        self.stage(&Producers::default()).refuse();
    }

    /// Assigns each batch its offset or its refusal, in the order of arrival.
    pub fn stage(self, producers: &Producers) -> Staged {
        let mut staged = Staged { records: Vec::with_capacity(self.bytes), ..Staged::default() };
        for produce in self.produce {
            let outcomes = produce.batches.iter().map(|append| staged.append(append, producers)).collect();
            staged.answers.push((produce, outcomes));
        }
        for positions in self.positions {
            for position in positions.reached.iter().filter(|position| !position.partition.gone()) {
                staged.positions.push(json!([
                    positions.group,
                    position.partition.id,
                    position.offset,
                    position.leader_epoch,
                    position.metadata
                ]));
            }
            staged.commits.push(positions);
        }
        staged
    }
}

#[derive(Debug)]
struct Placed {
    partition: Arc<Partition>,
    base: i64,
    last: i64,
    max_timestamp: i64,
    /// Where its bytes start in the round's buffer.
    at: usize,
    size: usize,
}

/// A round whose outcome is decided but not yet on disk.
#[derive(Debug, Default)]
pub(super) struct Staged {
    placed: Vec<Placed>,
    records: Vec<u8>,
    ends: HashMap<i64, (Arc<Partition>, i64, usize)>,
    producers: HashMap<(i64, i64), Producer>,
    positions: Vec<Value>,
    answers: Vec<(Produce, Vec<Stored>)>,
    commits: Vec<Positions>,
}

impl Staged {
    fn append(&mut self, append: &Append, known: &Producers) -> Stored {
        let Append { partition, header, bytes } = append;
        if partition.gone() {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        let base = self.ends.get(&partition.id).map_or_else(|| partition.next(), |(_, next, _)| *next);
        let last = base + i64::from(header.last_delta);
        if last >= MAX_OFFSET {
            return Err(ResponseError::KafkaStorageError);
        }
        if header.producer >= 0 {
            let key = (partition.id, header.producer);
            let unheard = Producer::default();
            let producer = self.producers.get(&key).or_else(|| known.get(&key)).unwrap_or(&unheard);
            let end = advance(header.sequence, header.last_delta);
            match producer.judge(header.epoch, header.sequence, end, base) {
                Verdict::Append(after) => drop(self.producers.insert(key, after)),
                Verdict::Repeated(base) => return Ok(base),
                Verdict::Refused(error) => return Err(error),
            }
        }
        let at = self.records.len();
        self.records.extend_from_slice(bytes);
        batch::place(&mut self.records[at..], base);
        let end = self.ends.entry(partition.id).or_insert_with(|| (Arc::clone(partition), base, 0));
        end.1 = last + 1;
        end.2 += bytes.len();
        self.placed.push(Placed {
            partition: Arc::clone(partition),
            base,
            last,
            max_timestamp: header.max_timestamp,
            at,
            size: bytes.len(),
        });
        Ok(base)
    }

    /// Returns the statement's parameters; `None` if there is nothing to store (only repeats and refusals).
    pub fn write(&self) -> Option<Write> {
        if self.placed.is_empty() && self.positions.is_empty() {
            return None;
        }
        let batches: Vec<_> = self
            .placed
            .iter()
            .map(|p| json!([row_id(p.partition.id, p.last), p.base, p.max_timestamp, p.at + 1, p.size]))
            .collect();
        let ends: Vec<_> = self.ends.iter().map(|(id, (_, next, bytes))| json!([id, next, bytes])).collect();
        let producers: Vec<_> =
            self.producers.iter().map(|((part, id), p)| json!([part, id, p.epoch, json!(p.recent).to_string()])).collect();
        Some(Write {
            batches: json!(batches).to_string(),
            records: self.records.clone(),
            ends: json!(ends).to_string(),
            producers: json!(producers).to_string(),
            positions: json!(self.positions).to_string(),
        })
    }

    /// Answers every request that nothing was stored.
    pub fn refuse(self) {
        let code = ResponseError::KafkaStorageError;
        for (produce, outcomes) in self.answers {
            // A client that has disconnected needs no answer.
            let _ = produce.reply.send(vec![Err(code); outcomes.len()]);
        }
        for positions in self.commits {
            let _ = positions.reply.send(Err(code));
        }
    }

    /// After the commit: makes the records visible to readers, remembers the producers and answers.
    pub fn publish(self, producers: &mut Producers, tail: &mut TailQueue) {
        let records = Bytes::from(self.records);
        for placed in &self.placed {
            tail.push(&placed.partition, placed.base, placed.last, records.slice(placed.at..placed.at + placed.size));
        }
        for (partition, next, bytes) in self.ends.values() {
            partition.grow(*next, i64::try_from(*bytes).unwrap_or(i64::MAX));
        }
        producers.remember(self.producers);
        for (produce, outcomes) in self.answers {
            let _ = produce.reply.send(outcomes);
        }
        for positions in self.commits {
            let _ = positions.reply.send(Ok(()));
        }
    }
}

/// One round as parameters of one SQL text, so that any round takes one message to the thread of SQLite.
///
/// In a text of several statements parameters are named `$1`: with `?5` alone SQLite would expect five.
pub(super) struct Write {
    batches: String,
    records: Vec<u8>,
    ends: String,
    producers: String,
    positions: String,
}

const WRITE: &str = "
BEGIN IMMEDIATE;
INSERT INTO batch (id, base, max_timestamp, at, bytes)
  SELECT value ->> 0, value ->> 1, value ->> 2, CAST(unixepoch('subsec') * 1000 AS INTEGER),
         substr($2, value ->> 3, value ->> 4) FROM json_each($1);
UPDATE part SET next = j.value ->> 1, bytes = bytes + (j.value ->> 2) FROM json_each($3) j WHERE part.id = j.value ->> 0;
INSERT INTO producer (part, id, epoch, recent, at)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, CAST(unixepoch('subsec') * 1000 AS INTEGER)
  FROM json_each($4) WHERE true
  ON CONFLICT DO UPDATE SET epoch = excluded.epoch, recent = excluded.recent, at = excluded.at;
INSERT INTO committed (grp, part, position, leader_epoch, metadata, at)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, CAST(unixepoch('subsec') * 1000 AS INTEGER)
  FROM json_each($5) WHERE true
  ON CONFLICT DO UPDATE SET position = excluded.position, leader_epoch = excluded.leader_epoch,
                            metadata = excluded.metadata, at = excluded.at;
COMMIT;";

impl Write {
    pub async fn execute(self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query(WRITE)
            .bind(self.batches)
            .bind(self.records)
            .bind(self.ends)
            .bind(self.producers)
            .bind(self.positions)
            .execute(connection)
            .await?;
        Ok(())
    }
}
