-- A key's next event is found by (key, consumer, id) as one row value: no other index fits such a condition, so no plan can take
-- another one, whatever it was told of the table.
CREATE INDEX parked_head ON parked (record_key, consumer, id) WHERE blocks;
DROP INDEX parked_key;

-- Endpoints that workers leave alone because they are down; each worker tells of its own, again and again while it lasts.
CREATE TABLE endpoint_outage (
    owner text NOT NULL,
    endpoint text NOT NULL,
    since timestamptz NOT NULL,
    why text NOT NULL,
    next_probe_at timestamptz NOT NULL,
    told_at timestamptz NOT NULL,
    PRIMARY KEY (owner, endpoint)
);
