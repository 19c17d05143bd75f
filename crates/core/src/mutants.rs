//! Bugs that real engines shipped, to be put back on purpose: what the simulator must find.
//!
//! Each mutant is one place in the production code that does the wrong thing while it is active. Only builds with the cargo
//! feature `mutants` contain them, and there one at most is active, chosen by name at run time. In every other build
//! [`Mutant::is_active`] is a constant `false`, and the wrong code is gone. `docs/testing.md` says what finds each.

/// Defines the mutants: variant, name, the crate in which its switch stands, and what it does wrong.
macro_rules! mutants {
    ($($variant:ident = $name:literal, $room:literal, $what:literal;)*) => {
        /// A bug that can be put back. Names begin with the entry of the catalogue of bugs that it re-creates.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Mutant {
            $(#[doc = $what] $variant,)*
        }

        impl Mutant {
            /// Every mutant, by name.
            pub const ALL: &[Mutant] = &[$(Mutant::$variant,)*];

            /// Its name: the entry, and what it does.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$variant => $name,)* }
            }

            /// The crate in which its switch stands.
            pub const fn room(self) -> &'static str {
                match self { $(Mutant::$variant => $room,)* }
            }

            /// What it does wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Mutant::$variant => $what,)* }
            }
        }
    };
}

mutants! {
    A1VoteAnsweredBeforeDurable = "a1_vote_answered_before_durable", "core", "a granted vote leaves before it is durable";
    A2VoteRequestedBeforeDurable = "a2_vote_requested_before_durable", "core", "a candidate asks for votes before its own is durable";
    A4VoteSurvivesItsTerm = "a4_vote_survives_its_term", "core", "the vote of one term counts in the next";
    A6AppendErasesTheVote = "a6_append_erases_the_vote", "core", "taking in a leader's entries forgets the vote of the term";
    A7RefusalCountsAsGrant = "a7_refusal_counts_as_grant", "core", "a candidate counts any answer of its term as a grant";
    A7LogsAreNotCompared = "a7_logs_are_not_compared", "core", "a voter grants whatever the candidate's log is";
    A8TermIsThatOfTheLastEntry = "a8_term_is_that_of_the_last_entry", "core", "a node starts in the term of its last entry, whatever it voted later";
    A9RecoveryForgetsTheVote = "a9_recovery_forgets_the_vote", "storage", "recovery reads the term of a hard state and not the vote";
    A9CheckpointForgetsTheVote = "a9_checkpoint_forgets_the_vote", "storage", "a checkpoint holds the terms and not the votes";
    A10LogsMustBeAheadInBoth = "a10_logs_must_be_ahead_in_both", "core", "a candidate's log must not be behind in term nor in index";
    A10LongerLogWins = "a10_longer_log_wins", "core", "logs are compared by their length alone";
    A11GrantOfAnEarlierRound = "a11_grant_of_an_earlier_round", "core", "grants of an earlier round of votes count";
    A13VoterComparesStableIndex = "a13_voter_compares_stable_index", "core", "a voter compares with its last durable entry";
    A15VoteWriteIsNotSynced = "a15_vote_write_is_not_synced", "storage", "a batch of hard states alone is not synced";
    A20VoteIsForgottenAtRestart = "a20_vote_is_forgotten_at_restart", "core", "a node that is started again remembers its term and not its vote";
    B1PreVotesOfOtherTermsAreDropped = "b1_pre_votes_of_other_terms_are_dropped", "core", "a node that asks for pre-votes drops answers of terms other than its own";
    B3PreVoteAsksOnce = "b3_pre_vote_asks_once", "core", "a node whose pre-votes came to nothing never asks again";
    B4AppendIsNoSignOfLife = "b4_append_is_no_sign_of_life", "core", "a follower does not count a leader's messages as signs of life";
    B7LeaderStaysWithoutAQuorum = "b7_leader_stays_without_a_quorum", "core", "a leader that no quorum answers goes on leading";
    B7LeaseFromReceipt = "b7_lease_from_receipt", "core", "leases count from when answers came, not from when requests were sent";
    B10NoPromise = "b10_no_promise", "core", "voters promise a lease and vote for others all the same";
    B10RestartForgetsThePromise = "b10_restart_forgets_the_promise", "core", "a voter that is started again votes at once, whatever it has promised";
    B10PromiseIsNotCompared = "b10_promise_is_not_compared", "core", "a leader takes every promise for one of its own election time-out";
    B10PromiseLeavesBeforeDurable = "b10_promise_leaves_before_durable", "core", "an answer that promises longer than ever leaves before that is written down";
    B10WrittenPromiseIsForgotten = "b10_written_promise_is_forgotten", "core", "a voter that is started again keeps the promise of its options, not the one that it gave";
    B12LeaseOutlivesTransfer = "b12_lease_outlives_transfer", "core", "a leader whose transfer came to nothing relies on its lease again";
    B7LeaseUntilStepDown = "b7_lease_until_step_down", "core", "a leader relies on its lease for as long as it leads";
    B11NoTransferMark = "b11_no_transfer_mark", "core", "who was ordered to campaign does not say so to voters that keep a promise";
    B13LeaseDuringTransfer = "b13_lease_during_transfer", "core", "a leader relies on its lease while it hands leadership over";
    B14TransferAsksForPreVotes = "b14_transfer_asks_for_pre_votes", "core", "who was ordered to campaign asks for pre-votes, which voters that hear the leader refuse";
    B15RemovedMemberCampaigns = "b15_removed_member_campaigns", "core", "who is removed campaigns without asking for pre-votes";
    B15ExcludedMemberGivesUp = "b15_excluded_member_gives_up", "core", "who is excluded by a configuration that may not be committed campaigns no more";
    B15RemovalIsForgottenAtRestart = "b15_removal_is_forgotten_at_restart", "core", "a removed member that is started again takes itself for a member";
    B15RemovalCountsUncommitted = "b15_removal_counts_uncommitted", "core", "a member writes its removal down before that is committed";
    B15MemberAgainStaysRemoved = "b15_member_again_stays_removed", "core", "a removed member that is added again stays silent";
    B9TimerIsArmedOnce = "b9_timer_is_armed_once", "ringraft", "a group whose timer has rung is never looked at again";
    C12CommitsWhatOneHolds = "c12_commits_what_one_holds", "core", "a leader commits what a single voter holds";
    C12CommitsByTheNewHalf = "c12_commits_by_the_new_half", "core", "while joint, the new half alone commits";
    C10LearnersCount = "c10_learners_count", "core", "what learners hold counts for the majority of the voters";
    C10LearnersVote = "c10_learners_vote", "core", "learners are asked for votes, and their grants count";
    C1ChangeBeforeTheOwnTerm = "c1_change_before_the_own_term", "core", "members are changed before an entry of the own term is committed";
    C3SecondChangeBeforeTheFirstIsOver = "c3_second_change_before_the_first_is_over", "core", "members are changed while they are being changed";
    C3ChangeWithoutJoint = "c3_change_without_joint", "core", "members are changed at once, without a joint configuration";
    C4JointIsLeftUncommitted = "c4_joint_is_left_uncommitted", "core", "a joint configuration is left before it is committed";
    C5NewLeaderForgetsTheOldHalf = "c5_new_leader_forgets_the_old_half", "core", "the first entry of a new leader drops the old half of a joint configuration";
    C4NewLeaderStaysJoint = "c4_new_leader_stays_joint", "core", "a new leader does not finish the joint change that it finds";
    C5VotesOfTheNewHalf = "c5_votes_of_the_new_half", "core", "while joint, a candidate counts the votes of the new half alone";
    C7RemovedLeaderStays = "c7_removed_leader_stays", "core", "a leader that is removed goes on leading";
    C8TombstoneIsForgotten = "c8_tombstone_is_forgotten", "storage", "a store forgets which groups were removed from it";
    C20AnotherClusterIsHeard = "c20_another_cluster_is_heard", "ringraft", "requests that mean another cluster are carried out";
    C20VotesOfAnotherClusterAreHeard = "c20_votes_of_another_cluster_are_heard", "ringraft", "candidates of another cluster are heard, and their terms";
    C24NobodyCatchesUp = "c24_nobody_catches_up", "core", "new voters get their vote before they have caught up";
    C15TruncationKeepsConfigurations = "c15_truncation_keeps_configurations", "core", "a configuration stays in force though its entry was truncated";
    C23AbandonedChangeTellsNobody = "c23_abandoned_change_tells_nobody", "core", "who asked for a change is not told when leadership is lost";
    D1CountsAnOldTerm = "d1_counts_an_old_term", "core", "counting commits an entry of an earlier term";
    D2ResentEntriesTruncate = "d2_resent_entries_truncate", "core", "a follower truncates before it appends, also what matches";
    D5CommitsWhatWasNotVerified = "d5_commits_what_was_not_verified", "core", "a follower commits up to the end of its log, whoever wrote it";
    D7ReadSkipsWhatDoesNotFit = "d7_read_skips_what_does_not_fit", "storage", "a read of limited size leaves out what does not fit and goes on";
    D8PrevTermIsNotCompared = "d8_prev_term_is_not_compared", "core", "a follower looks for an entry at the previous index and not at its term";
    D10TruncationLeavesWriteMarks = "d10_truncation_leaves_write_marks", "core", "truncation leaves the marks of writes under way";
    D10TruncationLeavesStableMark = "d10_truncation_leaves_stable_mark", "core", "truncation leaves the stable mark";
    D10CompletionWithoutItsSequence = "d10_completion_without_its_sequence", "core", "the completion of one write vouches for every write under way";
    D11ProbeConfirms = "d11_probe_confirms", "core", "the answer to a probe counts as an acknowledgement of durable entries";
    D12ProbeStaysInPlace = "d12_probe_stays_in_place", "core", "a rejected probe is sent again for the same index";
    D14QuorumOfUnsorted = "d14_quorum_of_unsorted", "core", "the commit index comes from match indexes that were not sorted";
    D19BlockEndsWithoutAProbe = "d19_block_ends_without_a_probe", "core", "a replicator that was blocked is not woken when the block ends";
    D19ReadWakesNobody = "d19_read_wakes_nobody", "core", "a replicator that waits for a log read is not woken by it";
    D23ClosuresOutliveLeadership = "d23_closures_outlive_leadership", "ringraft", "tasks of a leader that steps down are completed by whatever commits at their index";
    D25StepDownCutsTheLog = "d25_step_down_cuts_the_log", "core", "a leader that steps down drops what it has not committed";
    D26ConflictIsKept = "d26_conflict_is_kept", "core", "a follower keeps its entry where the leader's has another term";
    D27LeaderCountsItselfEarly = "d27_leader_counts_itself_early", "core", "a leader counts itself for what it has not made durable";
    D28TruncationLeavesConfigurations = "d28_truncation_leaves_configurations", "storage", "truncating the stored log leaves its configuration entries";
    D28RecoveryForgetsTruncations = "d28_recovery_forgets_truncations", "storage", "recovery does not replay truncations";
    E7FilesAreFreedTooEarly = "e7_files_are_freed_too_early", "storage", "a log file is freed while a checkpoint still needs it";
    F1NoEntryOfTheOwnTerm = "f1_no_entry_of_the_own_term", "core", "a new leader appends nothing of its own";
    F5MajorityIsOneShort = "f5_majority_is_one_short", "core", "half of the voters, rounded down, are a majority";
    F1ReadBeforeTheOwnTerm = "f1_read_before_the_own_term", "core", "a new leader lets reads pass before an entry of its own is committed";
    F6ReadDoesNotWaitForApply = "f6_read_does_not_wait_for_apply", "core", "a read that is confirmed does not wait for the state machine";
    F6FollowerAsksNobody = "f6_follower_asks_nobody", "core", "a follower answers reads by its own commit index";
    F7AnswersWithoutLeading = "f7_answers_without_leading", "core", "who leads no more answers the questions of followers all the same";
    F7ReadOfABatchIsLost = "f7_read_of_a_batch_is_lost", "core", "of reads that wait for the same quorum those that came later are lost";
    F7ReadsOutliveLeadership = "f7_reads_outlive_leadership", "core", "reads that wait for a quorum when leadership is lost are answered by the next one";
    F7ReadWithoutAQuorum = "f7_read_without_a_quorum", "core", "a leader lets reads pass because it believes to lead";
    F8ReadCountsTheNewHalfOnly = "f8_read_counts_the_new_half_only", "core", "while joint, reads ask the new half only";
    F8LeaseOfTheNewHalf = "f8_lease_of_the_new_half", "core", "while joint, the promises of the new half alone make a lease";
    F7UnreachablePeerIsAskedAtOnce = "f7_unreachable_peer_is_asked_at_once", "core", "a peer that refuses heartbeats is asked again at once while reads wait";
    F9EarlierAnswersCount = "f9_earlier_answers_count", "core", "answers to what was sent before a read came confirm it";
    G2TransferBeforeTheLogIsComplete = "g2_transfer_before_the_log_is_complete", "core", "the new leader is ordered to campaign before it has the whole log";
    G2ChangeDuringTransfer = "g2_change_during_transfer", "core", "members are changed while leadership is handed over";
    G3StaleOrderIsObeyed = "g3_stale_order_is_obeyed", "core", "an order to campaign is obeyed whoever gave it, in whatever term";
    G3EndedTransferTellsNobody = "g3_ended_transfer_tells_nobody", "core", "who asked for a transfer is not told when leadership is lost";
    H1SyncErrorIsIgnored = "h1_sync_error_is_ignored", "storage", "an error of fdatasync is ignored";
    H1RecoveryTrustsThePageCache = "h1_recovery_trusts_the_page_cache", "storage", "recovery counts what it reads as durable";
    H2FailedWriteIsAcknowledged = "h2_failed_write_is_acknowledged", "ringraft", "what waited for a write leaves also when the write has failed";
    H3NewFileWithoutDirectorySync = "h3_new_file_without_directory_sync", "storage", "the directory is not synced after a new file has its name";
    H3NewFileIsNotSynced = "h3_new_file_is_not_synced", "storage", "a new file has its name before its header is durable";
    H3CheckpointIsNotSynced = "h3_checkpoint_is_not_synced", "storage", "a checkpoint counts before it is durable";
    H4NothingIsSynced = "h4_nothing_is_synced", "storage", "a write is complete without fdatasync";
    H5AnswersLeaveBesideTheWrite = "h5_answers_leave_beside_the_write", "ringraft", "answers that must wait for the disk do not";
    H5RequestsLeaveBesideTheWrite = "h5_requests_leave_beside_the_write", "ringraft", "requests that must wait for the disk do not";
    H5UnstableEntriesAreApplied = "h5_unstable_entries_are_applied", "core", "committed entries are applied before they are durable here";
    H6AcknowledgedBeforeDurable = "h6_acknowledged_before_durable", "core", "a follower acknowledges entries before they are durable";
    H6ResentEntriesAcknowledgedEarly = "h6_resent_entries_acknowledged_early", "core", "entries that came before are acknowledged though their write is under way";
    H6OnlyTheLastFileIsSynced = "h6_only_the_last_file_is_synced", "storage", "of a batch in several files only the last is synced";
    H8BatchVouchesForItself = "h8_batch_vouches_for_itself", "storage", "a batch counts itself among those known as durable";
    H8BatchesShareABlock = "h8_batches_share_a_block", "storage", "a batch begins in a block that holds the end of an acknowledged one";
    H8VouchedDamagePassesForTorn = "h8_vouched_damage_passes_for_torn", "storage", "recovery cuts off as torn what a later header calls durable";
    H9WriteErrorIsIgnored = "h9_write_error_is_ignored", "storage", "an error of the write, such as a full disk, is ignored";
    H10RejoiningPeerCounts = "h10_rejoining_peer_counts", "core", "a peer that has lost its disk counts in quorums before it has caught up";
    H10WhoCountsAgainIsNotCounted = "h10_who_counts_again_is_not_counted", "core", "a leader does not count anew when a member that had lost its disk counts again";
    H10RejoiningPeerVotes = "h10_rejoining_peer_votes", "core", "a node that has lost its disk votes and campaigns at once";
    H15StalledLeaderStays = "h15_stalled_leader_stays", "core", "a leader whose disk takes no writes goes on leading";
    I2UnknownIsToldAsRefusal = "i2_unknown_is_told_as_refusal", "ringraft", "a task whose outcome is open is refused for certain";
    J1BatchIsWrittenBackwards = "j1_batch_is_written_backwards", "ringraft", "the disk stage merges writes in the wrong order";
    J1VoteOvertakesItsGroup = "j1_vote_overtakes_its_group", "ringraft", "a vote is written before entries that its group accepted earlier";
    J2AnswerIsNotCompared = "j2_answer_is_not_compared", "ringraft", "votes and acknowledgements count whatever life of the group they are of";
    J2CreationIsNotCompared = "j2_creation_is_not_compared", "ringraft", "requests of an earlier life of a group are handed to the life that has its name now";
    K3WindowIsNeverGivenBack = "k3_window_is_never_given_back", "core", "answered requests stay in the count of bytes in flight";
    K3QuotaIsNeverGivenBack = "k3_quota_is_never_given_back", "core", "durable entries stay in the count of bytes that wait for the disk";
    K3AppliedBytesStay = "k3_applied_bytes_stay", "core", "applied entries stay in the count of bytes that wait to be applied";
    K3HeldEntriesStay = "k3_held_entries_stay", "ringraft", "committed entries that were held back for a full worker are not handed on when it has room";
    K3RoomIsCountedForTheLane = "k3_room_is_counted_for_the_lane", "ringraft", "one full worker holds back the tasks of every group of the lane";
    K3ControlWaitsBehindBulk = "k3_control_waits_behind_bulk", "ringraft", "votes, heartbeats and answers wait behind tasks and entries for room downstream";
    K3BacklogIsForgotten = "k3_backlog_is_forgotten", "ringraft", "of tasks over the share of a turn only one more turn is served";
    K6ProgressIsToldOnce = "k6_progress_is_told_once", "ringraft", "a group that has reported progress once is not listed again";
    K7HigherTermAnswerIsIgnored = "k7_higher_term_answer_is_ignored", "core", "a leader ignores answers of a higher term";
}

