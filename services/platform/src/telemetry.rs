//! Logs, spans, and the trace context that travels with an order.

mod export;
mod filter;
pub mod propagation;

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use anyhow::Context;
pub use export::Flush;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Checks a filter in the form of `RUST_LOG`.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let wrong = |_| "is not a valid filter; give levels and targets such as info,minishop_api=debug".to_owned();
    EnvFilter::try_new(filter).map(drop).map_err(wrong)
}

/// Starts logging to standard error, and tracing if the standard `OTEL_*` variables ask for it.
///
/// `filter` has the form of `RUST_LOG`. Only the first call in a process counts; it must be within the runtime. Lines are
/// coloured only at a terminal, and never with `NO_COLOR` (no-color.org).
pub fn start(service: &'static str, format: LogFormat, filter: Option<&str>) -> anyhow::Result<Flush> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info,librdkafka=warn")).context(
        "error[CONFIG_VALUE] RUST_LOG: is not a valid filter; give levels and targets such as info,minishop_api=debug",
    )?;
    #[expect(clippy::disallowed_methods, reason = "the variable by which people ask all programs for no colours")]
    let no_color = std::env::var_os("NO_COLOR");
    let colours = colours(std::io::stderr().is_terminal(), no_color.as_deref());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let (spans, flush) = export::layer(service)?.unzip();
    // The filter applies to the log only: a quiet log must not cut traces.
    let _ = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter::Asked(filter))).try_init();
    Ok(flush.unwrap_or_default())
}

/// Returns whether lines may be coloured; an empty `NO_COLOR` counts as unset.
fn colours(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_a_terminal_where_nobody_objects() {
        let given = |value: &'static str| Some(OsStr::new(value));
        let cases = [(true, None, true), (true, given(""), true), (true, given("0"), false), (false, None, false)];
        for (terminal, no_color, wanted) in cases {
            assert_eq!(colours(terminal, no_color), wanted, "{terminal} {no_color:?}");
        }
    }
}
