//! Who may campaign, who gets a vote, and what a vote is good for (Raft §5.2, §5.4.1; thesis §9.6).

use crate::effects::{HardState, Ticket};
use crate::log_manager::LogManager;
use crate::mutants::Mutant;
use crate::peer::{ConfigurationEntry, PeerId};
use crate::types::{LogId, LogIndex, Term, Time};
use crate::vote::Vote;

// --- term and vote ---

/// Term and vote that a node starts with, from what its disk holds and the last entry of its log.
///
/// Term and vote never go back, also over a restart: a node that votes twice in a term can elect two leaders. A term below the
/// last entry's says that a record of the vote was lost (braft a171a95); what was voted in that entry's term nobody knows, so
/// the node goes on in the next one. A withheld vote stays withheld.
pub(crate) fn resumed(recovered: HardState, last: LogId) -> HardState {
    let mut state = recovered;
    if state.term < last.term {
        state = HardState { term: last.term + 1, vote: fresh_vote(state.vote == Vote::Withheld) };
    }
    if Mutant::A8TermIsThatOfTheLastEntry.is_active() {
        state = HardState { term: last.term, vote: Vote::None };
    }
    if Mutant::A20VoteIsForgottenAtRestart.is_active() {
        state.vote = Vote::None;
    }
    state
}

/// The vote of a node that enters a new term: not given yet, or withheld while it has lost its disk.
///
/// A vote is of one term (Raft §5.2). Carried over, it would refuse candidates of the new term and could count for the wrong
/// one.
pub(crate) fn vote_of_new_term(old: &Vote, lost_its_disk: bool) -> Vote {
    if Mutant::A4VoteSurvivesItsTerm.is_active() {
        return old.clone();
    }
    fresh_vote(lost_its_disk)
}

fn fresh_vote(lost_its_disk: bool) -> Vote {
    if lost_its_disk { Vote::Withheld } else { Vote::None }
}

/// A leader's message leaves the vote of its term alone.
///
/// The vote is given once a term, and the leader of a term was elected by it. A vote that is forgotten on hearing of the leader
/// could be given again, to a late candidate of the same term.
pub(crate) fn leave_vote_alone(vote: &mut Vote) {
    if Mutant::A6AppendErasesTheVote.is_active() {
        *vote = Vote::None;
    }
}

/// Whether a member that may have lost its disk takes part in elections at all.
///
/// It does not until it has caught up: it may have voted, and acknowledged entries, without knowing
/// (`docs/decisions/0008-a-lost-disk.md`).
pub(crate) fn takes_part(lost_its_disk: bool) -> bool {
    !lost_its_disk || Mutant::H10RejoiningPeerVotes.is_active()
}

// --- campaigning ---

/// Whether `own` may campaign: it votes by a configuration that may be in force for others, and does not know that it is
/// `removed`.
///
/// A configuration that excludes it and is not known to be committed may have reached nobody else, and then nobody could be
/// elected without it (thesis §4.2.2). Once its removal is committed it is silent: its campaigns could only disturb.
pub(crate) fn may_campaign(
    lost_its_disk: bool,
    removed: bool,
    own: &PeerId,
    log: &LogManager,
    committed: LogIndex,
) -> bool {
    let takes_part = takes_part(lost_its_disk);
    if Mutant::B15ExcludedMemberGivesUp.is_active() {
        return takes_part && !removed && log.configuration().is_voter(own);
    }
    if Mutant::B15RemovedMemberCampaigns.is_active() && log.last_id().index > 0 {
        return takes_part;
    }
    takes_part && !removed && log.may_decide(own, committed)
}

/// Whether a node goes on asking for pre-votes each election time-out; `leader` is the one that it followed when the time-out
/// came.
///
/// It always does. Pre-votes are lost and refused, and whoever asks once waits for ever if everybody else does so, too.
pub(crate) fn asks_again(leader: Option<&PeerId>) -> bool {
    leader.is_some() || !Mutant::B3PreVoteAsksOnce.is_active()
}

/// Whether a round of pre-votes is over as soon as it begins: the own pre-vote is a majority.
///
/// Nobody raises a term without a majority that would vote for it (thesis §9.6). A member that has been removed and campaigns
/// all the same would depose leaders for ever.
pub(crate) fn wins_alone(alone: bool, own: &PeerId, log: &LogManager, committed: LogIndex) -> bool {
    alone || Mutant::B15RemovedMemberCampaigns.is_active() && !log.may_decide(own, committed)
}

/// Who is asked for votes: the voters of both halves of the configuration, never a learner.
///
/// Learners count in no majority (thesis §4.2.1); their grants would elect leaders that the voters refused.
pub(crate) fn asked_for_votes(conf: &ConfigurationEntry) -> impl Iterator<Item = &PeerId> {
    let learners = conf.learners().filter(|_| Mutant::C10LearnersVote.is_active());
    conf.voters().chain(learners)
}

/// Whether a request for votes waits for the disk.
///
/// Rule P2: a candidate's own vote and term are durable before anybody hears of its candidacy (Raft figure 2): restarted in between it
/// could vote for another in the same term. A pre-vote promises nothing and waits for nothing.
pub(crate) fn vote_request_waits(pre_vote: bool) -> bool {
    !pre_vote && !Mutant::A2VoteRequestedBeforeDurable.is_active()
}

