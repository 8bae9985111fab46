-- Repairs over dead letters, and what operators did.

CREATE TABLE operation (
    id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('redrive', 'discard')),
    state text NOT NULL CHECK (state IN ('running', 'paused', 'stopped', 'done')),
    client_id text NOT NULL,
    operator text NOT NULL,
    reason text NOT NULL,
    filter text,
    rate int NOT NULL,
    failure_ratio double precision NOT NULL,
    correlation_id text NOT NULL,
    stopped_because text NOT NULL DEFAULT '',
    owner text,
    leased_until timestamptz,
    lease_epoch bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX operation_open ON operation (id) WHERE ended_at IS NULL;

-- The frozen set, worked off in the order of the parked ids.
CREATE TABLE operation_item (
    operation_id uuid NOT NULL,
    parked_id bigint NOT NULL,
    event_id uuid,
    order_id uuid,
    state text NOT NULL CHECK (state IN ('pending', 'released', 'succeeded', 'failed', 'skipped')),
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (operation_id, parked_id)
);
-- A dead letter waits for one operation at a time: whoever comes second finds it taken.
CREATE UNIQUE INDEX operation_item_taken ON operation_item (parked_id) WHERE state = 'pending';
CREATE INDEX operation_item_state ON operation_item (operation_id, state, parked_id);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    at timestamptz NOT NULL,
    action text NOT NULL,
    client_id text NOT NULL,
    operator text NOT NULL,
    reason text NOT NULL,
    outcome text NOT NULL,
    operation_id uuid,
    detail text,
    correlation_id text NOT NULL
);

-- How operators look for dead letters.
CREATE INDEX parked_dead ON parked (id) WHERE state = 'dead';
