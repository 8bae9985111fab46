//! The command line beside what else tells of the same operations: the contracts, and the README.

mod helps;
mod readme;
mod surfaces;

use clap::CommandFactory;

use super::Cli;

/// Finds a command by its words, such as `dlq list`.
fn command(words: &[&str]) -> Option<clap::Command> {
    words.iter().try_fold(Cli::command(), |command, word| command.find_subcommand(word).cloned())
}

/// Lists the words of all commands below one that have none below them.
fn leaves(group: &str) -> Vec<String> {
    let group_command = command(&[group]).expect("a group of commands");
    group_command.get_subcommands().map(|leaf| format!("{group} {}", leaf.get_name())).collect()
}
