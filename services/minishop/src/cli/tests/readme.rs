//! What the README says about commands, flags, settings, defaults, routes and calls is true.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use clap::{CommandFactory as _, Parser as _};
use minishop_contracts::{ROUTES, headers, topics};
use minishop_core::operation;
use minishop_platform::config::Shape;

use super::super::{Cli, EXIT_NO, EXIT_UNREACHABLE};
use super::command;

static README: LazyLock<String> =
    LazyLock::new(|| std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).expect("the README"));

/// What the README shows as code: spans within text and cells, and the lines of console and shell blocks.
#[derive(Debug, Default)]
struct Shown {
    /// The spans of each line of text, or of each row of a table, cell by cell.
    rows: Vec<Vec<Vec<String>>>,
    /// Commands as they would be typed, each on one line.
    lines: Vec<String>,
}

impl Shown {
    fn read() -> Self {
        let (mut shown, mut block, mut typed) = (Self::default(), None::<String>, String::new());
        for line in README.lines() {
            if let Some(language) = line.strip_prefix("```") {
                block = block.is_none().then(|| language.to_owned());
                continue;
            }
            match block.as_deref() {
                None if line.starts_with('|') => shown.rows.push(line.trim_matches('|').split('|').map(spans).collect()),
                None => shown.rows.push(vec![spans(line)]),
                Some("console" | "sh") => {
                    // In a console block, a line without a prompt is output, unless it continues a command.
                    let goes_on = !typed.is_empty();
                    let prompted = line.strip_prefix("$ ").or((block.as_deref() == Some("sh") || goes_on).then_some(line));
                    let Some(part) = prompted else { continue };
                    typed.push_str(part.trim_end_matches('\\'));
                    if !part.ends_with('\\') {
                        shown.lines.push(std::mem::take(&mut typed));
                    }
                }
                Some(_) => {}
            }
        }
        shown
    }

    fn spans(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flatten().flatten().map(String::as_str)
    }
}

fn spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Splits a line like a shell: understands quotes and comments, and stops at a pipe or an ampersand.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.extend(word.take()),
            ('#' | '&' | '|', None) if word.is_none() => break,
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Replaces placeholders such as `ID`, `IDS...`, `...` and `<id>`, and takes what is in brackets as given.
fn filled(word: &str) -> String {
    let word = word.trim_matches(['[', ']']);
    let bare = word.trim_end_matches("...").trim_matches(['<', '>', '…']);
    let placeholder = bare != word || bare.chars().all(|c| c.is_ascii_uppercase());
    if placeholder { "x".to_owned() } else { word.to_owned() }
}

/// Parses a command such as `dlq show ID`, or a group alone, such as `dlq`. Returns the command's words.
fn parses(typed: &[String]) -> Result<Vec<String>, String> {
    let given: Vec<String> = typed.iter().map(|word| filled(word)).collect();
    let path: Vec<String> = (1..=given.len().min(2))
        .rev()
        .map(|n| given[..n].to_vec())
        .find(|path| command(&path.iter().map(String::as_str).collect::<Vec<_>>()).is_some())
        .unwrap_or_default();
    if path == given && command(&[given[0].as_str()]).is_some_and(|group| given.len() == 1 && group.has_subcommands()) {
        return Ok(path);
    }
    match Cli::try_parse_from(["minishop".to_owned()].iter().chain(&given)) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => Ok(path),
        Err(error) => Err(format!("minishop {}: {error}", typed.join(" "))),
    }
}

/// Reads the commands of a cell or line. Spans after a first `minishop group command` belong to its group, as in
/// `` `minishop dlq pause ID`, `resume ID` ``.
fn commands(spans: &[String]) -> Vec<Vec<String>> {
    let (mut found, mut group) = (Vec::new(), None::<String>);
    for span in spans {
        let typed = words(span);
        match (typed.first().map(String::as_str), &group) {
            (Some("minishop"), _) => {
                group = typed.get(1).filter(|_| typed.len() > 2).cloned();
                found.push(typed[1..].to_vec());
            }
            (Some(first), Some(group)) if first.chars().all(|c| c.is_ascii_lowercase()) => {
                found.push([group.clone()].into_iter().chain(typed).collect());
            }
            _ => {}
        }
    }
    found.into_iter().flat_map(alternatives).collect()
}

/// Expands alternatives such as `watch|cancel|show`.
fn alternatives(typed: Vec<String>) -> Vec<Vec<String>> {
    let Some(at) = typed.iter().position(|word| word.contains('|')) else { return vec![typed] };
    let each = |word: &str| [&typed[..at], &[word.to_owned()], &typed[at + 1..]].concat();
    typed[at].split('|').map(each).collect()
}

fn has_flag(command: &clap::Command, flag: &str) -> bool {
    let name = flag.trim_start_matches("--");
    let has = |arg: &clap::Arg| arg.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name));
    command.get_arguments().any(has)
}

fn everywhere(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
    visit(command);
    command.get_subcommands().for_each(|sub| everywhere(sub, visit));
}

