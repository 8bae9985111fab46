-- What housekeeping forgets of repairs is found oldest first, without a scan.
CREATE INDEX audit_age ON audit (at);
CREATE INDEX operation_ended ON operation (ended_at) WHERE ended_at IS NOT NULL;
