-- The outbox as a log: inside a shard, numbers are gapless and in the order of the commits.

-- Up to which number of a shard everything is published. Its number of rows for a role is the number of shards.
CREATE TABLE outbox_shard (
    shard INTEGER PRIMARY KEY,
    acknowledged INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO outbox_shard (shard) VALUES (0), (1), (2), (3), (16), (17), (18), (19);

-- A shard always keeps its last row, published or not: the next number follows from it.
CREATE TABLE outbox_event (
    shard INTEGER NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    event_id BLOB NOT NULL,
    topic TEXT NOT NULL,
    record_key BLOB NOT NULL,
    order_id BLOB,
    order_version INTEGER,
    payload BLOB,
    headers BLOB NOT NULL,
    set_aside INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (shard, number),
    CHECK (length(payload) <= 262144 OR topic LIKE '%.dlq')
) STRICT;

-- Rows that cannot be published, with the reason. Nothing else keeps their bytes.
CREATE TABLE outbox_set_aside (
    shard INTEGER NOT NULL,
    number INTEGER NOT NULL,
    event_id BLOB NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    record_key BLOB NOT NULL,
    order_id BLOB,
    order_version INTEGER,
    payload BLOB,
    headers BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    set_aside_at INTEGER NOT NULL
) STRICT;

-- Sixteen shards a role become four; rows keep their order within the new ones.
INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, created_at)
SELECT 16 * (shard / 16) + shard % 4, row_number() OVER (PARTITION BY 16 * (shard / 16) + shard % 4 ORDER BY id),
    event_id, topic, record_key, order_id, order_version, payload, headers, created_at FROM outbox;
DROP TABLE outbox;

-- What waits to be published, for people who look at the database.
CREATE VIEW outbox_waiting AS SELECT e.* FROM outbox_event e JOIN outbox_shard s USING (shard) WHERE e.number > s.acknowledged;
