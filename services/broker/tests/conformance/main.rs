//! One suite for the embedded log and for Apache Kafka: what clients may rely on in both.
//!
//! Every case takes only a broker's address, so it runs against any broker. The embedded half starts a log of its own; the
//! Apache half needs `MINISHOP_TEST_KAFKA=host:port` and is ignored without it. Missing programs (kcat, go) are an error if
//! that variable is set; otherwise their cases are ignored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod client;
mod consume;
mod produce;
mod programs;
mod statics;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use minishop_broker::{Settings, open};
use tokio_util::sync::CancellationToken;

/// A case's name, the program it needs, and the case itself.
type Case = (&'static str, Option<&'static str>, fn(&str));

const CASES: [Case; 20] = [
    ("idempotent_records_are_stored_once_and_in_order", None, produce::idempotent_records),
    ("headers_come_back_in_order_null_values_too", None, produce::headers),
    ("every_compression_comes_back", None, produce::compressions),
    ("acks_0_and_1_are_stored", None, produce::other_acks),
    ("a_record_over_the_limit_is_refused", None, produce::too_large),
    ("two_members_share_and_rebalance_cooperatively", None, consume::cooperative),
    ("two_members_share_and_rebalance_by_range", None, consume::range),
    ("a_new_member_goes_on_at_the_committed_offset", None, consume::committed),
    ("a_closed_member_is_replaced_at_once", None, consume::replaced),
    ("a_static_member_comes_back_without_a_rebalance", None, statics::cooperative),
    ("a_static_member_comes_back_without_a_rebalance_by_range", None, statics::range),
    ("a_second_holder_of_a_name_fences_the_first", None, statics::fenced),
    ("topics_are_created_described_and_deleted", None, admin::topics),
    ("a_topic_made_again_is_empty", None, admin::made_again),
    ("all_topics_are_listed_at_once", None, admin::all_topics),
    ("offsets_are_found_by_time_and_records_deleted", None, admin::offsets),
    ("groups_without_members_are_deleted", None, admin::groups),
    ("a_count_of_partitions_may_be_left_to_the_broker", None, admin::usual_count),
    ("kcat_lists_produces_and_consumes", Some("kcat"), programs::kcat),
    ("franz_go_produces_and_consumes_in_a_group", Some("go"), programs::franz),
];

#[expect(clippy::disallowed_methods, reason = "the test runner says by the environment where Kafka is")]
fn main() -> ExitCode {
    let kafka = std::env::var("MINISHOP_TEST_KAFKA").ok().filter(|address| !address.is_empty());
    let mut trials = Vec::new();
    for (name, program, case) in CASES {
        let absent = kafka.is_none() && program.is_some_and(|program| !installed(program));
        let embedded = Trial::test(format!("embedded::{name}"), move || {
            embedded(case);
            Ok(())
        });
        trials.push(embedded.with_ignored_flag(absent));
        let address = kafka.clone();
        let apache = Trial::test(format!("apache::{name}"), move || match address {
            Some(address) => {
                case(&address);
                Ok(())
            }
            None => Err("set MINISHOP_TEST_KAFKA=host:port to an Apache Kafka".into()),
        });
        trials.push(apache.with_ignored_flag(kafka.is_none()));
    }
    let mut arguments = Arguments::from_args();
    if kafka.is_none() && !arguments.list {
        eprintln!("the Apache half is ignored: set MINISHOP_TEST_KAFKA=host:port to run it");
    }
    // Each case has threads of its own; too many at once only wait for each other.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn installed(program: &str) -> bool {
    let argument = if program == "go" { "version" } else { "-V" };
    Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs a case against a log of its own, which must then stop without an error.
fn embedded(case: fn(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let file = dir.path().join("log.db");
    let log = runtime.block_on(open(Settings::new("127.0.0.1:0".parse().unwrap(), file))).unwrap();
    let address = log.handle().addr().to_string();
    let stop = CancellationToken::new();
    let running = runtime.spawn(log.run(stop.clone()));
    case(&address);
    stop.cancel();
    runtime.block_on(running).unwrap().unwrap();
}
