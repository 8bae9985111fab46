//! How values are written in the configuration file.

use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use minishop_bus::produce::Compression;
use minishop_contracts::key::EventKey;
use toml::Value;

use crate::outbound::Targets;
use crate::telemetry::LogFormat;

/// A value that `minishop config print` can print.
pub(super) trait Shown {
    fn shown(&self) -> Value;
}

/// Implements [`Shown`] with an expression of the value.
macro_rules! shown {
    ($($type:ty: |$value:ident| $shown:expr;)+) => {
        $(impl Shown for $type {
            fn shown(&self) -> Value {
                let $value = self;
                Value::from($shown)
            }
        })+
    };
}

shown! {
    bool: |value| *value;
    i32: |value| *value;
    i64: |value| *value;
    usize: |value| i64::try_from(*value).unwrap_or(i64::MAX);
    String: |value| value.as_str();
    SocketAddr: |value| value.to_string();
    Uri: |value| value.to_string();
    Duration: |value| span(*value);
    EventKey: |value| value.as_str();
    Compression: |value| value.as_str();
    Targets: |value| value.as_str();
    LogFormat: |value| if *value == LogFormat::Json { "json" } else { "pretty" };
}

/// Formats a duration in the largest unit that is exact.
fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        n if n > 0 && n.is_multiple_of(86_400_000) => format!("{}d", n / 86_400_000),
        n if n > 0 && n.is_multiple_of(3_600_000) => format!("{}h", n / 3_600_000),
        n if n > 0 && n.is_multiple_of(60_000) => format!("{}m", n / 60_000),
        n if n.is_multiple_of(1_000) => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::duration;

    #[test]
    fn a_duration_is_read_as_it_was_written() {
        for text in ["0s", "250ms", "45s", "90s", "10m", "1h", "14d"] {
            assert_eq!(duration(text).map(span).as_deref(), Ok(text));
        }
    }
}
