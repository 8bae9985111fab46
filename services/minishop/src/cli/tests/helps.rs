//! Each command's help shows the settings that it takes.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::super::{Cli, tree};

/// Returns the flags in a command's help.
fn shown(words: &[&str]) -> BTreeSet<String> {
    let mut tree = tree::with_settings(Cli::command());
    tree.build();
    let command = words.iter().try_fold(&mut tree, |command, word| command.find_subcommand_mut(word));
    let help = command.unwrap_or_else(|| panic!("{words:?} is no command")).render_long_help().to_string();
    let listed = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = listed.filter_map(|line| line.split(' ').find(|word| word.starts_with("--")));
    flags.map(|flag| flag.trim_end_matches(['.', ',']).to_owned()).collect()
}

fn settings() -> BTreeSet<String> {
    let tree = Cli::command();
    let named = tree.get_arguments().filter(|arg| arg.get_env().is_some());
    named.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect()
}

#[test]
fn a_client_command_shows_its_own_options_and_no_setting_of_a_server() {
    let own = ["--customer", "--currency", "--idempotency-key", "--server", "--output", "--help"].map(str::to_owned);
    assert_eq!(shown(&["order", "create"]), BTreeSet::from(own));
    for group in ["order", "dlq"] {
        for leaf in super::leaves(group) {
            let words: Vec<&str> = leaf.split(' ').collect();
            assert_eq!(shown(&words).intersection(&settings()).count(), 0, "{leaf}");
        }
    }
    for leaf in ["bench".to_owned()].into_iter().chain(super::leaves("bench")) {
        let shown = shown(&leaf.split(' ').collect::<Vec<_>>());
        assert_eq!(shown.intersection(&settings()).collect::<Vec<_>>(), ["--topic-prefix"], "{leaf} has its own");
    }
}

#[test]
fn a_server_shows_every_setting_and_the_command_line_itself_none() {
    let settings = settings();
    assert!(settings.len() > 35, "{settings:?}");
    for server in ["up", "api", "worker"] {
        assert!(shown(&[server]).is_superset(&settings), "{server}");
    }
    assert_eq!(shown(&[]), BTreeSet::from(["--version", "--help"].map(str::to_owned)));
}

#[test]
fn a_command_beside_a_server_shows_what_it_reads() {
    let all = settings();
    let taken = |words: &[&str]| shown(words).intersection(&all).cloned().collect::<BTreeSet<_>>();
    let flags = |names: &[&str]| names.iter().map(|name| format!("--{name}")).collect::<BTreeSet<_>>();
    assert_eq!(taken(&["migrate"]), flags(&["config", "database-url", "database-url-file", "data-dir"]));
    let topics = flags(&["config", "kafka-brokers", "kafka-addr", "topic-prefix", "topic-partitions"]);
    assert_eq!(taken(&["topics", "create"]), topics);
    assert_eq!(taken(&["config", "check"]), all);
}
