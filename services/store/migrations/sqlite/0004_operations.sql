-- Repairs over dead letters, and what operators did. The same tables as in PostgreSQL.

CREATE TABLE operation (
    id BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('redrive', 'discard')),
    state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'stopped', 'done')),
    client_id TEXT NOT NULL,
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    filter TEXT,
    rate INTEGER NOT NULL,
    failure_ratio REAL NOT NULL,
    correlation_id TEXT NOT NULL,
    stopped_because TEXT NOT NULL DEFAULT '',
    owner TEXT,
    leased_until INTEGER,
    lease_epoch INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX operation_open ON operation (id) WHERE ended_at IS NULL;

-- The frozen set, worked off in the order of the parked ids.
CREATE TABLE operation_item (
    operation_id BLOB NOT NULL,
    parked_id INTEGER NOT NULL,
    event_id BLOB,
    order_id BLOB,
    state TEXT NOT NULL CHECK (state IN ('pending', 'released', 'succeeded', 'failed', 'skipped')),
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (operation_id, parked_id)
) STRICT;
-- A dead letter waits for one operation at a time: whoever comes second finds it taken.
CREATE UNIQUE INDEX operation_item_taken ON operation_item (parked_id) WHERE state = 'pending';
CREATE INDEX operation_item_state ON operation_item (operation_id, state, parked_id);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    action TEXT NOT NULL,
    client_id TEXT NOT NULL,
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    outcome TEXT NOT NULL,
    operation_id BLOB,
    detail TEXT,
    correlation_id TEXT NOT NULL
) STRICT;

-- How operators look for dead letters.
CREATE INDEX parked_dead ON parked (id) WHERE state = 'dead';
