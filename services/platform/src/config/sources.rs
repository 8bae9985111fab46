//! Where settings come from: flag, environment, file, then default. Unknown names are refused.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};

use super::names::{nearest, unknown_variables};
use super::{Problem, file};

/// The result of reading the command line.
#[derive(Debug)]
pub enum Parsed<P> {
    /// The command with its settings, and problems. With a problem it must not run.
    Command(P, Vec<Problem>),
    /// Requested text, such as the help.
    Text(String),
    /// What is wrong.
    Problems(Vec<Problem>),
}

/// Reads this process's arguments by `command`, its environment, and the configuration file they name.
///
/// `shape` adds the subcommands. A setting that is hidden below a command is refused on that command's line.
pub fn parse<P: FromArgMatches>(command: Command, shape: fn(Command) -> Command) -> Parsed<P> {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    parse_from(command, shape, std::env::args_os().collect(), &variables.collect())
}

fn parse_from<P: FromArgMatches>(
    mut command: Command,
    shape: fn(Command) -> Command,
    mut args: Vec<OsString>,
    variables: &BTreeMap<String, String>,
) -> Parsed<P> {
    let known: Vec<(String, String)> = settings(&command);
    let mut problems = unknown_variables(variables, &known);
    if let Some(path) = file::path_of(&args, variables) {
        let (values, more) = file::read(&path, &known);
        problems.extend(more);
        for (id, value) in values {
            command = command.mut_arg(id, |arg| arg.default_value(value));
        }
    }
    let command = shape(command);
    loop {
        let read = command.clone().try_get_matches_from(&args).and_then(|mut matches| {
            let foreign = foreign(&command, &matches);
            P::from_arg_matches_mut(&mut matches).map(|parsed| (parsed, foreign))
        });
        match read {
            Ok((parsed, foreign)) => {
                problems.extend(foreign);
                return Parsed::Command(parsed, problems);
            }
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Parsed::Text(error.to_string());
            }
            Err(error) => {
                problems.push(worded(&error, |flag| is_hidden(&command, &args, flag)));
                // clap stops at its first error. Without the flag that caused it, a second parse may find another one.
                if !remove_culprit(&mut args, &error) {
                    return Parsed::Problems(problems);
                }
            }
        }
    }
}

/// Reports the settings on the command line that the command does not accept.
fn foreign(tree: &Command, matches: &ArgMatches) -> Vec<Problem> {
    let Some(command) = matches.subcommand_name().and_then(|name| tree.find_subcommand(name)) else { return Vec::new() };
    let given = |arg: &&clap::Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let hidden = command.get_arguments().filter(|arg| arg.is_hide_set() && arg.get_env().is_some());
    let worded = |arg: &clap::Arg| {
        let (flag, name) = (arg.get_long().unwrap_or_default(), command.get_name());
        let text = format!("is a setting of servers that `{name}` does not take; see minishop {name} --help");
        Problem::new("USAGE", format!("--{flag}"), text)
    };
    hidden.filter(given).map(worded).collect()
}

/// Returns whether the command refuses a flag that others accept.
fn is_hidden(tree: &Command, args: &[OsString], flag: &str) -> bool {
    let command = args.iter().skip(1).find_map(|arg| tree.find_subcommand(arg));
    let hides = |arg: &clap::Arg| arg.is_hide_set() && arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
    command.is_some_and(|command| command.get_arguments().any(hides))
}

/// Removes the flag named in an error from the command line, with its value; `false` if the error names no flag.
fn remove_culprit(args: &mut Vec<OsString>, error: &clap::Error) -> bool {
    let Some(ContextValue::String(culprit)) = error.get(ContextKind::InvalidArg) else { return false };
    let Some(flag) = culprit.split([' ', '=']).next().filter(|flag| flag.starts_with('-')) else { return false };
    let text = |arg: &OsString| arg.to_string_lossy().into_owned();
    let Some(at) = args.iter().position(|arg| text(arg) == flag || text(arg).starts_with(&format!("{flag}="))) else {
        return false;
    };
    let whole = text(&args.remove(at)) != flag;
    if !whole && args.get(at).is_some_and(|value| !text(value).starts_with('-')) {
        args.remove(at);
    }
    true
}

