//! The command line compared with the contracts and the README.

mod helps;
mod readme;
mod surfaces;

use clap::CommandFactory;

use super::Cli;

/// Finds a command by its words, such as `dlq list`.
fn command(words: &[&str]) -> Option<clap::Command> {
    words.iter().try_fold(Cli::command(), |command, word| command.find_subcommand(word).cloned())
}

/// Lists the commands of a group, such as `dlq list`.
fn leaves(group: &str) -> Vec<String> {
    let group_command = command(&[group]).expect("a group of commands");
    group_command.get_subcommands().map(|leaf| format!("{group} {}", leaf.get_name())).collect()
}
