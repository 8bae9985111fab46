-- The one row that is written to find out whether the disk takes writes.
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL, filler BLOB NOT NULL) STRICT;
INSERT INTO probe VALUES (1, 0, x'');
