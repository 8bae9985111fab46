-- Tells how long events have been held for a newer worker, without a look at all that wait.
CREATE INDEX parked_held ON parked (consumer, parked_at) WHERE needs_type IS NOT NULL;