impl Mutant {
    /// One that is found within a few seeds; if it is not, the simulator is broken.
    pub const CANARY: Mutant = Mutant::A1VoteAnsweredBeforeDurable;

    /// The mutant of this name.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// The entry of the catalogue, such as `A10`.
    pub fn entry(self) -> String {
        let entry = self.name().split('_').next().unwrap_or_default();
        entry.to_uppercase()
    }

    /// Whether any bug is put back in this process: never in this build.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub(crate) const fn any_is_active() -> bool {
        false
    }

    /// Whether any bug is put back in this process. Assertions are off then, for the simulator is to find the bug by what it does.
    #[cfg(feature = "mutants")]
    pub(crate) fn any_is_active() -> bool {
        CHOSEN.load(std::sync::atomic::Ordering::Relaxed) != NONE
    }

    /// Whether the code is to do the wrong thing: never in this build.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub const fn is_active(self) -> bool {
        false
    }

    /// Whether the code is to do the wrong thing.
    #[cfg(feature = "mutants")]
    #[inline]
    pub fn is_active(self) -> bool {
        CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == self as u16
    }
}

#[cfg(feature = "mutants")]
const NONE: u16 = u16::MAX;

/// The active mutant of the process.
#[cfg(feature = "mutants")]
static CHOSEN: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(NONE);

/// Activates a mutant, or none, for the whole process. Choose while nothing runs.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.store(mutant.map_or(NONE, |mutant| mutant as u16), std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(*mutant), "{mutant:?}");
            assert!(["core", "storage", "ringraft"].contains(&mutant.room()), "{mutant:?}");
            let entry = mutant.entry();
            let (letter, number) = entry.split_at(1);
            assert!(letter.as_bytes()[0].is_ascii_uppercase() && number.parse::<u8>().is_ok(), "{entry}");
        }
        assert_eq!(Mutant::named("none"), None);
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn a_normal_build_has_none() {
        const { assert!(!Mutant::CANARY.is_active()) };
        assert!(!Mutant::ALL.iter().any(|mutant| mutant.is_active()));
    }
}