#[test]
fn every_command_and_flag_of_the_readme_is_one() {
    let (shown, mut wrong, mut checked) = (Shown::read(), Vec::new(), 0);
    for row in &shown.rows {
        let mut here = Vec::new();
        for typed in row.iter().flat_map(|cell| commands(cell)) {
            checked += 1;
            match parses(&typed) {
                Ok(path) => here.push(path),
                Err(problem) => wrong.push(problem),
            }
        }
        for flag in row.iter().flatten().filter(|span| span.starts_with("--")) {
            let flag = words(flag).remove(0);
            let mut known = false;
            let of_the_row = |path: &Vec<String>| command(&path.iter().map(String::as_str).collect::<Vec<_>>());
            here.iter().filter_map(of_the_row).for_each(|command| known |= has_flag(&command, &flag));
            if here.is_empty() {
                everywhere(&Cli::command(), &mut |command| known |= has_flag(command, &flag));
            }
            if !known {
                wrong.push(format!("{flag} is no flag of {here:?}"));
            }
        }
    }
    for typed in shown.lines.iter().map(|line| words(line)).filter(|typed| typed.first().is_some_and(|word| word == "minishop")) {
        checked += 1;
        wrong.extend(parses(&typed[1..]).err());
    }
    assert_eq!(wrong, [] as [String; 0]);
    assert!(checked > 15, "only {checked} commands were found in the README");
}

#[test]
fn the_readme_names_every_command_and_no_other() {
    let line = README.lines().skip_while(|line| !line.starts_with("- `minishop --help`")).take_while(|line| !line.is_empty());
    let text: Vec<&str> = line.collect();
    let named: BTreeSet<String> =
        spans(&text.join(" ")).into_iter().filter(|s| s.chars().all(|c| c.is_ascii_lowercase())).collect();
    let there: BTreeSet<String> = Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    // `up` runs without a command.
    assert_eq!(named, there.into_iter().filter(|name| name != "up").collect());
}

/// Lists the settings that the README names; `_CAP` after `MINISHOP_RETRY_BASE` means `MINISHOP_RETRY_CAP`.
fn settings() -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let (mut found, mut last) = (BTreeSet::new(), String::new());
    for word in README.split(|c| !is_part(c)) {
        let whole =
            word.starts_with("MINISHOP_") || word.ends_with("_URL") || word.ends_with("_BROKERS") || word.ends_with("_FILE");
        if word.starts_with('_') && word.len() > 1 {
            let stem = last.rsplit_once('_').map_or("", |(stem, _)| stem);
            found.insert(format!("{stem}{word}"));
        } else if whole {
            word.clone_into(&mut last);
            found.insert(word.to_owned());
        }
    }
    found
}

/// Every setting that the README names, with the program's default, and the README's words that state it, if any.
const SETTINGS: [(&str, Option<&str>, &str); 16] = [
    ("DATABASE_URL", None, ""),
    ("DATABASE_URL_FILE", None, ""),
    ("KAFKA_BROKERS", None, ""),
    ("MINISHOP_AUDIT_RETENTION", Some("365d"), "finished operations with their items | 365 days |"),
    ("MINISHOP_HANDLER", Some("confirm"), "By default MiniShop confirms each order itself"),
    ("MINISHOP_INBOX_RETENTION", Some("14d"), "| 14 days, and as long as the event is in the parking lot"),
    ("MINISHOP_KAFKA_COMPRESSION", Some("none"), "Events are not compressed by default"),
    ("MINISHOP_KAFKA_SESSION_TIMEOUT", Some("10s"), "after `MINISHOP_KAFKA_SESSION_TIMEOUT` (10s)"),
    ("MINISHOP_OUTBOX_LIMIT_AGE", Some("1h"), "or one waiting for an hour, new orders are refused"),
    ("MINISHOP_OUTBOX_LIMIT_ROWS", Some("1000000"), "With 1,000,000 events waiting"),
    ("MINISHOP_RETRY_ATTEMPTS", Some("8"), "a dead letter after eight attempts (`_ATTEMPTS`)"),
    ("MINISHOP_RETRY_BASE", Some("1s"), ""),
    ("MINISHOP_RETRY_CAP", Some("1h"), ""),
    ("MINISHOP_WEBHOOK_CONCURRENCY", Some("32"), "`MINISHOP_WEBHOOK_CONCURRENCY` (32)"),
    ("MINISHOP_WEBHOOK_TARGETS", Some("any"), ""),
    ("MINISHOP_WEBHOOK_TIMEOUT", Some("10s"), "within 10 s (`MINISHOP_WEBHOOK_TIMEOUT`)"),
];
/// Settings of the README without a default.
const WITHOUT_DEFAULT: [&str; 3] = ["MINISHOP_KAFKA_INSTANCE_ID", "MINISHOP_WEBHOOK_SECRET", "MINISHOP_WEBHOOK_URL"];

