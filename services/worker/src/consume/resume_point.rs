//! Where an assigned partition must be read from: the group's offset against the store's, and against what the log still has.

/// What is known of a partition when it is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// How far it was read: the group's next offset, or this worker's own, which may be ahead of it; `None` when there is none.
    pub committed: Option<i64>,
    /// The store's: what this consumer has settled there; `None` when it has settled nothing.
    pub stored: Option<i64>,
    /// Where this worker saw the store stand before; `None` when the partition has only just come.
    pub seen: Option<i64>,
    /// The first offset that the log still has.
    pub first: i64,
    /// The first offset that the log does not have yet.
    pub end: i64,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Where the partition is read from, if the group has an offset at all.
    pub next_offset: i64,
    /// Whether the store is older than the group's offset, so that the partition must be read again from the store's.
    pub store_is_behind: bool,
    /// How many records the log has dropped before they were settled.
    pub lost: i64,
}

impl ResumePoint {
    /// Judges. The store is believed before the group, but only backwards: a topic that was made anew has smaller offsets than
    /// the store remembers.
    pub fn judge(self) -> Finding {
        let went_back = self.seen.is_some_and(|seen| self.stored.unwrap_or(0) < seen);
        // An offset beyond the log's end is that of an earlier topic of this name, and says nothing of what was settled in this one.
        let stored = self.stored.filter(|stored| !went_back || *stored <= self.end).unwrap_or(self.first);
        let store_is_behind = self.committed.is_some_and(|committed| stored < committed);
        let wanted = match self.committed {
            Some(committed) => committed.min(stored),
            // Without a commit the log is read from its beginning, where only what the store has settled may be missing.
            None => stored.min(self.first),
        };
        Finding { next_offset: wanted.max(self.first), store_is_behind, lost: (self.first - wanted).max(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(committed: Option<i64>, stored: Option<i64>, first: i64) -> (i64, bool, i64) {
        let found = ResumePoint { committed, stored, seen: None, first, end: 20 }.judge();
        (found.next_offset, found.store_is_behind, found.lost)
    }

    #[test]
    fn a_store_that_agrees_with_its_group_is_read_on() {
        assert_eq!(judge(Some(7), Some(7), 0), (7, false, 0));
        assert_eq!(judge(Some(7), Some(9), 0), (7, false, 0), "committed late: the gate finds the rest settled");
        assert_eq!(judge(None, None, 0), (0, false, 0), "a new group");
    }

    #[test]
    fn a_store_older_than_its_group_is_read_again_from_where_it_stands() {
        assert_eq!(judge(Some(9), Some(4), 0), (4, true, 0));
        assert_eq!(judge(Some(9), None, 3), (3, true, 0), "an empty store");
    }

    #[test]
    fn nothing_is_ever_skipped() {
        assert_eq!(judge(Some(5), Some(1000), 0), (5, false, 0), "a topic that was made anew");
        assert_eq!(judge(None, Some(1000), 0), (0, false, 0));
    }

    #[test]
    fn records_that_the_log_dropped_unread_are_told() {
        assert_eq!(judge(Some(5), Some(5), 8), (8, false, 3));
        assert_eq!(judge(Some(20), Some(5), 8), (8, true, 3), "of a store that is behind too");
        assert_eq!(judge(None, Some(5), 8), (8, false, 3), "the group's offsets have expired");
        assert_eq!(judge(None, None, 8), (8, false, 0), "a new group has missed nothing that was its own");
    }

    #[test]
    fn a_store_that_went_back_is_read_again_from_where_it_stands_now() {
        let now = |stored, seen| {
            let found = ResumePoint { committed: Some(9), stored, seen: Some(seen), first: 2, end: 20 }.judge();
            (found.next_offset, found.store_is_behind)
        };
        assert_eq!(now(Some(4), 9), (4, true));
        assert_eq!(now(None, 9), (2, true), "to before it knew of the partition");
        assert_eq!(now(Some(12), 9), (9, false), "another worker was further");
        assert_eq!(now(Some(990), 1000), (2, true), "of a topic that was made anew its offset tells nothing");
        assert_eq!(now(Some(1000), 1000), (9, false));
    }
}
