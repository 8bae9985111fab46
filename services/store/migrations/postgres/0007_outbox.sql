-- The outbox as a log: inside a shard, numbers are gapless and in the order of the commits. Needs the processes of the build before
-- to be stopped: their statements name a table that is gone, so each of them fails as a whole.
LOCK TABLE outbox, relay_lease IN ACCESS EXCLUSIVE MODE;

-- What the leader of a shard has stored: its lease, and up to which number everything is published. Its number of rows for a role is
-- the number of shards.
CREATE TABLE outbox_shard (
    shard smallint PRIMARY KEY,
    acknowledged bigint NOT NULL DEFAULT 0,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO outbox_shard (shard) SELECT 16 * role + n FROM generate_series(0, 1) role, generate_series(0, 3) n;

-- A shard always keeps its last row, published or not: the next number follows from it.
CREATE TABLE outbox_event (
    shard smallint NOT NULL,
    number bigint NOT NULL CHECK (number > 0),
    event_id uuid NOT NULL,
    topic text NOT NULL,
    record_key bytea NOT NULL,
    order_id uuid,
    order_version int,
    payload bytea,
    headers bytea NOT NULL,
    set_aside boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, number),
    CHECK (octet_length(payload) <= 262144 OR topic LIKE '%.dlq')
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false
);

-- Rows that cannot be published, with the reason. Nothing else keeps their bytes.
CREATE TABLE outbox_set_aside (
    shard smallint NOT NULL,
    number bigint NOT NULL,
    event_id uuid NOT NULL PRIMARY KEY,
    topic text NOT NULL,
    record_key bytea NOT NULL,
    order_id uuid,
    order_version int,
    payload bytea,
    headers bytea NOT NULL,
    created_at timestamptz NOT NULL,
    reason text NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Sixteen shards a role become four; rows keep their order within the new ones.
INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, created_at)
SELECT 16 * (shard / 16) + shard % 4, row_number() OVER (PARTITION BY 16 * (shard / 16) + shard % 4 ORDER BY id),
    event_id, topic, record_key, order_id, order_version, payload, headers, created_at FROM outbox;
DROP TABLE outbox;
DROP TABLE relay_lease;

-- Locks shards until the transaction ends and tells the last number of each. Called after everything else that the transaction
-- writes or locks, so that the locks are held from here to the commit only. Volatile: the numbers are read in a snapshot that is
-- taken when the locks are held. Waiting for a lock is no conflict between orders, so the statement's own time limit ends it.
CREATE FUNCTION outbox_last(shards smallint[]) RETURNS bigint[] LANGUAGE plpgsql VOLATILE STRICT SET lock_timeout = 0 AS $$
DECLARE
    wanted smallint;
    last bigint;
    numbers bigint[] := '{}';
BEGIN
    -- In ascending order, so that two transactions cannot wait for each other. 1297305410 is "MSOB".
    FOREACH wanted IN ARRAY shards LOOP
        PERFORM pg_advisory_xact_lock(1297305410, wanted);
    END LOOP;
    FOREACH wanted IN ARRAY shards LOOP
        SELECT e.number INTO last FROM outbox_event e WHERE e.shard = wanted ORDER BY e.number DESC LIMIT 1;
        IF last IS NULL THEN
            SELECT s.acknowledged INTO STRICT last FROM outbox_shard s WHERE s.shard = wanted;
        END IF;
        numbers := numbers || last;
    END LOOP;
    RETURN numbers;
END $$;

-- Stores what is published and removes it, all but the last published row of each shard. `events` are those that bear the numbers
-- above `lows` up to `highs`, one shard after the other. Fails without any effect where the store is not the one that the leader
-- knows: the lease is another's, or another event stands under a number. One statement for each shard, with a range: no plan can
-- join the rows in another order.
CREATE FUNCTION outbox_acknowledge(leader text, shards smallint[], epochs bigint[], lows bigint[], highs bigint[], events uuid[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first int := 1;
    last int;
    standing uuid[];
BEGIN
    -- Losing this in a crash of the server only causes copies.
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR n IN 1 .. cardinality(shards) LOOP
        UPDATE outbox_shard SET acknowledged = highs[n]
        WHERE shard = shards[n] AND owner = leader AND epoch = epochs[n] AND acknowledged = lows[n];
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another leads outbox shard %', shards[n] USING ERRCODE = 'MS001';
        END IF;
        last := first + (highs[n] - lows[n])::int - 1;
        WITH gone AS (
            DELETE FROM outbox_event WHERE shard = shards[n] AND number >= lows[n] AND number < highs[n] RETURNING number, event_id
        )
        SELECT array_agg(event_id ORDER BY number) INTO standing FROM gone WHERE number > lows[n];
        standing := standing || (SELECT e.event_id FROM outbox_event e WHERE e.shard = shards[n] AND e.number = highs[n]);
        IF standing IS DISTINCT FROM events[first:last] THEN
            RAISE EXCEPTION 'other events stand up to number % of outbox shard %', highs[n], shards[n] USING ERRCODE = 'MS001';
        END IF;
        first := last + 1;
    END LOOP;
END $$;

-- What waits to be published, for people who look at the database.
CREATE VIEW outbox_waiting AS SELECT e.* FROM outbox_event e JOIN outbox_shard s USING (shard) WHERE e.number > s.acknowledged;
