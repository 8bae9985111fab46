-- Outbox rows without a copy of the order. A row whose `headers` is null is brief: whoever publishes it from the table rebuilds value
-- and headers from the order, its timeline and `trace`. Needs the processes of the build before to be stopped: they cannot read such
-- rows.
ALTER TABLE outbox_event ALTER headers DROP NOT NULL, ADD trace text;
ALTER TABLE outbox_set_aside ALTER headers DROP NOT NULL;

DROP FUNCTION settle_announced;

-- Settles a batch of events that find everything as their announcements say: each event is new to the consumer, nothing is parked
-- under its key, its order is `created` and has the client, fingerprint, version and announcing event that it names, and each
-- position was stored before. Fails without any effect if anything differs, with a unique violation if an event is not new, else with
-- MS002; the caller then takes the steps one by one. The arrays of one event's values are `events` to `out_traces`; `out_places` counts from 1 within each shard. Returns the
-- last number of each of `shards` before this batch: an event's number is that of its shard plus its place.
CREATE FUNCTION settle_announced(
    consumer_name text, events uuid[], digests bytea[], keys bytea[], orders uuid[], clients text[], fingerprints bytea[],
    versions int[], out_shards smallint[], out_places bigint[], out_events uuid[], out_keys bytea[], out_traces text[],
    new_status text, changed_at timestamptz, out_topic text, shards smallint[],
    topics text[], partitions int[], next_offsets bigint[], seen bigint[])
RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    wanted bigint := cardinality(events);
    written bigint;
    lasts bigint[];
BEGIN
    -- Sorted by event id, so that two transactions over the same events wait for each other and cannot deadlock.
    INSERT INTO inbox (consumer, event_id, data_sha, order_id)
    SELECT consumer_name, event_id, digest, order_id FROM unnest(events, digests, orders) e(event_id, digest, order_id)
    ORDER BY event_id;

    -- After the inbox, in a later statement: an earlier one misses a concurrent park. One index lookup for each key.
    PERFORM FROM (SELECT DISTINCT unnest(keys)) k(record_key) CROSS JOIN LATERAL (
        SELECT p.record_key, p.consumer FROM parked p
        WHERE p.blocks AND (p.record_key, p.consumer) >= (k.record_key, consumer_name)
        ORDER BY p.record_key, p.consumer, p.id LIMIT 1) p
    WHERE p.record_key = k.record_key AND p.consumer = consumer_name;
    IF FOUND THEN
        RAISE EXCEPTION 'an event of the key is parked' USING ERRCODE = 'MS002';
    END IF;

    -- One look-up for each order: no plan can turn a subquery with a limit into a join over all orders.
    WITH e AS (
        SELECT * FROM unnest(events, orders, clients, fingerprints, versions, out_events) WITH ORDINALITY
        AS t(event_id, order_id, client_id, fingerprint, version, out_event, n)
    ), done AS (
        UPDATE orders o SET status = new_status, version = o.version + 1, settled_event_id = e.out_event
        FROM e CROSS JOIN LATERAL (
            SELECT f.ctid AS place FROM orders f WHERE f.order_id = e.order_id AND f.status = 'created' AND f.version = e.version
            AND f.client_id = e.client_id AND f.fingerprint = e.fingerprint AND f.created_event_id = e.event_id LIMIT 1
        ) found
        WHERE o.ctid = found.place
        RETURNING e.n, o.order_id, o.version, e.event_id
    )
    INSERT INTO timeline (order_id, version, kind, at, cause)
    SELECT order_id, version, new_status, changed_at, event_id FROM done ORDER BY n;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < wanted THEN
        RAISE EXCEPTION 'an order is not as announced' USING ERRCODE = 'MS002';
    END IF;

    -- All rows are locked in one order before any is written.
    WITH stored AS MATERIALIZED (
        SELECT c.topic, c.partition, c.next_offset FROM consumed c
        WHERE c.consumer = consumer_name AND (c.topic, c.partition) IN (SELECT * FROM unnest(topics, partitions))
        ORDER BY c.topic, c.partition FOR NO KEY UPDATE
    )
    UPDATE consumed c SET next_offset = greatest(c.next_offset, t.next_offset)
    FROM unnest(topics, partitions, next_offsets, seen) t(topic, partition, next_offset, seen)
    JOIN stored s ON s.topic = t.topic AND s.partition = t.partition AND s.next_offset >= t.seen
    WHERE c.consumer = consumer_name AND c.topic = t.topic AND c.partition = t.partition;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < cardinality(topics) THEN
        RAISE EXCEPTION 'a position is new or behind' USING ERRCODE = 'MS002';
    END IF;

    -- Last: the shards stay locked until the commit.
    lasts := outbox_last(shards);
    INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, trace)
    SELECT shard, lasts[array_position(shards, shard)] + place, event_id, out_topic, record_key, order_id, version + 1, trace
    FROM unnest(out_shards, out_places, out_events, out_keys, orders, versions, out_traces)
    AS t(shard, place, event_id, record_key, order_id, version, trace);
    RETURN lasts;
END $$;
