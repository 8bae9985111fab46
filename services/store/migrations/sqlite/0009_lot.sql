-- Endpoints that workers leave alone because they are down; each worker tells of its own, again and again while it lasts.
CREATE TABLE endpoint_outage (
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    since INTEGER NOT NULL,
    why TEXT NOT NULL,
    next_probe_at INTEGER NOT NULL,
    told_at INTEGER NOT NULL,
    PRIMARY KEY (owner, endpoint)
) STRICT, WITHOUT ROWID;
