//! Names that no setting has: refused, with the name that was probably meant.

use std::collections::BTreeMap;

use super::Problem;

/// Our variables that are not flags, or not settings of this process.
const OTHERS: [&str; 4] = ["MINISHOP_CONFIG", "MINISHOP_SERVER", "MINISHOP_API_KEY", "MINISHOP_BENCH_HTTP"];

/// Settings that weaken security: never suggested for a misspelt name.
const WEAKENING: [&str; 1] = ["insecure"];

/// Reports variables with our prefix that are not settings.
pub(super) fn unknown_variables(variables: &BTreeMap<String, String>, known: &[(String, String)]) -> Vec<Problem> {
    let names = || known.iter().map(|(name, _)| name.as_str()).chain(OTHERS);
    let ours = variables.keys().filter(|name| name.starts_with("MINISHOP_") && !name.starts_with("MINISHOP_TEST_"));
    let unknown = ours.filter(|name| names().all(|known| known != name.as_str()) && !is_service_variable(name));
    unknown.map(|name| unknown_key("environment", name, names())).collect()
}

/// Returns whether Kubernetes injects a variable for a Service named `minishop…`: nobody has set it.
fn is_service_variable(name: &str) -> bool {
    let numbered_port = name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.ends_with("_PORT") || numbered_port
}

/// Returns the name that was probably meant: at most a third of its letters differ, and at most three.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Prefixes that all names share do not count.
    let own = |name: &str| {
        let name = name.trim_start_matches('-').to_lowercase().replace('-', "_");
        name.strip_prefix("minishop_").map(str::to_owned).unwrap_or(name)
    };
    let near = known.filter(|meant| !WEAKENING.contains(&own(meant).as_str())).filter_map(|meant| {
        let distance = strsim::osa_distance(&own(meant), &own(name));
        (distance <= (own(meant).len() / 3).min(3)).then_some((distance, meant))
    });
    near.min().map(|(_, meant)| meant)
}

/// Reports a name in `place` that is not a setting.
pub(super) fn unknown_key<'a>(place: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let name: String = name.chars().take(64).collect();
    let tip = match nearest(&name, known) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "remove it; `minishop up --help` lists the settings".to_owned(),
    };
    Problem::new("CONFIG_UNKNOWN_KEY", place, format!("{name} is not a valid setting; {tip}"))
}
