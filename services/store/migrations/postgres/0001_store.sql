-- The store, first shape.

-- Room on each page keeps the change of status within it (HOT), so the indexes are not touched.
CREATE TABLE orders (
    order_id uuid PRIMARY KEY,
    client_id text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL,
    customer_id text NOT NULL,
    status text NOT NULL CHECK (status IN ('created', 'processed', 'failed', 'cancelled')),
    version int NOT NULL,
    currency text,
    total_minor bigint NOT NULL,
    items jsonb NOT NULL,
    correlation_id text NOT NULL,
    traceparent text,
    created_event_id uuid NOT NULL,
    settled_event_id uuid,
    adopted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (client_id, idempotency_key)
) WITH (fillfactor = 65);
CREATE INDEX orders_of_client ON orders (client_id, order_id);
CREATE INDEX orders_of_customer ON orders (client_id, customer_id, order_id);

-- A pending set: rows live for milliseconds, so dead ones are swept early. CACHE 1: else a later call may get a smaller id.
CREATE TABLE outbox (
    shard smallint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    event_id uuid NOT NULL,
    topic text NOT NULL,
    record_key bytea NOT NULL,
    order_id uuid,
    order_version int,
    payload bytea,
    headers bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, id),
    CHECK (octet_length(payload) <= 262144 OR topic LIKE '%.dlq')
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE relay_lease (
    shard smallint PRIMARY KEY,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO relay_lease (shard) SELECT generate_series(0, 31);

CREATE TABLE relay_owner (
    owner text NOT NULL,
    role smallint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (owner, role)
);

CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    data_sha bytea NOT NULL,
    order_id uuid,
    settled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
);

CREATE TABLE parked (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    consumer text NOT NULL,
    record_key bytea NOT NULL,
    blocks boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('retrying', 'waiting', 'dead')),
    event_id uuid NOT NULL,
    order_id uuid,
    client_id text,
    type text,
    needs_type text,
    topic text NOT NULL,
    partition int NOT NULL,
    source_offset bigint NOT NULL,
    raw_key bytea,
    raw_value bytea,
    raw_headers bytea NOT NULL,
    error_class text,
    error_code text,
    error_message text,
    error_fingerprint bytea,
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    leased_until timestamptz,
    lease_epoch bigint NOT NULL DEFAULT 0,
    redrives int NOT NULL DEFAULT 0,
    first_failed_at timestamptz,
    last_failed_at timestamptz,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (consumer, event_id)
);
CREATE INDEX parked_key ON parked (consumer, record_key, id) WHERE blocks;
CREATE INDEX parked_due ON parked (consumer, next_attempt_at) WHERE state <> 'dead';

-- A status row has a version; a note has none.
CREATE TABLE timeline (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    order_id uuid NOT NULL,
    version int,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    cause uuid NOT NULL,
    detail jsonb,
    UNIQUE (order_id, version)
);

CREATE TABLE consumed (
    consumer text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
);
