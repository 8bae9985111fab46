-- What housekeeping forgets of repairs is found oldest first, without a scan.
CREATE INDEX audit_age ON audit (at);
CREATE INDEX operation_ended ON operation (ended_at) WHERE ended_at IS NOT NULL;

-- With a handler that is called from the lot, every order goes through `parked`: dead rows at the head of its index slow down each
-- claim, as they do each read of the outbox.
ALTER TABLE parked SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
