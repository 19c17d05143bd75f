//! When a read may be answered without an entry in the log (thesis §6.4).

use crate::effects::{CallToken, Ticket};
use crate::message::{RaftResponse, ReadIndexResponse};
use crate::mutants::Mutant;
use crate::status::Status;
use crate::types::{LogIndex, Time};

// --- read index ---

/// The index that the state machine must have reached before a leader's read is answered; `first` is the first entry of its
/// term.
///
/// What earlier leaders committed is known for certain only with an entry of the own term (thesis §6.4, step 1): a new leader's
/// commit index may be behind what was acknowledged already.
pub(crate) fn read_index(committed: LogIndex, first: LogIndex) -> LogIndex {
    if Mutant::F1ReadBeforeTheOwnTerm.is_active() { committed } else { committed.max(first) }
}

/// Whether reads that came when ticket `after` was the newest may pass at once: a quorum has answered a later request already.
///
/// That a leader believes to lead is no proof: another may have been elected without it.
pub(crate) fn needs_no_round(acknowledged: Option<Ticket>, after: Ticket) -> bool {
    acknowledged > Some(after) || Mutant::F7ReadWithoutAQuorum.is_active()
}

/// Whether a quorum has answered what was sent *after* the reads came. Answers to what was sent before prove leadership before
/// the reads came, and another leader may have committed since.
pub(crate) fn round_is_confirmed(acknowledged: Option<Ticket>, after: Ticket) -> bool {
    acknowledged > Some(after) || Mutant::F9EarlierAnswersCount.is_active() && acknowledged.is_some()
}

/// Reads that came before anything else was sent join those that wait already: all of them, for each is answered once.
pub(crate) fn join_round(waiting: &mut Vec<CallToken>, more: Vec<CallToken>) {
    if !Mutant::F7ReadOfABatchIsLost.is_active() {
        waiting.extend(more);
    }
}

/// Whether a voter is asked for an answer at once, given whether a question to it is under way and whether the last could not
/// be delivered. One that cannot be reached is left to its next regular heartbeat: asked again at once, it would be asked as
/// fast as the network can refuse.
pub(crate) fn may_ask_at_once(under_way: bool, undeliverable: bool) -> bool {
    let waits = undeliverable && !Mutant::F7UnreachablePeerIsAskedAtOnce.is_active();
    !under_way && !waits
}

/// Whether reads that wait for a quorum end when leadership does: they do, and their callers are told.
///
/// A later leadership of the same node confirms only itself. In between others may have committed what those reads must see.
pub(crate) fn rounds_end_with_leadership() -> bool {
    !Mutant::F7ReadsOutliveLeadership.is_active()
}

/// Confirmed reads are answered by a state machine that has been given everything up to this index: `delivered`.
pub(crate) fn answerable_index(delivered: LogIndex) -> LogIndex {
    if Mutant::F6ReadDoesNotWaitForApply.is_active() { u64::MAX } else { delivered }
}

/// The index by which a follower may answer a read without asking its leader: none.
///
/// Its commit index is always behind the leader's.
pub(crate) fn index_without_asking(committed: LogIndex) -> Option<LogIndex> {
    Mutant::F6FollowerAsksNobody.is_active().then_some(committed)
}

/// What a node that does not lead says to a follower that asks: that it does not lead.
///
/// Its commit index may be that of a leader which was deposed long ago.
pub(crate) fn answer_of_non_leader(not_leader: Status, committed: LogIndex) -> RaftResponse {
    match Mutant::F7AnswersWithoutLeading.is_active() {
        true => RaftResponse::ReadIndex(ReadIndexResponse { index: committed }),
        false => RaftResponse::Error(not_leader),
    }
}

// --- leases ---

/// From when on an answer proves that its sender was there: from when the request was *sent*.
///
/// The peer's promise begins when it hears of the leader, which may be any time after that (thesis §6.4.1). Counted from when
/// the answer came, a lease outlives the promises.
pub(crate) fn contact_counts_from(sent: Time, received: Time) -> Time {
    if Mutant::B7LeaseFromReceipt.is_active() { received } else { sent }
}

/// Whether a leader may rely on a lease in this term: not while it hands leadership over, and not afterwards either.
///
/// The order to campaign frees voters of their promise. One that is delayed may do so at any time until the term is over
/// (raft-rs#234).
pub(crate) fn may_rely_on_lease(transferring: bool, was_given_away: bool) -> bool {
    if transferring {
        return Mutant::B13LeaseDuringTransfer.is_active();
    }
    !was_given_away || Mutant::B12LeaseOutlivesTransfer.is_active()
}

/// The lease that one voter's promise is good for, from the leader's own lease and the share of the promise that it may use;
/// both in one unit, 0 for none.
///
/// A voter promises by its own election time-out, which may be shorter than the leader's: a lease that outlives the promise
/// reads while another leader commits.
pub(crate) fn lease_by_promise(own: u64, promised: u64) -> u64 {
    if promised > 0 && Mutant::B10PromiseIsNotCompared.is_active() { own } else { own.min(promised) }
}

/// Whether the lease still runs, when a quorum has promised to elect nobody else until `promised` at least. Without a quorum's
/// promise there is none.
pub(crate) fn lease_runs(promised: Option<Time>, now: Time) -> bool {
    promised.is_some_and(|until| now < until) || Mutant::B7LeaseUntilStepDown.is_active()
}

/// For how long a voter is bound after its start, where `written` is the longest promise that its disk knows of and `own` the
/// one that it gives now; both in milliseconds, 0 for none.
///
/// The leader goes on relying on what the voter promised before, whatever options it is started with now. `own` stands for
/// promises of earlier programs, which wrote none down.
pub(crate) fn bound_after_start(written: u64, own: u64) -> u64 {
    if Mutant::B10RestartForgetsThePromise.is_active() {
        return 0;
    }
    if Mutant::B10WrittenPromiseIsForgotten.is_active() { own } else { own.max(written) }
}

/// Whether an answer that promises `promised` milliseconds waits for the disk: `unstable` says that the longest promise is not durable yet.
///
/// A promise that is forgotten binds nobody, while a leader relies on it.
pub(crate) fn promise_waits_for_disk(promised: u64, unstable: bool) -> bool {
    promised > 0 && unstable && !Mutant::B10PromiseLeavesBeforeDurable.is_active()
}

/// Until when a voter helps no candidate, and is none: after its start and after a leader's message, the later of both.
///
/// A voter that helps a candidate before ends a lease that its leader relies on.
pub(crate) fn promise_ends(after_start: Time, after_leader: Option<Time>) -> Time {
    let end = after_leader.map_or(after_start, |end| end.max(after_start));
    if Mutant::B10NoPromise.is_active() { Time::default() } else { end }
}
