//! When to try a shortcut that applies to most batches.

use std::sync::Mutex;

/// The most batches in a row for which it is not tried.
const MOST_SKIPPED: u32 = 64;

/// Misses in a row: batches to which the shortcut turned out not to apply. A miss costs a round trip and a rollback, so the next
/// batches go the long way at once: one after the first miss, then two, four, and so on.
#[derive(Debug, Default)]
pub struct Misses(Mutex<Skips>);

#[derive(Debug, Default)]
struct Skips {
    last: u32,
    left: u32,
}

impl Misses {
    /// Returns whether to try it on the next batch.
    pub fn allow(&self) -> bool {
        let mut skips = self.0.lock().expect("no holder panics");
        let allowed = skips.left == 0;
        skips.left = skips.left.saturating_sub(1);
        allowed
    }

    /// Notes whether the batch was a miss.
    pub fn note(&self, missed: bool) {
        let mut skips = self.0.lock().expect("no holder panics");
        skips.last = if missed { (skips.last * 2).clamp(1, MOST_SKIPPED) } else { 0 };
        skips.left = skips.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_in_a_row_are_tried_ever_less_often() {
        let misses = Misses::default();
        let mut tried = Vec::new();
        for n in 0..300 {
            if misses.allow() {
                tried.push(n);
                misses.note(true);
            }
        }
        assert_eq!(tried, [0, 2, 5, 10, 19, 36, 69, 134, 199, 264], "1, 2, 4 … 64 are skipped in between");
    }

    #[test]
    fn a_hit_ends_the_skipping() {
        let misses = Misses::default();
        misses.note(true);
        assert!(!misses.allow());
        assert!(misses.allow());
        misses.note(false);
        assert!(misses.allow() && misses.allow());
    }
}
