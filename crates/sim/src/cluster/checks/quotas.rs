//! When everything is at rest, whatever is counted against a quota is zero, but for the heartbeats that are just under way.

/// What a host holds when nothing is asked of it any more.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cluster) struct AtRest {
    /// Entries that are accepted and not written.
    pub(in crate::cluster) unwritten: u64,
    /// Entries that are handed over and not applied.
    pub(in crate::cluster) unapplied: u64,
    /// Batches that wait for the disk, tasks that wait for state machines, reads that wait for the store.
    pub(in crate::cluster) queued: usize,
    /// Requests of peers without answer.
    pub(in crate::cluster) unanswered: usize,
    /// Requests to peers without answer.
    pub(in crate::cluster) waiting: usize,
}

impl AtRest {
    /// Checks a host that takes part in so many groups with so many others: two requests a peer and group may be under way, and
    /// `lost` more to a peer that never answers, before they are given up.
    ///
    /// # Errors
    /// Something is held that nobody will ever let go of.
    pub(in crate::cluster) fn check(&self, groups: usize, others: usize, lost: usize) -> Result<(), String> {
        let under_way = 2 * groups * others;
        let held = [
            ("unwritten entries", self.unwritten, 0),
            ("entries that are not applied", self.unapplied, 0),
            ("tasks between its stages", self.queued as u64, 0),
            ("requests that it has not answered", self.unanswered as u64, under_way as u64),
            (
                "requests that nobody answered",
                self.waiting as u64,
                (under_way + lost * groups * others) as u64,
            ),
        ];
        match held.into_iter().find(|(_, count, allowed)| count > allowed) {
            Some((what, count, allowed)) => {
                Err(format!("holds {count} {what} at rest, at most {allowed} may be"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_shows() {
        let fine = AtRest { unanswered: 8, waiting: 12, ..AtRest::default() };
        assert_eq!(fine.check(2, 2, 1), Ok(()));
        assert!(AtRest { unwritten: 1, ..fine }.check(2, 2, 1).is_err());
        assert!(AtRest { unapplied: 1, ..fine }.check(2, 2, 1).is_err());
        assert!(AtRest { queued: 1, ..fine }.check(2, 2, 1).is_err());
        assert!(AtRest { unanswered: 9, ..fine }.check(2, 2, 1).is_err());
        assert!(AtRest { waiting: 13, ..fine }.check(2, 2, 1).is_err());
    }
}