/// Returns the variables of flags, with the flags' ids.
fn settings(command: &Command) -> Vec<(String, String)> {
    let named = |arg: &clap::Arg| Some((arg.get_env()?.to_str()?.to_owned(), arg.get_id().to_string()));
    command.get_arguments().filter_map(named).collect()
}

/// Formats clap's error in one line, without suggestions for which `hidden` is true.
fn worded(error: &clap::Error, hidden: impl Fn(&str) -> bool) -> Problem {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        Some(ContextValue::StyledStrs(texts)) => Some(texts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        _ => None,
    };
    let full = error.to_string();
    let first = full.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let is_value =
        matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) && !first.ends_with("none was supplied");
    let setting = text(ContextKind::InvalidArg).filter(|arg| is_value && arg.starts_with("--"));
    let code = if setting.as_deref().is_some_and(|arg| !arg.starts_with("--output")) { "CONFIG_VALUE" } else { "USAGE" };
    let place = setting.unwrap_or_else(|| "command line".to_owned());
    let given = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue]
        .into_iter()
        .find_map(|kind| text(kind).filter(|given| !given.is_empty()))
        .unwrap_or_default();
    let guess = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| text(kind).and_then(|guess| nearest(&given, guess.split(", ")).map(str::to_owned)))
        .filter(|guess| !hidden(guess));
    let fix = match (guess, text(ContextKind::ValidValue)) {
        (Some(guess), _) => format!("did you mean {guess}?"),
        (None, Some(valid)) if !valid.is_empty() => format!("give one of {valid}"),
        _ => "see --help".to_owned(),
    };
    Problem::new(code, place, format!("{first}; {fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Shape};
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        flags: Flags,
    }

    fn parse(args: &[&str], variables: &[(&str, &str)]) -> Parsed<Cli> {
        let args = std::iter::once("minishop").chain(args.iter().copied()).map(OsString::from).collect();
        parse_from(
            Cli::command(),
            |command| command,
            args,
            &variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        )
    }

    /// All problems, of names and of values.
    fn problems(parsed: Parsed<Cli>) -> Vec<String> {
        let found: Vec<Problem> = match parsed {
            Parsed::Problems(problems) => problems,
            Parsed::Command(cli, problems) => cli.flags.check(Shape::Up, problems).err().unwrap_or_default(),
            Parsed::Text(text) => panic!("not asked for: {text}"),
        };
        found.iter().map(ToString::to_string).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        file
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest_name() {
        let found = problems(parse(
            &[],
            &[("MINISHOP_HTTP_ADR", "x"), ("MINISHOP_API_SERVICE_HOST", "10.0.0.1"), ("MINISHOP_API_PORT_3000_TCP", "x")],
        ));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("CONFIG_UNKNOWN_KEY") && found[0].contains("did you mean MINISHOP_HTTP_ADDR?"), "{found:#?}");
    }

    #[test]
    fn only_what_is_near_is_suggested_and_nothing_that_weakens_security() {
        for (name, meant) in [
            ("MINISHOP_HTTP_ADR", Some("MINISHOP_HTTP_ADDR")),
            ("MINISHOP_HTTP_ADDRESS", Some("MINISHOP_HTTP_ADDR")),
            ("MINISHOP_KAFAK_GROUP", Some("MINISHOP_KAFKA_GROUP")),
            ("MINISHOP_BIN", None),
            ("MINISHOP_INSECUR", None),
            ("MINISHOP_INSECURE_", None),
            ("MINISHOP_LOGGING", None),
        ] {
            let found = problems(parse(&[], &[(name, "x")]));
            assert_eq!(found.len(), 1, "{found:#?}");
            let tip = meant.map_or_else(|| "remove it".to_owned(), |meant| format!("did you mean {meant}?"));
            assert!(found[0].contains(&tip), "{name}: {found:#?}");
        }
        for (flag, meant) in [("--http-adr=x", Some("--http-addr")), ("--insecur", None), ("--nothing-like-it", None)] {
            let found = problems(parse(&[flag], &[]));
            let tip = meant.map_or_else(|| "see --help".to_owned(), |meant| format!("did you mean {meant}?"));
            assert!(found.len() == 1 && found[0].contains(&tip), "{flag}: {found:#?}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file =
            file("http_addr = \"127.0.0.1:4000\"\ngrpc_addr = \"127.0.0.1:4001\"\nreflection = false\ntopic_partitions = 4\n");
        let path = file.path().to_str().expect("UTF-8");
        let Parsed::Command(cli, _) = parse(&["--config", path, "--grpc-addr", "127.0.0.1:5001"], &[]) else {
            panic!("a good file is taken")
        };
        let config = cli.flags.check(Shape::Up, Vec::new()).expect("a good configuration");
        assert_eq!((config.http_addr.port(), config.grpc_addr.port()), (4000, 5001));
        assert_eq!((config.reflection, config.topic_partitions, config.kafka_addr.port()), (false, 4, 9092));
    }

    #[test]
    fn every_wrong_key_of_a_file_is_named_at_once() {
        let file = file("htp_addr = \"x\"\nnonsense = 1\n[table]\na = 1\n");
        let found = problems(parse(&["--config", file.path().to_str().expect("UTF-8")], &[]));
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found.iter().any(|line| line.contains("did you mean http_addr?")), "{found:#?}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_line() {
        let file = file("http_addr = \"127.0.0.1:1\"\nthis is not toml\n");
        let found = problems(parse(&["--config", file.path().to_str().expect("UTF-8")], &[]));
        assert!(found[0].contains("CONFIG_VALUE") && found[0].contains("line 2"), "{found:#?}");
        assert!(problems(parse(&["--config", "/nowhere/minishop.toml"], &[]))[0].contains("CONFIG_VALUE"));
    }

    #[test]
    fn bad_flags_variables_and_values_are_named_together() {
        let file = file("htp_addr = \"x\"\ndrain_wait = \"5\"\n");
        let path = file.path().to_str().expect("UTF-8");
        let args = ["--config", path, "--nope", "x", "--grpc-adr=1", "--http-addr", "nonsense", "--log-format"];
        let found = problems(parse(&args, &[("MINISHOP_HTTP_ADR", "x")]));
        for part in [
            "MINISHOP_HTTP_ADR",
            "htp_addr",
            "--nope",
            "--grpc-adr",
            "--log-format",
            "MINISHOP_HTTP_ADDR: \"nonsense\"",
            "MINISHOP_DRAIN_WAIT",
        ] {
            assert_eq!(
                found.iter().filter(|line| line.contains(part) && !line.contains(&format!("mean {part}"))).count(),
                1,
                "{part}: {found:#?}"
            );
        }
        assert_eq!(found.len(), 7, "{found:#?}");
    }

    #[test]
    fn a_bad_flag_is_one_line_with_its_code() {
        for (args, code) in [
            (&["--http-adr", "x"][..], "USAGE"),
            (&["--http-addr"][..], "USAGE"),
            (&["--http-addr", "127.0.0.1"][..], "CONFIG_VALUE"),
            (&["--http-addr", ""][..], "CONFIG_VALUE"),
            (&["--drain-wait", "5"][..], "CONFIG_VALUE"),
            (&["--log-format", "xml"][..], "CONFIG_VALUE"),
        ] {
            let found = problems(parse(args, &[]));
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("error[{code}]")) && !found[0].contains('\n'),
                "{found:#?}"
            );
        }
    }
}
