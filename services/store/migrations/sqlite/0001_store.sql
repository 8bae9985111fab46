-- The store, first shape. The same tables as in PostgreSQL; times are milliseconds since 1970, ids 16 bytes whose byte
-- order is their order.
PRAGMA application_id = 0x4d53484f; -- "MSHO": tells our file from another program's

CREATE TABLE orders (
    order_id BLOB NOT NULL PRIMARY KEY CHECK (length(order_id) = 16),
    client_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    customer_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('created', 'processed', 'failed', 'cancelled')),
    version INTEGER NOT NULL,
    currency TEXT,
    total_minor INTEGER NOT NULL,
    items TEXT NOT NULL CHECK (json_valid(items)),
    correlation_id TEXT NOT NULL,
    traceparent TEXT,
    created_event_id BLOB NOT NULL,
    settled_event_id BLOB,
    adopted INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    UNIQUE (client_id, idempotency_key)
) STRICT;
CREATE INDEX orders_of_client ON orders (client_id, order_id);
CREATE INDEX orders_of_customer ON orders (client_id, customer_id, order_id);

-- AUTOINCREMENT: an id is never used again, so a late delete cannot hit another event.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    shard INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    topic TEXT NOT NULL,
    record_key BLOB NOT NULL,
    order_id BLOB,
    order_version INTEGER,
    payload BLOB,
    headers BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    CHECK (length(payload) <= 262144 OR topic LIKE '%.dlq')
) STRICT;
CREATE INDEX outbox_of_shard ON outbox (shard, id);

CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    event_id BLOB NOT NULL,
    data_sha BLOB NOT NULL,
    order_id BLOB,
    settled_at INTEGER NOT NULL,
    PRIMARY KEY (consumer, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE parked (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL,
    record_key BLOB NOT NULL,
    blocks INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('retrying', 'waiting', 'dead')),
    event_id BLOB NOT NULL,
    order_id BLOB,
    client_id TEXT,
    type TEXT,
    needs_type TEXT,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    source_offset INTEGER NOT NULL,
    raw_key BLOB,
    raw_value BLOB,
    raw_headers BLOB NOT NULL,
    error_class TEXT,
    error_code TEXT,
    error_message TEXT,
    error_fingerprint BLOB,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER,
    leased_until INTEGER,
    lease_epoch INTEGER NOT NULL DEFAULT 0,
    redrives INTEGER NOT NULL DEFAULT 0,
    first_failed_at INTEGER,
    last_failed_at INTEGER,
    parked_at INTEGER NOT NULL,
    UNIQUE (consumer, event_id)
) STRICT;
CREATE INDEX parked_key ON parked (consumer, record_key, id) WHERE blocks;
CREATE INDEX parked_due ON parked (consumer, next_attempt_at) WHERE state <> 'dead';

-- A status row has a version; a note has none.
CREATE TABLE timeline (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id BLOB NOT NULL,
    version INTEGER,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    cause BLOB NOT NULL,
    detail TEXT CHECK (detail IS NULL OR json_valid(detail)),
    UNIQUE (order_id, version)
) STRICT;

CREATE TABLE consumed (
    consumer TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) STRICT, WITHOUT ROWID;
