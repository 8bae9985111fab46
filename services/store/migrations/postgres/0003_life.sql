-- What stands in the lot is asked for by its order, too.
CREATE INDEX parked_of_order ON parked (order_id) WHERE order_id IS NOT NULL;