/// Whether an answer belongs to the round of votes that began with ticket `round`.
///
/// Grants of earlier rounds count for nothing (little-raft#44): their voters may have promised this term to somebody else since.
pub(crate) fn is_of_round(ticket: Ticket, round: Ticket) -> bool {
    ticket >= round || Mutant::A11GrantOfAnEarlierRound.is_active()
}

/// Whether an answer is a grant: only when it says so. That it carries the candidate's own term is none.
pub(crate) fn is_grant(granted: bool) -> bool {
    granted || Mutant::A7RefusalCountsAsGrant.is_active()
}

/// Whether a node that asks for pre-votes looks at an answer of this term.
///
/// It looks at all of them: voters of other terms grant pre-votes, too, and a higher term is what the asker must learn. Who
/// drops them cannot be elected by voters that were in a later term once.
pub(crate) fn looks_at_pre_vote(answer: Term, own: Term) -> bool {
    answer == own || !Mutant::B1PreVotesOfOtherTermsAreDropped.is_active()
}

// --- voting ---

/// Whether a candidate's log is at least as new as the own one: the later last term wins, then the longer log (Raft §5.4.1).
///
/// Rule P3: the own log ends at the last *accepted* entry, durable or not, for what was accepted may count in a quorum already. Otherwise
/// a candidate could win that lacks committed entries. The terms come first: by length alone a log of stale entries beats a
/// committed one, and by both at once two members can refuse each other for ever.
pub(crate) fn is_up_to_date(candidate: LogId, log: &LogManager) -> bool {
    let mut own = log.last_id();
    if Mutant::A13VoterComparesStableIndex.is_active() {
        let stable = log.stable_index();
        own = LogId::new(stable, log.term_at(stable).unwrap_or(0));
    }
    if Mutant::A10LongerLogWins.is_active() {
        return candidate.index >= own.index;
    }
    if Mutant::A10LogsMustBeAheadInBoth.is_active() {
        return candidate.term >= own.term && candidate.index >= own.index;
    }
    candidate >= own
}

/// Whether a follower in the candidate's term gives it its vote (Raft §5.2, §5.4.1).
///
/// The vote of the term is free or the candidate's already, and the candidate has everything that may be committed. Two votes
/// of one member in a term can make two leaders; a vote for a shorter log can lose acknowledged writes. The empty peer gets
/// none: on disk its vote would read as one that is withheld.
///
/// Rule Q3: whether the own configuration names the candidate is not asked. It may be stale, and nobody else may be able to win.
pub(crate) fn may_grant_vote(vote: &Vote, candidate: &PeerId, log_is_up_to_date: bool) -> bool {
    let ignored = *vote == Vote::Withheld && takes_part(true);
    !candidate.is_empty()
        && (vote.is_open_to(candidate) || ignored)
        && (log_is_up_to_date || Mutant::A7LogsAreNotCompared.is_active())
}

/// Whether the answer to a request for votes waits for the disk.
///
/// Rule P2: a granted vote, and every entry accepted before it, is durable before the candidate hears of it: a voter that forgets either
/// can vote again in that term, or for somebody who lacks what it acknowledged.
pub(crate) fn vote_answer_waits(anything_unstable: bool) -> bool {
    anything_unstable && !Mutant::A1VoteAnsweredBeforeDurable.is_active()
}

// --- leaders that live ---

/// When the leader was last heard of, on a message of it that arrives now: any message counts, with or without entries.
///
/// Otherwise followers campaign against a leader that lives.
pub(crate) fn heard_of_leader(before: Time, now: Time) -> Time {
    if Mutant::B4AppendIsNoSignOfLife.is_active() { before } else { now }
}

/// Whether a leader goes on leading, given whether a quorum has answered it within its lease.
///
/// Cut off from a quorum it commits nothing, and clients that reach it wait in vain while another may lead (thesis §6.2).
pub(crate) fn may_lead_on(quorum_answers: bool) -> bool {
    quorum_answers || Mutant::B7LeaderStaysWithoutAQuorum.is_active()
}

/// Whether a leader whose disk takes no writes steps down, given whether another could lead.
///
/// It makes nothing durable and goes on refusing clients that another leader would serve. Where nobody else could lead,
/// stepping down would help nobody.
pub(crate) fn leaves_to_another(disk_is_stalled: bool, another: impl FnOnce() -> bool) -> bool {
    disk_is_stalled && another() && !Mutant::H15StalledLeaderStays.is_active()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_vote_record_costs_the_term_and_frees_no_withheld_vote() {
        let last = LogId::new(7, 4);
        let state = |term, vote| HardState { term, vote };
        let voted = Vote::For("b:1".parse().unwrap());
        assert_eq!(resumed(state(4, voted.clone()), last), state(4, voted.clone()), "nothing is lost");
        assert_eq!(resumed(state(3, voted), last), state(5, Vote::None));
        assert_eq!(resumed(state(3, Vote::Withheld), last), state(5, Vote::Withheld));
    }

    #[test]
    fn the_empty_peer_gets_no_vote() {
        assert!(may_grant_vote(&Vote::None, &"a:1".parse().unwrap(), true));
        assert!(!may_grant_vote(&Vote::None, &PeerId::empty(), true), "on disk it would read as withheld");
    }
}
