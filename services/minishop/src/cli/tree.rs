//! Which settings of servers a command takes: its help shows only these.

use clap::{Arg, Command};

/// Clients of a running server take none of its settings.
const NONE: &[&str] = &[];

/// The settings, by variable, that each command takes. Commands that are not listed take all.
const TAKEN: [(&str, &[&str]); 7] = [
    ("order", NONE),
    ("dlq", NONE),
    ("bench", NONE),
    ("migrate", &["MINISHOP_CONFIG", "DATABASE_URL", "DATABASE_URL_FILE", "MINISHOP_DATA_DIR"]),
    ("outbox", &["MINISHOP_CONFIG", "DATABASE_URL", "DATABASE_URL_FILE", "MINISHOP_DATA_DIR"]),
    (
        "topics",
        &["MINISHOP_CONFIG", "KAFKA_BROKERS", "MINISHOP_KAFKA_ADDR", "MINISHOP_TOPIC_PREFIX", "MINISHOP_TOPIC_PARTITIONS"],
    ),
    (
        "events",
        &[
            "MINISHOP_CONFIG",
            "DATABASE_URL",
            "DATABASE_URL_FILE",
            "MINISHOP_DATA_DIR",
            "KAFKA_BROKERS",
            "MINISHOP_KAFKA_ADDR",
            "MINISHOP_KAFKA_COMPRESSION",
            "MINISHOP_TOPIC_PREFIX",
            "MINISHOP_EVENT_KEY",
        ],
    ),
];

/// Adds all settings to each command, and hides those that it does not take: they must parse so that they can be refused.
///
/// The top level shows none: they are in the help of the servers.
pub fn with_settings(mut tree: Command) -> Command {
    let settings: Vec<Arg> = tree.get_arguments().filter(|arg| arg.get_env().is_some()).cloned().collect();
    let commands: Vec<String> = tree.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in commands {
        let taken = TAKEN.iter().find(|(command, _)| *command == name).map(|(_, taken)| *taken);
        let shown = |arg: &Arg| taken.is_none_or(|taken| arg.get_env().is_some_and(|name| taken.iter().any(|t| name == *t)));
        let own: Vec<Arg> = settings.iter().map(|arg| arg.clone().hide(!shown(arg))).collect();
        tree = tree.mut_subcommand(name, |command| {
            // A command may have its own option of that name.
            let has = |arg: &Arg| command.get_arguments().any(|other| other.get_id() == arg.get_id());
            let own: Vec<Arg> = own.into_iter().filter(|arg| !has(arg)).collect();
            command.args(own)
        });
    }
    for arg in settings {
        tree = tree.mut_arg(arg.get_id(), |arg| arg.hide(true));
    }
    tree
}
