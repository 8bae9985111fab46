//! The worker against records of every kind, over SQLite with the embedded log, and over PostgreSQL (`MINISHOP_TEST_POSTGRES`, a
//! fresh database per test) with Apache Kafka (`MINISHOP_TEST_KAFKA`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

mod accepted;
mod child;
mod claims;
mod consuming;
mod crash;
mod doubtful;
mod effects;
mod failing;
mod flaky;
mod handler;
mod hands;
mod held;
mod log;
mod lot;
mod lot_cancels;
mod lot_fixes;
mod lot_order;
mod records;
mod redriving;
mod refused;
mod repair_crash;
mod replaying;
mod restored;
mod returned;
mod shop;
mod traced;
mod unreadable;

minishop_testkit::on_both_stores! {
    crate::shop::on;
    refused:
        a_record_that_is_no_event_is_a_dead_letter_and_the_next_one_flows
        a_dead_letter_carries_the_records_own_bytes
        a_value_too_large_for_the_topic_is_left_out_and_said_to_be
        a_refused_event_does_not_take_the_place_of_the_good_one_under_its_id;
    accepted:
        an_odd_but_readable_event_is_processed
        an_unknown_order_is_adopted_for_the_client_in_the_headers
        the_processed_event_follows_from_its_cause
        a_correlation_id_that_breaks_the_rule_gives_way_to_the_events_id
        the_exact_sum_is_published_and_not_the_producers
        the_trace_goes_on_in_the_processed_event
        a_record_key_of_any_length_keeps_its_order;
    claims:
        a_batch_delivered_again_changes_nothing
        one_record_twice_in_a_batch_has_one_effect
        another_event_of_a_known_order_changes_nothing
        another_order_under_the_same_key_is_a_copy_or_a_dead_letter
        both_claims_of_a_key_in_one_batch_are_told_apart
        another_event_under_a_settled_id_is_a_dead_letter
        the_same_event_by_another_serializer_is_a_copy
        any_change_of_an_events_meaning_is_another_event
        an_event_that_was_settled_under_its_bytes_alone_is_still_known
        a_record_whose_own_id_was_taken_beforehand_stops_nobody
        a_known_order_with_other_content_or_client_is_a_dead_letter
        an_event_that_is_not_the_orders_next_changes_nothing
        an_order_settled_meanwhile_is_left_as_it_is
        two_events_of_one_order_in_a_batch_are_settled_one_after_the_other
        events_of_a_key_are_published_in_the_order_of_their_records;
    held:
        an_event_of_a_newer_version_is_held_and_its_key_waits
        a_held_event_without_a_record_key_holds_up_its_customer
        events_behind_a_blocking_one_wait_in_their_order
        the_order_of_a_held_event_tells_of_it
        an_event_that_is_held_for_long_raises_the_alarm;
    returned:
        a_dead_letter_that_is_produced_again_has_no_effect
        a_dead_letter_of_the_lot_that_is_produced_again_has_no_effect
        a_forged_place_makes_nothing_disappear;
    lot:
        a_handler_that_fails_twice_and_then_succeeds_processes_once
        what_is_refused_for_good_is_dead_at_once_and_its_key_waits
        a_handler_that_panics_eight_times_makes_a_dead_letter
        a_handler_that_ends_its_worker_is_found_out_over_restarts
        an_outcome_that_comes_after_its_lease_is_dropped
        a_pause_uses_up_no_attempt
        a_handlers_wish_to_be_left_alone_is_kept
        a_store_that_is_away_uses_up_nothing
        an_event_that_the_store_cannot_settle_is_given_up_and_its_neighbours_are_not
        a_drain_gives_back_what_has_not_ended
        a_handler_gets_the_event_as_the_newest_version;
    doubtful:
        a_commit_of_the_lot_whose_answer_is_lost_loses_and_doubles_nothing;
    flaky:
        six_customers_flow_though_four_calls_in_ten_fail;
    lot_order:
        one_failing_customer_holds_up_nobody_else
        a_held_event_flows_with_its_followers_once_a_newer_worker_runs
        workers_side_by_side_keep_every_keys_order_whatever_fails
        a_key_that_the_lot_has_let_go_is_published_in_its_order;
    crash:
        a_worker_killed_at_any_point_of_stream_and_lot_loses_doubles_and_reorders_nothing
        a_worker_killed_around_its_offset_commit_loses_and_doubles_nothing;
    failing:
        an_event_that_the_store_cannot_hold_is_a_dead_letter_and_its_neighbours_flow
        a_database_in_disorder_makes_no_dead_letters
        nothing_is_counted_before_it_is_committed;
    redriving:
        a_canary_redrive_climbs_its_ramp_and_waits_after_each_step
        a_canary_that_fails_stops_the_redrive_and_the_rest_stays_dead
        a_worker_that_takes_over_goes_on_where_the_rows_say
        the_rate_of_an_operation_is_kept
        a_discarded_order_fails_with_its_event_and_the_next_one_of_its_key_is_due
        a_discard_leaves_an_order_that_is_settled_and_one_that_a_copy_names
        an_operator_pauses_resumes_and_cancels_between_two_steps
        a_redriven_key_is_processed_by_the_lot_in_its_original_order
        a_redriven_event_of_a_cancelled_order_drains_as_a_no_op;
    repair_crash:
        a_worker_killed_in_any_step_of_an_operation_loses_and_doubles_nothing;
    replaying:
        a_replayed_end_is_the_event_that_was_published
        history_is_chosen_by_order_customer_and_time;
    unreadable:
        a_batch_with_a_right_checksum_and_no_records_is_named_and_stepped_over
        a_batch_that_its_codec_cannot_read_is_named_and_stepped_over
        a_batch_with_a_wrong_checksum_is_named_and_stepped_over;
    restored:
        a_store_that_goes_back_under_a_running_worker_is_read_again_before_anything_new_is_settled
        a_store_that_goes_back_is_found_out_also_where_nothing_new_comes
        a_store_that_stands_lower_than_it_was_seen_is_not_written_to;
    consuming:
        settled_records_are_committed_and_not_read_again
        a_store_older_than_its_group_is_read_again_from_where_it_stands
        what_retention_dropped_unread_is_told_and_the_rest_is_processed
        while_the_store_is_away_everything_waits_and_nothing_is_dead
        a_partition_that_went_while_it_was_paused_is_read_when_it_comes_back
        a_dead_letter_is_published_as_its_record_came
        dead_letters_that_are_produced_to_the_topic_make_no_others
        what_operators_did_long_ago_is_forgotten
        the_brokers_tell_what_becomes_of_a_topics_records
        workers_that_come_and_go_settle_each_event_once;
    lot_cancels:
        a_cancelled_order_drains_without_a_call
        an_order_cancelled_while_it_is_handled_stays_cancelled;
    lot_fixes:
        a_refused_record_that_reads_after_a_fix_passes_the_gate_under_its_own_id
        a_refused_record_that_is_refused_again_is_a_second_dead_letter;
}
