-- What housekeeping forgets is found oldest first, without a scan.
CREATE INDEX inbox_age ON inbox (consumer, settled_at);