#[test]
fn every_setting_of_the_readme_is_one_and_has_the_default_that_it_states() {
    let tree = Cli::command();
    let default = |name: &str| {
        let arg = tree.get_arguments().find(|arg| arg.get_env().is_some_and(|variable| variable == name))?;
        Some(arg.get_default_values().first().map(|value| value.to_str().expect("UTF-8").to_owned()))
    };
    for (name, wanted, stated) in SETTINGS {
        assert_eq!(default(name), Some(wanted.map(str::to_owned)), "the default of {name}");
        assert!(README.contains(stated), "the README does not say: {stated}");
    }
    for name in WITHOUT_DEFAULT {
        assert_eq!(default(name), Some(None), "the default of {name}");
    }
    let known: BTreeSet<String> = SETTINGS.iter().map(|row| row.0).chain(WITHOUT_DEFAULT).map(str::to_owned).collect();
    assert_eq!(settings(), known, "settings that the README names, and those whose defaults are checked here");
}

#[test]
fn other_numbers_and_names_of_the_readme_are_those_of_the_program() {
    let config = Cli::try_parse_from(["minishop"]).unwrap().flags.check(Shape::Up, Vec::new()).unwrap();
    for stated in [
        format!("http={} grpc={} admin={} kafka={}", config.http_addr, config.grpc_addr, config.admin_addr, config.kafka_addr),
        format!("`--failure-ratio` ({})", operation::DEFAULT_FAILURE_RATIO),
        format!(
            "`--rate` ({}) a second, and at most {} redrives of a dead letter",
            operation::DEFAULT_RATE,
            operation::MOST_REDRIVES
        ),
        format!("{EXIT_NO} refused or stopped, 2 wrong usage, {EXIT_UNREACHABLE} not reachable"),
        format!("-t {} -C", topics::CREATED),
        format!("{}: true", headers::http::IDEMPOTENT_REPLAYED),
    ] {
        assert!(README.contains(&stated), "the README does not say: {stated}");
    }
    let help = Cli::command().render_long_help().to_string();
    for stated in ["0 done", &format!("{EXIT_NO} the answer is no"), &format!("{EXIT_UNREACHABLE} not reachable")] {
        assert!(help.contains(stated), "the help does not say: {stated}");
    }
}

fn is_route(method: &str, path: &str) -> bool {
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let fits = |template: &str| {
        let (template, path) = (parts(template), parts(path));
        let each = |(t, p): (&String, &String)| t == p || (t.starts_with('{') && !p.is_empty());
        template.len() == path.len() && template.iter().zip(&path).all(each)
    };
    ROUTES.iter().any(|route| route.method == method && fits(route.path))
}

/// Reads the routes of a row, such as `` `GET /ops/operations`, `/ops/operations/{id}` ``: a path without a method has the
/// previous one.
fn routes(row: &[Vec<String>]) -> Vec<(&str, &str)> {
    let mut method = "";
    let spans = row.iter().flatten().map(|span| match span.split_once(' ') {
        Some((verb @ ("GET" | "POST"), path)) => {
            method = verb;
            (method, path)
        }
        _ => (method, span.as_str()),
    });
    let ours = |path: &str| (path.starts_with("/orders") || path.starts_with("/ops")) && !path.contains("...");
    spans.filter(|(_, path)| ours(path)).collect()
}

/// Reads the request of a line that calls the REST listener with curl.
fn request(line: &str) -> Option<(&'static str, String)> {
    let typed = words(line);
    let (_, path) = typed.iter().find_map(|word| word.split_once(":3000")).filter(|_| typed[0] == "curl")?;
    let posts = typed.iter().any(|word| word == "-d" || word == "POST");
    Some((if posts { "POST" } else { "GET" }, path.to_owned()))
}

#[test]
fn every_route_and_call_of_the_readme_is_one_and_its_table_names_every_operation() {
    let shown = Shown::read();
    for (method, path) in shown.rows.iter().flat_map(|row| routes(row)) {
        assert!(is_route(method, path), "{method} {path}");
    }
    let requests: Vec<_> = shown.lines.iter().filter_map(|line| request(line)).collect();
    assert!(requests.len() >= 5, "only {requests:?} were found in the README");
    for (method, path) in requests {
        assert!(is_route(method, &path), "curl: {method} {path}");
    }
    let tables = shown.rows.iter().filter(|row| row.len() > 1).flat_map(|row| routes(row));
    let told: BTreeSet<_> = tables.filter(|(_, path)| path.starts_with("/ops")).collect();
    let there: BTreeSet<_> = ROUTES.iter().map(|r| (r.method, r.path)).filter(|(_, path)| path.starts_with("/ops")).collect();
    assert_eq!(told, there, "the operations of the README's table, and those that there are");

    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_');
    for name in README.split(|c| !is_name(c)).filter(|name| name.starts_with("minishop.") && name.contains(".v1.")) {
        let known = ROUTES.iter().any(|route| route.rpc[1..] == *name || route.rpc[1..].starts_with(&format!("{name}/")));
        assert!(known, "{name} is no service and no call");
    }
    let camel = |span: &&str| span.chars().all(char::is_alphabetic) && span.chars().filter(char::is_ascii_uppercase).count() > 1;
    let calls = shown.spans().filter(camel).filter(|span| span.chars().any(char::is_lowercase) && *span != "ErrorInfo");
    for name in calls {
        assert!(ROUTES.iter().any(|route| route.rpc.ends_with(&format!("/{name}"))), "{name} is no call");
    }
}
