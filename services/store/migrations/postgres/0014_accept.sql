-- Texts that every order compares in an index, by bytes: a language's rules cost several times as much, and change with the server's
-- C library, which corrupts such an index. The lines of an order are only stored and returned, and cost less as text. Rewrites the
-- table.
ALTER TABLE orders ALTER client_id TYPE text COLLATE "C", ALTER idempotency_key TYPE text COLLATE "C",
    ALTER customer_id TYPE text COLLATE "C", ALTER items TYPE text USING items::text;

-- Accepts a batch of orders whose keys are all new, and enqueues their first events as brief rows. Fails with a unique violation and
-- without any effect if a key exists; the caller then takes the statement that leaves such orders out. The arrays of one order's
-- values are `ids` to `traces`, sorted by (client, key); `places` counts from 1 within each shard. Returns the last number of each of
-- `shards` before this batch: an event's number is that of its shard plus its place.
CREATE FUNCTION accept_new(
    ids uuid[], clients text[], keys text[], fingerprints bytea[], customers text[], currencies text[], totals bigint[],
    lines text[], correlations text[], traceparents text[], times timestamptz[], events uuid[], record_keys bytea[],
    in_shards smallint[], places bigint[], traces text[], topic_name text, shards smallint[])
RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lasts bigint[];
BEGIN
    INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, currency, total_minor,
        items, correlation_id, traceparent, created_event_id, created_at)
    SELECT order_id, client_id, key, fingerprint, customer_id, 'created', 1, currency, total_minor, items, correlation_id,
        traceparent, event_id, created_at
    FROM unnest(ids, clients, keys, fingerprints, customers, currencies, totals, lines, correlations, traceparents, times, events)
    AS t(order_id, client_id, key, fingerprint, customer_id, currency, total_minor, items, correlation_id, traceparent,
        created_at, event_id);

    -- Last: the shards stay locked until the commit.
    lasts := outbox_last(shards);
    INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, trace)
    SELECT shard, lasts[array_position(shards, shard)] + place, event_id, topic_name, record_key, order_id, 1, trace
    FROM unnest(in_shards, places, events, record_keys, ids, traces) AS t(shard, place, event_id, record_key, order_id, trace);
    RETURN lasts;
END $$;

-- The last number is the last entry of an index. Statistics of a small table make reading and sorting a shard's rows seem as cheap,
-- and behind an old snapshot these are all that were ever removed.
ALTER FUNCTION outbox_last(smallint[]) SET enable_bitmapscan = off;
ALTER FUNCTION outbox_last(smallint[]) SET enable_sort = off;
ALTER FUNCTION outbox_last(smallint[]) SET enable_seqscan = off;
