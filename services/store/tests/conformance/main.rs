//! Conformance tests for every store, run on SQLite and on PostgreSQL (`MINISHOP_TEST_POSTGRES`, a fresh database per test).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

mod accepting;
mod acknowledging;
mod announced;
mod announcing;
mod crowded;
mod crowding;
mod dead_letters;
mod discarding;
mod housekeeping;
mod leading;
mod living;
mod meeting;
mod migrating;
mod opening;
mod parking;
mod pausing;
mod plans;
mod pooling;
mod relaying;
mod repairing;
mod rooms;
mod sessions;
mod settling;
mod silence;
mod support;
mod waiting;

minishop_testkit::on_both_stores! {
    crate::support::on;
    accepting:
        same_key_in_concurrent_batches_makes_one_order_and_one_event
        overlapping_sorted_batches_never_deadlock
        numbers_follow_the_order_of_a_batch
        a_batch_of_every_size_is_complete
        a_batch_run_again_after_an_unknown_outcome_changes_nothing
        new_orders_beside_known_keys_are_accepted_whether_their_events_are_brief_or_whole a_replay_is_answered_from_the_first_record
        a_row_that_cannot_be_written_fails_its_batch_and_leaves_nothing
        an_acknowledged_order_is_read_at_once_by_its_client_and_by_no_other
        lists_are_keyset_pages_newest_first
        lists_filter_by_customer_and_status
        what_a_list_looks_at_is_bounded_by_its_nth_order
        a_store_that_works_answers_a_ping;
    relaying:
        numbers_are_gapless_and_in_the_order_of_the_commits_within_each_shard
        a_transaction_that_is_rolled_back_gives_its_numbers_back
        the_second_of_two_writers_waits_for_the_end_of_the_first
        whoever_sees_a_number_has_seen_all_before_it
        rows_are_read_in_the_order_of_their_numbers_within_each_span
        rows_survive_the_outbox_byte_for_byte
        a_shard_that_the_store_does_not_have_is_refused
        a_row_that_is_set_aside_is_kept_with_its_reason_and_read_as_set_aside
        statistics_count_what_waits_and_its_age
        a_single_process_leads_every_shard_alone
        the_space_of_removed_rows_can_be_freed;
    waiting:
        what_waits_is_listed_and_counted
        events_of_a_topic_are_set_aside_and_others_are_not
        numbers_that_are_gone_are_stepped_over_and_no_others;
    settling:
        the_gate_answers_fresh_once
        the_gate_tells_the_digest_under_which_an_event_was_settled
        a_consumer_has_a_gate_of_its_own
        two_transactions_at_one_gate_let_one_pass
        a_dropped_settlement_leaves_nothing
        a_settlement_after_a_failed_step_cannot_commit
        the_fence_lets_a_version_pass_once
        the_fence_refuses_another_version_and_another_status
        outbox_numbers_follow_the_order_of_transitions
        an_adopted_order_is_known_and_readable
        adoption_gives_way_to_the_same_id_and_to_the_same_key
        a_parked_key_is_seen_after_the_gate
        an_event_that_does_not_block_parks_no_key
        dead_letters_are_listed_newest_first
        text_with_a_null_character_parks_like_any_other
        dead_letter_events_get_their_places_in_order
        positions_only_grow
        a_settlement_that_never_ends_does_not_stop_the_others
        settlements_and_orders_run_side_by_side;
    repairing:
        a_frozen_set_is_not_touched_by_what_comes_later
        two_operations_over_one_set_share_it
        a_dry_run_tells_the_same_and_writes_nothing
        ids_that_are_left_alone_are_told_with_their_reason
        an_operation_over_unknown_ids_is_not_begun
        an_operation_over_nothing_is_done_at_once
        released_dead_letters_are_due_again_and_decided_by_their_rows
        a_sixth_redrive_is_refused
        a_lease_that_ran_out_goes_to_another_worker_and_the_first_can_do_nothing
        a_paused_operation_releases_nothing_and_a_cancelled_one_gives_its_set_back
        paused_operations_do_not_keep_others_from_a_worker
        operations_and_audit_are_listed_newest_first;
    announcing:
        an_event_that_was_settled_without_its_order_passes_the_gate_again
        lost_orders_are_walked_in_bites_and_none_is_passed_over
        orders_that_are_announced_by_two_at_once_have_one_event_each;
    housekeeping:
        settled_events_are_forgotten_by_age_oldest_first_in_bites
        an_event_that_stands_in_the_lot_is_not_forgotten
        operations_and_audit_are_forgotten_by_age_oldest_first_in_bites;
    parking:
        a_claim_counts_the_attempt_and_keeps_the_row_from_others
        the_leases_of_one_claim_end_one_after_the_other
        only_heads_and_rows_that_block_nothing_are_claimed
        rows_come_up_to_the_limit_and_the_longest_due_first
        two_workers_at_once_never_claim_a_row_or_a_key_twice
        a_drained_head_makes_the_next_row_of_its_key_due
        what_comes_after_a_lost_lease_changes_nothing
        a_released_row_is_due_again_after_its_wait
        a_dead_head_keeps_its_key_and_a_refused_one_lets_it_go
        an_event_is_held_until_its_type_is_known
        a_row_takes_the_identity_that_was_read
        another_consumers_rows_are_not_touched
        a_missed_head_is_found_behind_another_consumers_head_of_the_key
        a_lease_from_before_a_restore_changes_nothing;
    pausing:
        an_outage_is_told_for_as_long_as_it_lasts_and_its_worker_lives;
    crowded:
        twenty_thousand_waiting_events_are_worked_off_key_by_key_in_order;
    living:
        a_cancel_passes_once_and_is_found_under_its_own_event
        a_cancel_gives_way_to_another_change
        only_orders_with_a_greater_version_have_changed
        a_timeline_is_read_in_pages_and_of_one_order
        what_stands_in_the_lot_is_found_by_its_order
        an_origin_is_read_by_its_client_alone;
    meeting:
        an_event_that_is_given_up_before_its_order_is_cancelled_is_due_again
        a_cancel_makes_an_event_due_that_waits_for_its_next_try
        a_pass_of_the_lot_that_meets_a_cancel_waits_and_sees_it
        an_order_that_is_processed_while_it_is_cancelled_is_processed
        a_discard_and_a_cancel_that_meet_do_not_wait_for_each_other;
    opening:
        an_open_store_opens_again_with_its_rows
        a_newer_schema_is_refused
        an_older_schema_is_refused_without_migration
        a_store_with_other_outbox_shards_is_refused;
    dead_letters:
        dead_letters_are_found_by_each_filter
        a_dead_letter_is_read_with_its_bytes_and_its_order
        equal_failures_form_a_group
        a_parked_key_is_told_by_its_head;
    discarding:
        a_discarded_dead_letter_fails_its_order_and_makes_the_next_event_due
        a_discarded_copy_changes_no_order
        a_discard_leaves_another_event_under_a_known_id_alone
        an_event_that_was_refused_first_fails_its_order_when_it_is_given_up_later;
    acknowledging:
        what_is_published_goes_and_the_last_of_it_stays
        several_shards_are_acknowledged_at_once
        what_contradicts_the_store_is_not_acknowledged_and_nothing_is_changed
        nothing_is_acknowledged_over_rows_that_are_gone
        numbers_go_on_behind_what_is_published_when_somebody_has_emptied_the_table;
}
