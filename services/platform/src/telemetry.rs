//! Logs for eyes, fields for queries, and the trace context that travels with an order.

mod export;
pub mod propagation;

use std::fmt;

use anyhow::Context;
pub use export::Flush;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// An error as one line: what happened, and why, one cause after the other. No stack: whoever logs an error expects it.
#[derive(Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        for cause in std::iter::successors(self.0.source(), |cause| cause.source()) {
            let text = cause.to_string();
            // Some libraries end a sentence with that of its cause.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
        }
        Ok(())
    }
}

/// Checks a text of the form of `RUST_LOG`.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let wrong = |_| "is no filter; give levels and targets such as info,minishop_api=debug".to_owned();
    EnvFilter::try_new(filter).map(drop).map_err(wrong)
}

/// Starts logging to standard error, and tracing where the standard `OTEL_*` variables ask for it.
///
/// `filter` has the form of `RUST_LOG`; only the first call of a process counts. Must be called within the runtime.
pub fn start(service: &'static str, format: LogFormat, filter: Option<&str>) -> anyhow::Result<Flush> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info,librdkafka=warn"))
        .context("error[CONFIG_VALUE] RUST_LOG: is not a filter; give levels and targets such as `info,minishop_api=debug`")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let (spans, flush) = export::layer(service)?.unzip();
    // The filter is the log's alone: a quiet log must not cut traces.
    let _ = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init();
    Ok(flush.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::store::error::OpenError;

    #[test]
    fn an_error_is_one_line_with_its_causes_and_no_stack() {
        let refused =
            || anyhow::anyhow!("connection refused").context("cannot connect: connection refused").context("no session");
        let chain = "no session: cannot connect: connection refused";
        let errors: [(&dyn fmt::Debug, &str); 4] = [
            (&StoreError::Retry { operation: "orders.get", source: refused() }, "orders.get: the store is unavailable"),
            (&StoreError::Fail { operation: "orders.get", source: refused() }, "orders.get: the store refused"),
            (&StoreError::Unknown { operation: "o", source: refused() }, "o: the outcome of the commit is unknown"),
            (&OpenError::Retry { source: refused() }, "the database is unreachable"),
        ];
        for (error, said) in errors {
            assert_eq!(format!("{error:?}"), format!("{said}: {chain}"));
        }
    }
}
