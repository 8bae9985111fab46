-- Leaves half of each page for the copy that a change of status makes of each row: the copies stay on their page, and no index
-- changes. Pages that exist are not rewritten.
ALTER TABLE orders SET (fillfactor = 50);

-- As in migration 7, with two statements for all shards instead of two each. They must be two: the second one's snapshot is taken
-- when all locks are held.
CREATE OR REPLACE FUNCTION outbox_last(shards smallint[]) RETURNS bigint[] LANGUAGE plpgsql VOLATILE STRICT SET lock_timeout = 0 AS $$
DECLARE
    numbers bigint[];
BEGIN
    -- In ascending order, so that two transactions cannot wait for each other. 1297305410 is "MSOB".
    PERFORM pg_advisory_xact_lock(1297305410, wanted) FROM unnest(shards) wanted;
    SELECT array_agg(coalesce(
        (SELECT e.number FROM outbox_event e WHERE e.shard = wanted ORDER BY e.number DESC LIMIT 1),
        (SELECT s.acknowledged FROM outbox_shard s WHERE s.shard = wanted)) ORDER BY place)
    INTO STRICT numbers FROM unnest(shards) WITH ORDINALITY w(wanted, place);
    RETURN numbers;
END $$;
