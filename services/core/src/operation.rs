//! Operations over dead letters: their states, and when they proceed, wait, stop or end.

use crate::codes::codes;

/// Maximum number of redrives of one dead letter; one that fails this often needs another fix.
pub const MOST_REDRIVES: i32 = 5;
/// Events per second if the operator names no rate.
pub const DEFAULT_RATE: i32 = 100;
/// The failure ratio above which a redrive stops, if the operator names none.
pub const DEFAULT_FAILURE_RATIO: f64 = 0.1;

codes! {
    /// What an operation does.
    Kind {
        /// Processes dead letters again.
        Redrive = "redrive",
        /// Gives up dead letters.
        Discard = "discard",
    }
}

codes! {
    /// The state of an operation.
    State {
        Running = "running",
        /// Waits until it is resumed.
        Paused = "paused",
        /// Ended early; letters that were not released stay dead.
        Stopped = "stopped",
        /// Every item is decided.
        Done = "done",
    }
}

codes! {
    /// The state of one dead letter in an operation.
    ItemState {
        /// Not touched yet.
        Pending = "pending",
        /// Due again, not decided yet.
        Released = "released",
        /// Processed or discarded.
        Succeeded = "succeeded",
        /// Failed again.
        Failed = "failed",
        /// See [`Skip`].
        Skipped = "skipped",
    }
}

codes! {
    /// Why an operation skips a dead letter.
    Skip {
        /// There is no such row.
        NotFound = "NOT_FOUND",
        /// It is not dead but retrying or waiting.
        NotDead = "NOT_DEAD",
        /// Another operation has claimed it.
        Taken = "TAKEN",
        /// [`MOST_REDRIVES`] redrives failed.
        LoopGuard = "LOOP_GUARD",
        /// The operation ended first.
        Stopped = "STOPPED",
    }
}

/// The number of items of an operation in each [`ItemState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub pending: usize,
    pub released: usize,
    pub succeeded: usize,
    pub failed: usize,
    pub skipped: usize,
}

/// The next step of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Takes up to this many items, as its rate permits.
    Take(usize),
    /// Waits until all released items are decided.
    Wait,
    /// Stops: too many failed.
    Stop,
    /// Ends: every item is decided.
    Finish,
}

impl Tally {
    /// Adds `count` items in a state.
    pub const fn add(&mut self, state: ItemState, count: usize) {
        let place = match state {
            ItemState::Pending => &mut self.pending,
            ItemState::Released => &mut self.released,
            ItemState::Succeeded => &mut self.succeeded,
            ItemState::Failed => &mut self.failed,
            ItemState::Skipped => &mut self.skipped,
        };
        *place += count;
    }

    /// Counts the items released so far, decided or not.
    const fn begun(&self) -> usize {
        self.released + self.succeeded + self.failed
    }

    /// Returns the cumulative ends of the ramp's steps: one, five more, a tenth, all.
    fn ramp(&self) -> [usize; 4] {
        let all = self.begun() + self.pending;
        [1, 6, all.div_ceil(10).max(6), all].map(|end| end.min(all))
    }

    /// Returns a redrive's step in the ramp, 1 to 4.
    pub fn step(&self) -> usize {
        let done = if self.released > 0 { self.begun().saturating_sub(1) } else { self.begun() };
        let ramp = self.ramp();
        1 + ramp[..3].iter().filter(|end| **end <= done).count()
    }

    /// Decides an operation's next step from the counts alone, so that a restart continues where it was.
    ///
    /// `failure_ratio` bounds the share of failures among the decided items; a discard has none.
    pub fn next(&self, kind: Kind, failure_ratio: f64) -> Next {
        #[expect(clippy::cast_precision_loss, reason = "a set has far less than 2^52 entries")]
        let share = self.failed as f64 / (self.failed + self.succeeded).max(1) as f64;
        if share > failure_ratio {
            return Next::Stop;
        }
        match (self.pending, self.released) {
            (0, 0) => Next::Finish,
            (0, _) => Next::Wait,
            (pending, _) if kind == Kind::Discard => Next::Take(pending),
            (_, undecided) => {
                let begun = self.begun();
                if undecided > 0 && self.ramp()[..3].contains(&begun) {
                    return Next::Wait;
                }
                Next::Take(self.ramp().into_iter().find(|end| *end > begun).map_or(self.pending, |end| end - begun))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(pending: usize, released: usize, succeeded: usize, failed: usize) -> Tally {
        Tally { pending, released, succeeded, failed, skipped: 0 }
    }

    #[test]
    fn a_redrive_climbs_one_five_more_a_tenth_and_the_rest() {
        let (mut now, mut steps) = (tally(200, 0, 0, 0), Vec::new());
        while let Next::Take(most) = now.next(Kind::Redrive, 0.1) {
            steps.push((now.step(), most));
            now.pending -= most;
            now.released += most;
            if now.pending > 0 {
                assert_eq!(now.next(Kind::Redrive, 0.1), Next::Wait, "{now:?}");
            }
            now.succeeded += std::mem::take(&mut now.released);
        }
        assert_eq!(steps, [(1, 1), (2, 5), (3, 14), (4, 180)]);
        assert_eq!(now.next(Kind::Redrive, 0.1), Next::Finish);
    }

    #[test]
    fn a_step_that_the_rate_cut_short_goes_on_before_anything_is_waited_for() {
        assert_eq!(tally(98, 1, 1, 0).next(Kind::Redrive, 0.1), Next::Take(4));
        assert_eq!(tally(94, 5, 1, 0).next(Kind::Redrive, 0.1), Next::Wait);
        assert_eq!(tally(50, 40, 10, 0).next(Kind::Redrive, 0.1), Next::Take(50), "the last step waits for nothing");
    }

    #[test]
    fn a_small_set_is_released_as_far_as_it_goes() {
        assert_eq!(tally(3, 0, 0, 0).next(Kind::Redrive, 0.1), Next::Take(1));
        assert_eq!(tally(2, 0, 1, 0).next(Kind::Redrive, 0.1), Next::Take(2));
        assert_eq!(tally(0, 2, 1, 0).next(Kind::Redrive, 0.1), Next::Wait);
        assert_eq!(tally(0, 0, 0, 0).next(Kind::Redrive, 0.1), Next::Finish);
    }

    #[test]
    fn failures_above_the_ratio_stop_a_redrive_at_once() {
        assert_eq!(tally(99, 0, 0, 1).next(Kind::Redrive, 0.1), Next::Stop);
        assert_eq!(tally(80, 0, 18, 2).next(Kind::Redrive, 0.1), Next::Take(80), "a tenth is not above a tenth");
        assert_eq!(tally(80, 0, 17, 3).next(Kind::Redrive, 0.1), Next::Stop);
        assert_eq!(tally(5, 0, 0, 1).next(Kind::Redrive, 1.0), Next::Take(5), "a ratio of one never stops");
    }

    #[test]
    fn a_discard_has_no_ramp() {
        assert_eq!(tally(99, 0, 0, 0).next(Kind::Discard, 0.0), Next::Take(99));
    }
}
