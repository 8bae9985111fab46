-- Nothing looks a row up by its id: rows of an order are found by (order_id, version) and sorted by id. Each row of an order paid
-- for an entry in this index.
ALTER TABLE timeline DROP CONSTRAINT timeline_pkey;
