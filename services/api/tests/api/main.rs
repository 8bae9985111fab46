//! The API over the wire, REST and gRPC: each test on SQLite and on PostgreSQL (`MINISHOP_TEST_POSTGRES`, fresh databases).

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod announces;
mod cancels;
mod fields;
mod grpc;
mod grpc_limits;
mod grpc_web;
mod harness;
mod headers;
mod idempotency;
mod json;
mod keys;
mod listener;
mod ops;
mod proxy;
mod reads;
mod slow;
mod sse;
mod status_feed;
mod store;
mod timelines;
mod traces;
mod watches;
mod world;

minishop_testkit::on_both_stores! {
    crate::world::on;
    fields:
        wrong_fields_are_named_and_their_key_stays_free
        doubles_that_are_no_amount_are_refused_over_grpc
        a_refusal_lists_twenty_fields_and_counts_them_all
        totals_are_exact
        texts_are_kept_byte_for_byte
        a_free_order_prints_its_zeros_everywhere
        an_absent_currency_stays_absent_and_a_given_one_stays;
    json:
        what_is_no_json_object_is_refused_with_its_place;
    headers:
        a_correlation_id_outside_the_rule_is_replaced_and_a_good_one_echoed
        a_trace_parent_that_breaks_the_rules_begins_a_new_trace
        media_types_but_json_are_refused
        headers_without_a_meaning_change_nothing;
    idempotency:
        an_accepted_order_is_answered_read_and_announced
        the_other_protocol_replays_the_first_answer
        a_replay_is_the_first_answer_after_processing_and_after_a_restart
        any_change_of_the_command_is_refused_over_both_protocols
        a_hundred_at_once_over_both_protocols_make_one_order
        twenty_commands_under_one_key_make_one_order_and_nineteen_refusals
        a_key_whose_first_request_runs_on_is_in_flight_after_two_seconds
        clients_that_go_away_at_any_moment_leave_one_order_for_each_key;
    keys:
        an_absent_key_is_made_and_returned_or_required
        good_keys_are_taken_under_both_names
        keys_that_break_their_rule_are_refused_over_both_protocols
        a_key_given_twice_counts_once_if_it_is_the_same;
    listener:
        paths_and_methods_are_checked_before_the_host
        sizes_answer_before_anything_is_read
        an_open_call_is_finished_in_the_drain;
    grpc:
        wrong_messages_are_named_and_unknown_fields_ignored
        a_deadline_that_has_passed_is_no_work_and_an_odd_one_is_ignored
        a_service_that_is_not_known_is_watched_as_the_protocol_says;
    reads:
        an_id_is_a_uuid_and_an_absent_order_is_not_found
        wrong_list_parameters_are_named
        wrong_list_parameters_are_named_over_grpc
        pages_hold_every_order_once_while_new_ones_come
        a_page_of_large_orders_ends_early_and_goes_on
        a_rare_status_is_found_over_short_pages
        orders_of_one_millisecond_are_listed_in_their_order
        a_token_that_was_changed_is_refused_with_the_same_bytes
        lists_filter_by_status_and_customer
        operators_see_what_waits;
    ops:
        an_unknown_dead_letter_or_operation_is_not_found
        wrong_redrives_are_named_over_both_protocols
        a_discard_needs_a_reason
        what_is_left_alone_is_told_with_its_reason
        a_dry_run_tells_the_count_and_changes_nothing
        dead_letters_are_listed_grouped_and_read
        parked_keys_are_listed_the_oldest_first
        an_operation_is_watched_paused_and_cancelled_and_all_of_it_is_audited;
    cancels:
        a_cancelled_order_is_answered_told_and_announced_once
        ten_cancels_at_once_make_one_event
        an_order_that_is_processed_or_failed_cannot_be_cancelled
        an_order_that_the_caller_may_not_see_is_absent_to_every_call
        an_id_that_is_none_is_named_by_every_call
        the_body_of_a_cancel_is_absent_or_empty;
    timelines:
        an_orders_life_is_told_with_times_ids_and_causes
        a_long_timeline_comes_in_pages_without_gap_or_repeat
        wrong_timeline_parameters_are_named
        what_stands_in_the_lot_is_told_and_bounded
        a_cancel_makes_a_dead_event_that_holds_up_its_key_due_again;
    watches:
        a_watcher_is_told_each_version_once_and_then_the_stream_ends
        a_token_leaves_out_what_was_seen_and_nothing_else
        a_token_that_is_no_version_is_refused
        a_cancel_wakes_those_who_watch_before_the_next_poll
        two_thousand_watchers_cost_one_read_a_tick
        the_drain_ends_watches_at_once_and_says_when_to_come_again
        a_watcher_that_goes_away_is_forgotten
        grpc_web_carries_a_watch_over_http_1;
    status_feed:
        a_subscriber_is_sent_the_status_at_once_and_whenever_it_changes
        an_endpoint_that_a_worker_leaves_alone_is_reported_with_its_reason
        a_later_subscriber_is_sent_nothing_out_of_date
        a_stream_takes_no_query
        the_drain_ends_it_and_says_when_to_come_again;
    store:
        a_full_outbox_sheds_new_orders_and_reads_go_on
        log_lines_of_a_request_carry_its_ids
        no_input_is_found_in_the_log;
    grpc_web:
        grpc_web_carries_calls_and_refusals_over_http_1;
    announces:
        a_lost_order_is_announced_again_and_one_on_its_way_is_not
        lost_orders_are_found_by_their_age
        a_replayed_event_has_the_bytes_of_the_first;
}
