//! What a quorum allows to commit (SOFAJRaft's `BallotBox`).

use crate::electorate::Electorate;
use crate::rules;
use crate::types::LogIndex;

/// What came of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// No majority holds more than before.
    Nothing,
    /// A majority holds more, but no entry of this leader's term: that commits nothing (Raft §5.4.2).
    OldTerm,
    /// Everything up to this index is committed.
    Committed(LogIndex),
}

/// A leader's counting, from the first entry of its term on.
///
/// SOFAJRaft keeps a ballot an entry; here the commit index comes from the sorted match indexes, which needs no
/// memory an entry. Entries below `pending_index` are of earlier terms and commit only through a later one
/// (Raft §5.4.2).
#[derive(Clone, Debug)]
pub(crate) struct BallotBox {
    /// First index that this leader's counting may commit.
    pending_index: LogIndex,
    /// Kept from call to call so that counting does not allocate.
    scratch: Vec<LogIndex>,
}

impl BallotBox {
    /// Counts entries from `pending_index` on, which are of the leader's term.
    pub(crate) fn new(pending_index: LogIndex) -> BallotBox {
        BallotBox { pending_index, scratch: Vec::new() }
    }

    /// First index that is counted.
    pub(crate) fn pending_index(&self) -> LogIndex {
        self.pending_index
    }

    /// How far behind `committed` both majorities hold the log durably; `held` is the durable index of a member.
    pub(crate) fn commit_at<M: Copy>(
        &mut self,
        committed: LogIndex,
        members: &Electorate<M>,
        held: impl Fn(M) -> LogIndex,
    ) -> Counted {
        let index = rules::quorum::durable_index(members, held, &mut self.scratch);
        if index <= committed {
            return Counted::Nothing;
        }
        if !rules::log::counts_for_commit(index, self.pending_index) {
            return Counted::OldTerm;
        }
        Counted::Committed(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{ConfigurationEntry, PeerId};

    /// Counts what the peers of `held` hold; gives the commit index, which was `committed`.
    fn commit(
        bx: &mut BallotBox,
        committed: LogIndex,
        conf: &ConfigurationEntry,
        held: &[(&str, u64)],
    ) -> LogIndex {
        let held = |p: &PeerId| held.iter().find(|(name, _)| p.to_string() == *name).map_or(0, |(_, i)| *i);
        match bx.commit_at(committed, &Electorate::of(conf, |peer| peer), held) {
            Counted::Committed(index) => index,
            Counted::Nothing | Counted::OldTerm => committed,
        }
    }

    #[test]
    fn counts_by_sorted_match_indexes() {
        let conf = ConfigurationEntry { conf: "a:1,b:1,c:1,d:1,e:1".parse().unwrap(), ..Default::default() };
        let mut bx = BallotBox::new(1);
        // openraft#1802: an unsorted tail committed 6 with two acknowledgements.
        assert_eq!(commit(&mut bx, 0, &conf, &[("a:1", 6), ("e:1", 6), ("b:1", 2), ("c:1", 1)]), 2);
        assert_eq!(commit(&mut bx, 2, &conf, &[("a:1", 6), ("e:1", 6), ("c:1", 4)]), 4);
        assert_eq!(commit(&mut bx, 4, &conf, &[("a:1", 1)]), 4, "never goes back");
    }

    #[test]
    fn an_older_term_commits_only_with_an_entry_of_the_own() {
        let conf = ConfigurationEntry { conf: "a:1,b:1,c:1".parse().unwrap(), ..Default::default() };
        let mut bx = BallotBox::new(5);
        assert_eq!(commit(&mut bx, 1, &conf, &[("a:1", 4), ("b:1", 4), ("c:1", 4)]), 1);
        assert_eq!(commit(&mut bx, 1, &conf, &[("a:1", 5), ("b:1", 5), ("c:1", 4)]), 5);
    }

    #[test]
    fn both_halves_must_hold_while_joint() {
        let conf = ConfigurationEntry {
            conf: "a:1,d:1,e:1".parse().unwrap(),
            old_conf: "a:1,b:1,c:1".parse().unwrap(),
            ..Default::default()
        };
        let mut bx = BallotBox::new(1);
        assert_eq!(commit(&mut bx, 0, &conf, &[("a:1", 9), ("d:1", 9), ("e:1", 9)]), 0);
        assert_eq!(commit(&mut bx, 0, &conf, &[("a:1", 9), ("d:1", 9), ("b:1", 3)]), 3);
    }
}
