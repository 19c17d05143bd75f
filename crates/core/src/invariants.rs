//! What every step of a node keeps: named predicates over the moment before, the effects, and the moment after.
//!
//! They say in one place what the handlers bring about together. Where assertions are compiled in, which is in every test, golden
//! script and simulation, each step is held against all of them; they allocate nothing. They are silent while a known bug is put
//! back, for then the simulator is to find it from outside, by what the node does.

use crate::effects::{Effects, LogOp};
use crate::message::{RaftRequest, RaftResponse};
use crate::mutants::Mutant;
use crate::node::NodeState;
use crate::peer::PeerId;
use crate::stage::Stage;
use crate::types::{LogId, LogIndex, Term};
use crate::vote::Vote;

/// What the invariants see of a node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) own: PeerId,
    pub(crate) state: NodeState,
    pub(crate) term: Term,
    pub(crate) vote: Vote,
    /// It has lost its disk and not caught up since.
    pub(crate) rejoining: bool,
    /// The committed configuration that no longer names it, as far as it knows; 0/0 for none.
    pub(crate) removed: LogId,
    /// Whether term and vote are durable.
    pub(crate) hard_state_is_durable: bool,
    /// Whether the longest promise that it gave is durable.
    pub(crate) promise_is_durable: bool,
    pub(crate) last: LogId,
    pub(crate) stable: LogIndex,
    pub(crate) committed: LogIndex,
    /// Term of the last committed entry, when the log knows it.
    pub(crate) committed_term: Option<Term>,
    pub(crate) delivered: LogIndex,
    pub(crate) applied: LogIndex,
    /// First entry of the own term, on a leader.
    pub(crate) term_start: Option<LogIndex>,
    pub(crate) stage: Stage,
    /// Configuration entries that a leader has logged after its first entry, and that are not committed.
    pub(crate) open_configurations: usize,
}

impl Moment {
    fn leads(&self) -> bool {
        self.term_start.is_some()
    }
}

/// One step of a node.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) before: &'a Moment,
    pub(crate) fx: &'a Effects,
    pub(crate) after: &'a Moment,
}

/// An invariant: its name, and whether a step keeps it.
type Invariant = (&'static str, fn(Step<'_>) -> bool);

/// Every invariant.
const INVARIANTS: &[Invariant] = &[
    ("the term never falls", term_never_falls),
    ("a vote is given once a term", vote_is_given_once),
    ("a lost disk withholds the vote", lost_disk_withholds_the_vote),
    ("a candidate has its own vote", candidate_has_its_own_vote),
    ("a candidacy has a term of its own", candidacy_has_its_own_term),
    ("only a candidate wins", only_a_candidate_wins),
    ("no entry is of a later term", no_entry_of_a_later_term),
    ("the commit index never falls", commit_never_falls),
    ("only what the log holds is committed", only_what_the_log_holds_is_committed),
    ("a leader commits by its own term", leader_commits_by_its_own_term),
    ("committed entries are never truncated", committed_entries_stay),
    ("applied, delivered, durable and committed are in order", marks_are_in_order),
    ("only a leader sends entries", only_a_leader_sends_entries),
    ("a vote is asked for when it is durable", votes_are_asked_for_when_durable),
    ("no answer speaks for a term that can be forgotten", answers_speak_for_durable_terms),
    ("no promise is given that can be forgotten", promises_are_durable),
    ("entries are acknowledged when they are durable", entries_are_acknowledged_when_durable),
    ("one change of the members at a time", one_change_at_a_time),
    ("a removal is known when it is written", removal_is_written),
    ("who knows of its removal does not campaign", the_removed_are_silent),
    ("who takes no part does nothing", who_takes_no_part_does_nothing),
];

