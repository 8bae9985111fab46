//! Parsers for setting values. An error text continues the value: what it is not, and what to give instead.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use minishop_bus::produce::Compression;
use minishop_contracts::key::EventKey;
use secrecy::SecretString;

use crate::telemetry::LogFormat;

/// The most characters that errors repeat.
const SHOWN: usize = 64;

/// Returns a value's beginning, on one line.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN).collect::<String>())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not a valid address; give IP:port, such as 127.0.0.1:3000 (port 0 takes a free port)".to_owned())
}

/// Parses a duration such as `250ms`, `5s`, `10m`, `1h` or `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bad = || "is not a valid duration; give a whole number and a unit, such as 250ms, 5s, 10m, 1h or 7d".to_owned();
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "is too long; give a shorter duration".to_owned())
}

/// Parses a duration above zero.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err("is zero; give a longer duration".to_owned()) } else { Ok(duration) }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is not a valid boolean; give true or false".to_owned())
}

pub(super) fn whole<T: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("is not valid; give a whole number from {} to {}", range.start(), range.end()))
}

pub(super) fn event_key(text: &str) -> Result<EventKey, String> {
    EventKey::parse(text).ok_or_else(|| "is not a valid record key; give customer or order".to_owned())
}

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    Compression::parse(text).ok_or_else(|| "is not a valid compression; give none, gzip, snappy, lz4 or zstd".to_owned())
}

pub(super) fn migrate(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err("is not valid; give auto or off".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not a valid log format; give pretty or json".to_owned()),
    }
}

pub(super) fn topic_prefix(text: &str) -> Result<String, String> {
    let fits = text.len() <= 200 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    fits.then(|| text.to_owned())
        .ok_or_else(|| "is not a valid topic prefix; use at most 200 letters, digits, dots, dashes and underscores".to_owned())
}

/// Parses a static member name, to which brokers apply the rules of topic names.
pub(super) fn instance_id(text: &str) -> Result<String, String> {
    let fits = (1..=249).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    fits.then(|| text.to_owned())
        .ok_or_else(|| "is not a valid member name; use 1 to 249 letters, digits, dots, dashes and underscores".to_owned())
}

/// Parses a list of `host:port`.
pub(super) fn brokers(text: &str) -> Result<String, String> {
    let fits = |broker: &str| {
        let host_and_port = broker.trim().rsplit_once(':');
        host_and_port.is_some_and(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            !host.is_empty() && (bracketed || !host.contains([':', '/', '@'])) && port.parse().is_ok_and(|port: u16| port > 0)
        })
    };
    let good = text.split(',').all(fits).then(|| text.to_owned());
    good.ok_or_else(|| "is not a valid list of servers; give host:port,host:port".to_owned())
}

/// Checks a PostgreSQL URL; errors repeat nothing of it but its scheme.
pub(super) fn database_url(url: &str) -> Result<(), String> {
    const FORM: &str = "give postgres://user@host:port/database";
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else { return Err(format!("{}; {FORM}", other_scheme(url))) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err("has more than one `@`; write `@` in the user or password as %40".to_owned());
    }
    let host = authority.rsplit('@').next().unwrap_or_default();
    // The directory of a Unix socket is in the query.
    let socket = rest.split_once('?').is_some_and(|(_, query)| query.contains("host="));
    if host.split(':').next().is_some_and(str::is_empty) && !host.starts_with('[') && !socket {
        return Err(format!("has no host; {FORM}"));
    }
    Ok(())
}

/// Describes a URL's scheme. A text without one could be a password.
fn other_scheme(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, _)) if scheme.len() <= 20 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            format!("has the scheme `{scheme}`")
        }
        _ => "is not a valid PostgreSQL URL".to_owned(),
    }
}

/// Reads a secret from a file, without the trailing line break.
pub(super) fn secret_file(path: &Path) -> Result<SecretString, String> {
    let wrong = |error: std::io::Error| format!("cannot be read: {error}; name a file that this process can read");
    let mode = std::fs::metadata(path).map_err(wrong)?.permissions().mode();
    if mode & 0o004 != 0 {
        return Err("is readable by others; remove the permission (chmod o-r)".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err("is empty; write the secret into it".to_owned()) } else { Ok(SecretString::from(secret)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for bad in ["5", "-1s", "5 parsecs", "", "s", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_members_name_is_one_that_brokers_take() {
        for good in ["minishop-worker-0", "a.b_c", &"x".repeat(249)] {
            assert_eq!(instance_id(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", "a b", "worker/0", "\u{e9}", &"x".repeat(250)] {
            assert!(instance_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_an_ip_and_a_port() {
        assert!(address("127.0.0.1:0").is_ok() && address("[::1]:3000").is_ok());
        for bad in ["nonsense", "127.0.0.1", "127.0.0.1:70000", "", "localhost:3000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn servers_are_hosts_with_ports() {
        for good in ["h:1", "h:9092,h2:9092", "10.0.0.1:1, [::1]:9092"] {
            assert_eq!(brokers(good).as_deref(), Ok(good));
        }
        for bad in ["", "h", "http://h:1", "h:0", "h:70000", "h:1,", "u@h:1", "::1:9092"] {
            assert!(brokers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn databases_have_a_host_and_one_at_sign() {
        for good in
            ["postgres://h/d", "postgresql://u:p%40x@h:5432/d", "postgres:///d?host=/run/postgresql", "postgres://u@[::1]/d"]
        {
            assert_eq!(database_url(good), Ok(()), "{good}");
        }
        for bad in
            ["mysql://h/d", "postgres:h/d", "postgres://", "postgres:///d", "postgres://u:p@/d", "postgres://u:p@x@h/d", ""]
        {
            assert!(database_url(bad).is_err(), "{bad}");
        }
    }
}
