//! What is committed, and what a quorum allows to commit (SOFAJRaft's `BallotBox`).

use crate::peer::{ConfigurationEntry, PeerId};
use crate::rules;
use crate::types::LogIndex;

/// What came of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// No majority holds more than before.
    Nothing,
    /// A majority holds more, but no entry of this leader's term: that commits nothing (Raft §5.4.2).
    OldTerm,
    /// The commit index advanced.
    Committed,
}

/// The commit index, and on a leader the index from which counting commits.
///
/// SOFAJRaft keeps a ballot an entry; here the commit index comes from the sorted match indexes, which needs no
/// memory an entry. Entries below `pending_index` are of earlier terms and commit only through a later one
/// (Raft §5.4.2).
#[derive(Clone, Debug, Default)]
pub(crate) struct BallotBox {
    last_committed_index: LogIndex,
    /// First index that this leader's counting may commit; 0 while not leader.
    pending_index: LogIndex,
    /// Kept from call to call so that counting does not allocate.
    scratch: Vec<LogIndex>,
}

impl BallotBox {
    /// A box that knows this index as committed (a snapshot's, or 0).
    pub(crate) fn new(last_committed_index: LogIndex) -> BallotBox {
        BallotBox { last_committed_index, pending_index: 0, scratch: Vec::new() }
    }

    /// The commit index.
    pub(crate) fn last_committed_index(&self) -> LogIndex {
        self.last_committed_index
    }

    /// Becomes a leader's: only entries from `index` on, which are of its term, are counted.
    pub(crate) fn reset_pending_index(&mut self, index: LogIndex) {
        debug_assert!(index > self.last_committed_index, "a leader's first entry is new");
        self.pending_index = index;
    }

    /// Ceases to be a leader's.
    pub(crate) fn clear_pending_tasks(&mut self) {
        self.pending_index = 0;
    }

    /// Advances the commit index to what both majorities hold durably; `held` is the durable index of a peer.
    pub(crate) fn commit_at(
        &mut self,
        conf: &ConfigurationEntry,
        held: impl FnMut(&PeerId) -> LogIndex,
    ) -> Counted {
        if self.pending_index == 0 {
            return Counted::Nothing;
        }
        let index = rules::quorum::durable_index(conf, held, &mut self.scratch);
        if index <= self.last_committed_index {
            return Counted::Nothing;
        }
        if !rules::log::counts_for_commit(index, self.pending_index) {
            return Counted::OldTerm;
        }
        self.last_committed_index = index;
        Counted::Committed
    }

    /// A follower learns the commit index from its leader; it never goes back. Returns whether it advanced.
    pub(crate) fn set_last_committed_index(&mut self, index: LogIndex) -> bool {
        debug_assert!(self.pending_index == 0, "a leader commits by counting only");
        let advanced = index > self.last_committed_index;
        self.last_committed_index = self.last_committed_index.max(index);
        advanced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(bx: &mut BallotBox, conf: &ConfigurationEntry, held: &[(&str, u64)]) -> LogIndex {
        bx.commit_at(conf, |p| held.iter().find(|(name, _)| p.to_string() == *name).map_or(0, |(_, i)| *i));
        bx.last_committed_index()
    }

    #[test]
    fn counts_by_sorted_match_indexes() {
        let conf = ConfigurationEntry { conf: "a:1,b:1,c:1,d:1,e:1".parse().unwrap(), ..Default::default() };
        let mut bx = BallotBox::new(0);
        bx.reset_pending_index(1);
        // openraft#1802: an unsorted tail committed 6 with two acknowledgements.
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 6), ("e:1", 6), ("b:1", 2), ("c:1", 1)]), 2);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 6), ("e:1", 6), ("c:1", 4)]), 4);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 1)]), 4, "never goes back");
    }

    #[test]
    fn an_older_term_commits_only_with_an_entry_of_the_own() {
        let conf = ConfigurationEntry { conf: "a:1,b:1,c:1".parse().unwrap(), ..Default::default() };
        let mut bx = BallotBox::new(1);
        bx.reset_pending_index(5);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 4), ("b:1", 4), ("c:1", 4)]), 1);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 5), ("b:1", 5), ("c:1", 4)]), 5);
    }

    #[test]
    fn both_halves_must_hold_while_joint() {
        let conf = ConfigurationEntry {
            conf: "a:1,d:1,e:1".parse().unwrap(),
            old_conf: "a:1,b:1,c:1".parse().unwrap(),
            ..Default::default()
        };
        let mut bx = BallotBox::new(0);
        bx.reset_pending_index(1);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 9), ("d:1", 9), ("e:1", 9)]), 0);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 9), ("d:1", 9), ("b:1", 3)]), 3);
    }

    #[test]
    fn nothing_is_counted_without_leadership() {
        let conf = ConfigurationEntry { conf: "a:1".parse().unwrap(), ..Default::default() };
        let mut bx = BallotBox::new(0);
        assert_eq!(commit(&mut bx, &conf, &[("a:1", 9)]), 0);
    }
}
