//! Where an assigned partition must be read from: the group's offset against the store's, and against what the log still has.

/// The offsets of an assigned partition, as its sources report them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// The group's next offset, or this worker's own if that is ahead; `None` when there is neither.
    pub committed: Option<i64>,
    /// The store's position; `None` when this consumer has settled nothing there.
    pub stored: Option<i64>,
    /// The store's position as this worker last saw it; `None` for a newly assigned partition.
    pub seen: Option<i64>,
    /// The first offset that the log still has.
    pub first: i64,
    /// The first offset that the log does not have yet.
    pub end: i64,
}

/// Where to read, and what to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The offset to read from.
    pub next_offset: i64,
    /// Whether the store is older than the group's offset, so that the partition must be read again from the store's position.
    pub store_is_behind: bool,
    /// Records that the log dropped before they were settled.
    pub lost: i64,
}

impl ResumePoint {
    /// Compares the offsets. The store overrides the group, but only backwards: a recreated topic has smaller offsets than the
    /// store remembers.
    pub fn judge(self) -> Finding {
        let went_back = self.seen.is_some_and(|seen| self.stored.unwrap_or(0) < seen);
        // A position beyond the log's end belongs to an earlier topic of this name; it does not count here.
        let stored = self.stored.filter(|stored| !went_back || *stored <= self.end).unwrap_or(self.first);
        let store_is_behind = self.committed.is_some_and(|committed| stored < committed);
        let wanted = match self.committed {
            Some(committed) => committed.min(stored),
            // Without a group offset the log is read from its beginning; what is lost lies between the store's position and
            // there.
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