/// The first invariant that the step breaks.
fn broken(step: Step<'_>) -> Option<&'static str> {
    INVARIANTS.iter().find(|(_, holds)| !holds(step)).map(|(name, _)| *name)
}

/// Holds a step against every invariant, unless a known bug is put back.
///
/// # Panics
/// When one is broken.
#[track_caller]
pub(crate) fn check(step: Step<'_>) {
    if Mutant::any_is_active() {
        return;
    }
    if let Some(name) = broken(step) {
        panic!("{name}: broken from {:?} to {:?} by {:?}", step.before, step.after, step.fx);
    }
}

// --- term and vote ---

/// Who goes back to an earlier term votes and leads in it a second time (Raft §5.1).
fn term_never_falls(step: Step<'_>) -> bool {
    step.after.term >= step.before.term
}

/// Within a term the vote goes from "not given" to a candidate and stays there; two votes can elect two leaders (Raft §5.2). A
/// withheld vote becomes that of the leader which has brought the node back.
fn vote_is_given_once(step: Step<'_>) -> bool {
    let Step { before, after, .. } = step;
    let returns = before.rejoining && !after.rejoining && after.vote.candidate().is_some();
    after.term != before.term
        || after.vote == before.vote
        || before.vote == Vote::None
        || before.vote == Vote::Withheld && returns
}

/// What a node with a lost disk voted nobody knows, so that it votes for nobody in any term until it has caught up.
fn lost_disk_withholds_the_vote(step: Step<'_>) -> bool {
    step.after.rejoining == (step.after.vote == Vote::Withheld)
}

/// A candidate's vote is its own, or somebody else could win its term with it.
fn candidate_has_its_own_vote(step: Step<'_>) -> bool {
    step.after.state != NodeState::Candidate || step.after.vote.candidate() == Some(&step.after.own)
}

/// Whoever begins to campaign does so in a new term: in the old one it may have voted (Raft §5.2).
fn candidacy_has_its_own_term(step: Step<'_>) -> bool {
    let begins = step.after.state == NodeState::Candidate && step.before.state != NodeState::Candidate;
    !begins || step.after.term > step.before.term
}

/// Leadership is won by a candidate, in the term of its candidacy, and by nobody else.
fn only_a_candidate_wins(step: Step<'_>) -> bool {
    let Step { before, after, .. } = step;
    let led = before.leads() && before.term == after.term;
    let won = before.state == NodeState::Candidate && before.term == after.term;
    !after.leads() || led || won
}

// --- log ---

/// A leader creates entries in its own term, and whoever takes them in is in that term by then.
fn no_entry_of_a_later_term(step: Step<'_>) -> bool {
    step.after.last.term <= step.after.term
}

/// What is committed stays so (Raft §5.4.3).
fn commit_never_falls(step: Step<'_>) -> bool {
    step.after.committed >= step.before.committed
}

/// A commit index behind the end of the log would commit entries that nobody has compared.
fn only_what_the_log_holds_is_committed(step: Step<'_>) -> bool {
    step.after.committed <= step.after.last.index
}

/// A leader commits by counting nothing that ends in an earlier term (Raft §5.4.2, figure 8).
fn leader_commits_by_its_own_term(step: Step<'_>) -> bool {
    let Step { before, after, .. } = step;
    let counted = after.leads() && before.leads() && after.committed > before.committed;
    !counted || after.committed_term == Some(after.term)
}

/// Whoever gives up committed entries has lost what was acknowledged.
fn committed_entries_stay(step: Step<'_>) -> bool {
    let stays = |op: &LogOp| !matches!(op, LogOp::TruncateSuffix { from } if *from <= step.before.committed);
    step.fx.log.iter().all(stays)
}

/// The state machine gets what is committed and durable here, and has applied no more than it got; durable is only what the log
/// holds. Otherwise a crash leaves a state machine ahead of its log.
fn marks_are_in_order(step: Step<'_>) -> bool {
    let Step { before, after, .. } = step;
    after.applied <= after.delivered
        && after.delivered >= before.delivered
        && after.delivered <= after.committed
        && after.delivered <= after.stable
        && after.stable <= after.last.index
}

// --- messages ---

/// Entries, heartbeats and orders to campaign come from the leader of their term, at one end of the step at least.
fn only_a_leader_sends_entries(step: Step<'_>) -> bool {
    let leads = |term: Term| [step.before, step.after].iter().any(|m| m.leads() && m.term == term);
    step.fx.sends.iter().all(|send| match &send.request {
        RaftRequest::AppendEntries(request) => leads(request.term),
        RaftRequest::TimeoutNow(request) => leads(request.term),
        RaftRequest::RequestVote(_) | RaftRequest::ReadIndex(_) => true,
    })
}

/// A request for votes is a candidate's, in its term, and leaves after the vote that it gave itself (Raft figure 2).
fn votes_are_asked_for_when_durable(step: Step<'_>) -> bool {
    let own = Some(&step.after.own);
    step.fx.sends.iter().all(|send| match &send.request {
        RaftRequest::RequestVote(request) if !request.pre_vote => {
            let voted = request.term == step.after.term && step.after.vote.candidate() == own;
            voted && (send.after_durable || step.after.hard_state_is_durable)
        }
        _ => true,
    })
}

/// Term and vote are durable before an answer tells of them; forgotten, they could be given again.
fn answers_speak_for_durable_terms(step: Step<'_>) -> bool {
    let forgettable = !step.after.hard_state_is_durable;
    let tells = |response: &RaftResponse| response.term().is_some();
    step.fx.replies.iter().all(|reply| reply.after_durable || !(forgettable && tells(&reply.response)))
}

/// The longest promise is durable before an answer gives any; forgotten, it would bind nobody, and a leader relies on it (thesis §6.4.1).
fn promises_are_durable(step: Step<'_>) -> bool {
    let forgettable = !step.after.promise_is_durable;
    step.fx.replies.iter().all(|reply| match &reply.response {
        RaftResponse::AppendEntries(response) if response.promised > 0 => reply.after_durable || !forgettable,
        _ => true,
    })
}

/// An acknowledgement of entries that this very step writes leaves after the write. Only acknowledgements of entries are a success
/// without an index.
fn entries_are_acknowledged_when_durable(step: Step<'_>) -> bool {
    let appends = step.fx.log.iter().any(|op| matches!(op, LogOp::Append(_)));
    step.fx.replies.iter().all(|reply| match &reply.response {
        RaftResponse::AppendEntries(r) if r.success && r.last_log_index.is_none() => {
            reply.after_durable || !appends
        }
        _ => true,
    })
}

// --- members ---

/// A leader logs a configuration when the one before is committed, and begins a change when none is under way: majorities of
/// configurations that are further apart need not meet (Raft §6).
fn one_change_at_a_time(step: Step<'_>) -> bool {
    let Step { before, after, .. } = step;
    let begins = after.stage == Stage::CatchingUp && before.stage != Stage::CatchingUp;
    after.open_configurations <= 1 && (!begins || before.stage == Stage::None)
}

/// What a node knows of its removal goes to the disk in the step in which it learns of it: after a restart nobody tells it again.
fn removal_is_written(step: Step<'_>) -> bool {
    let written = step.fx.log.iter().rev().find_map(|op| match op {
        LogOp::MemberRemoved { at } => Some(*at),
        _ => None,
    });
    match written {
        Some(at) => at == step.after.removed,
        None => step.before.removed == step.after.removed,
    }
}

/// Who knows that it was removed begins no campaign and asks for no votes: they could only disturb those that removed it.
fn the_removed_are_silent(step: Step<'_>) -> bool {
    let Step { before, after, fx } = step;
    let removed = before.removed.index > 0 && after.removed.index > 0;
    let campaigns = after.state == NodeState::Candidate && before.state != NodeState::Candidate;
    let asks = fx.sends.iter().any(|send| matches!(send.request, RaftRequest::RequestVote(_)));
    !removed || !campaigns && !asks
}

// --- life ---

/// A node that has failed or ended writes nothing and sends nothing.
fn who_takes_no_part_does_nothing(step: Step<'_>) -> bool {
    let ended = matches!(step.before.state, NodeState::Error | NodeState::Shutdown);
    !ended || step.fx.log.is_empty() && step.fx.sends.is_empty()
}

#[cfg(test)]
mod tests;
