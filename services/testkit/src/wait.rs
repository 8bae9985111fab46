//! Waiting for a condition.

use std::fmt::Debug;
use std::time::Duration;

/// Timeout of what should take a second, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Interval of looks in the same process.
const PACE: Duration = Duration::from_millis(2);

/// One look at a condition: what was awaited, or what is there instead.
pub trait Look {
    /// What was awaited.
    type Found;
    /// Returns it, or words for what is there instead.
    fn found(self) -> Result<Self::Found, String>;
}

impl Look for bool {
    type Found = ();

    fn found(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("it is not so".to_owned()) }
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "there is none".to_owned())
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Repeats `look` until it finds something; panics with `what` and the last look after `within`.
pub async fn eventually<L: Look>(within: Duration, what: &str, mut look: impl AsyncFnMut() -> L) -> L::Found {
    let mut last = "nothing yet".to_owned();
    let found = async {
        let mut tick = tokio::time::interval(PACE);
        loop {
            tick.tick().await;
            match look().await.found() {
                Ok(found) => return found,
                Err(seen) => last = seen,
            }
        }
    };
    let outcome = tokio::time::timeout(within, found).await;
    outcome.unwrap_or_else(|_| panic!("{}", never(within, what, &last)))
}

/// Repeats `look` until it returns `wanted`.
pub async fn becomes<T: Debug + PartialEq<W>, W: Debug>(what: &str, mut look: impl AsyncFnMut() -> T, wanted: W) {
    let what = format!("{what}: {wanted:?}");
    let is_wanted = async || {
        let seen = look().await;
        if seen == wanted { Ok(()) } else { Err(seen) }
    };
    eventually(PATIENCE, &what, is_wanted).await;
}

pub(crate) fn never(within: Duration, what: &str, last: &str) -> String {
    format!("not within {within:?}: {what}; seen last: {last}")
}
