-- Outbox rows without a copy of the order. A row whose `headers` is null is brief: whoever publishes it from the table rebuilds value
-- and headers from the order, its timeline and `trace`. The build before cannot read such rows.
DROP VIEW outbox_waiting;
ALTER TABLE outbox_event RENAME TO outbox_event_before;
CREATE TABLE outbox_event (
    shard INTEGER NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    event_id BLOB NOT NULL,
    topic TEXT NOT NULL,
    record_key BLOB NOT NULL,
    order_id BLOB,
    order_version INTEGER,
    payload BLOB,
    headers BLOB,
    trace TEXT,
    set_aside INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (shard, number),
    CHECK (length(payload) <= 262144 OR topic LIKE '%.dlq')
) STRICT;
INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, set_aside, created_at)
SELECT shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, set_aside, created_at
FROM outbox_event_before;
DROP TABLE outbox_event_before;
CREATE VIEW outbox_waiting AS SELECT e.* FROM outbox_event e JOIN outbox_shard s USING (shard) WHERE e.number > s.acknowledged;

ALTER TABLE outbox_set_aside RENAME TO outbox_set_aside_before;
CREATE TABLE outbox_set_aside (
    shard INTEGER NOT NULL,
    number INTEGER NOT NULL,
    event_id BLOB NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    record_key BLOB NOT NULL,
    order_id BLOB,
    order_version INTEGER,
    payload BLOB,
    headers BLOB,
    created_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    set_aside_at INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_set_aside SELECT * FROM outbox_set_aside_before;
DROP TABLE outbox_set_aside_before;
