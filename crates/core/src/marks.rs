//! Branches worth reaching: each step says which of them it took, so that a simulation can tell what it has never tried.

/// A branch of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// A pre-vote was refused because a leader is alive.
    PreVoteRefusedForLeader,
    /// A pre-vote was refused to a shorter log.
    PreVoteRefusedByLog,
    /// No campaign began, for a vote was still on its way to the disk.
    CampaignWaitsForDisk,
    /// A vote was refused to a shorter log.
    VoteRefusedByLog,
    /// A vote was refused because another candidate has it.
    VoteRefusedAlreadyGiven,
    /// A grant of an earlier round counted for nothing.
    LateGrantIgnored,
    /// A round of votes ended without a quorum.
    VoteRoundTimedOut,
    /// A candidate heard of a leader of its term.
    CandidateFollows,
    /// A leader stepped down because no quorum answered.
    QuorumLost,
    /// A leader or candidate stepped down for a higher term.
    HigherTermSeen,
    /// A leader of an earlier term was refused.
    StaleLeaderRefused,
    /// A conflict hint skipped more than one entry.
    ConflictHintSkips,
    /// A rejection sent the leader back to the end of a shorter log.
    ShorterLogFound,
    /// Entries that were sent again changed nothing.
    EntriesKnownAlready,
    /// Of the entries of one message some were known and some new.
    EntriesPartlyNew,
    /// A follower cut off a suffix that conflicts with its leader's log.
    SuffixTruncated,
    /// An acknowledgement waited for an older write that carries its entries.
    AcknowledgementWaits,
    /// A follower committed less than its leader, for more was not proven to match.
    CommitCapped,
    /// A follower refused entries, for too many wait for its disk.
    BusyRefusal,
    /// A leader refused a proposal, for too much waits.
    ProposalRefusedBusy,
    /// A replicator's window was full.
    WindowFull,
    /// A request found its link full and waits for room.
    LinkFull,
    /// A time-out of an election was extended, for the owner was late.
    PatienceExtended,
    /// A replicator probed again after an error.
    ProbeAfterError,
    /// A replicator probed at once when its peer connected.
    ProbeOnConnect,
    /// A request of a replicator was not answered in time.
    RequestTimedOut,
    /// An answer to a window that was given up moved nothing.
    ForgottenAnswerIgnored,
    /// Heartbeats went beside requests that were not answered for long.
    HeartbeatBesideRequests,
    /// Entries for a lagging peer were read from the store.
    PeerReadFromStore,
    /// A log read was answered after the replicator that asked had moved on.
    StaleReadIgnored,
    /// Committed entries were read back for the state machine.
    ApplyReadFromStore,
    /// Committed entries waited until the state machine had applied others.
    ApplyHeldBack,
    /// A majority held an entry of an earlier term, and it was not committed by counting.
    OldTermHeldBack,
}

impl Mark {
    /// Every mark.
    pub const ALL: [Mark; 33] = [
        Mark::PreVoteRefusedForLeader,
        Mark::PreVoteRefusedByLog,
        Mark::CampaignWaitsForDisk,
        Mark::VoteRefusedByLog,
        Mark::VoteRefusedAlreadyGiven,
        Mark::LateGrantIgnored,
        Mark::VoteRoundTimedOut,
        Mark::CandidateFollows,
        Mark::QuorumLost,
        Mark::HigherTermSeen,
        Mark::StaleLeaderRefused,
        Mark::ConflictHintSkips,
        Mark::ShorterLogFound,
        Mark::EntriesKnownAlready,
        Mark::EntriesPartlyNew,
        Mark::SuffixTruncated,
        Mark::AcknowledgementWaits,
        Mark::CommitCapped,
        Mark::BusyRefusal,
        Mark::ProposalRefusedBusy,
        Mark::WindowFull,
        Mark::LinkFull,
        Mark::PatienceExtended,
        Mark::ProbeAfterError,
        Mark::ProbeOnConnect,
        Mark::RequestTimedOut,
        Mark::ForgottenAnswerIgnored,
        Mark::HeartbeatBesideRequests,
        Mark::PeerReadFromStore,
        Mark::StaleReadIgnored,
        Mark::ApplyReadFromStore,
        Mark::ApplyHeldBack,
        Mark::OldTermHeldBack,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mark::PreVoteRefusedForLeader => "pre-vote refused for a leader",
            Mark::PreVoteRefusedByLog => "pre-vote refused by log",
            Mark::CampaignWaitsForDisk => "campaign waits for the disk",
            Mark::VoteRefusedByLog => "vote refused by log",
            Mark::VoteRefusedAlreadyGiven => "vote refused, given already",
            Mark::LateGrantIgnored => "late grant ignored",
            Mark::VoteRoundTimedOut => "vote round timed out",
            Mark::CandidateFollows => "candidate follows a leader",
            Mark::QuorumLost => "quorum lost",
            Mark::HigherTermSeen => "higher term seen",
            Mark::StaleLeaderRefused => "stale leader refused",
            Mark::ConflictHintSkips => "conflict hint skips",
            Mark::ShorterLogFound => "shorter log found",
            Mark::EntriesKnownAlready => "entries known already",
            Mark::EntriesPartlyNew => "entries partly new",
            Mark::SuffixTruncated => "suffix truncated",
            Mark::AcknowledgementWaits => "acknowledgement waits",
            Mark::CommitCapped => "commit capped",
            Mark::BusyRefusal => "busy refusal",
            Mark::ProposalRefusedBusy => "proposal refused as busy",
            Mark::WindowFull => "window full",
            Mark::LinkFull => "link full",
            Mark::PatienceExtended => "patience extended",
            Mark::ProbeAfterError => "probe after error",
            Mark::ProbeOnConnect => "probe on connect",
            Mark::RequestTimedOut => "request timed out",
            Mark::ForgottenAnswerIgnored => "forgotten answer ignored",
            Mark::HeartbeatBesideRequests => "heartbeat beside requests",
            Mark::PeerReadFromStore => "peer read from the store",
            Mark::StaleReadIgnored => "stale read ignored",
            Mark::ApplyReadFromStore => "apply read from the store",
            Mark::ApplyHeldBack => "apply held back",
            Mark::OldTermHeldBack => "old term held back",
        }
    }
}

/// A set of marks. Setting one is a single `or`: steps tell of them in every build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u64);

impl Marks {
    /// Adds a mark.
    #[inline]
    pub fn set(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u8;
    }

    /// Adds every mark of another set.
    #[inline]
    pub fn add(&mut self, other: Marks) {
        self.0 |= other.0;
    }

    /// Whether the set has the mark.
    pub fn contains(self, mark: Mark) -> bool {
        self.0 & (1 << mark as u8) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The marks of the set.
    pub fn iter(self) -> impl Iterator<Item = Mark> {
        Mark::ALL.into_iter().filter(move |mark| self.contains(*mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_has_a_bit_and_a_name_of_its_own() {
        let mut all = Marks::default();
        for (position, mark) in Mark::ALL.into_iter().enumerate() {
            assert_eq!(position, mark as usize);
            assert!(!all.contains(mark));
            all.set(mark);
        }
        assert_eq!(all.iter().count(), Mark::ALL.len());
        let names: std::collections::BTreeSet<&str> = Mark::ALL.iter().map(|mark| mark.name()).collect();
        assert_eq!(names.len(), Mark::ALL.len());
    }
}
