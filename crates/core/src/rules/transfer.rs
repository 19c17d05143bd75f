//! Handing leadership over (thesis §3.10).

use crate::effects::CallToken;
use crate::mutants::Mutant;
use crate::types::LogIndex;

/// Whether the new leader is ordered to campaign: once it holds the whole log, durably.
///
/// Ordered earlier it may lose the election to a longer log, and the group has no leader for a time-out.
pub(crate) fn may_order(held: Option<LogIndex>, last: LogIndex) -> bool {
    held == Some(last) || Mutant::G2TransferBeforeTheLogIsComplete.is_active()
}

/// Whether a follower obeys an order to campaign, given whether it is of the present term and of the leader that it follows.
///
/// Orders come late and twice. A stale one would depose a leader that has handed nothing over.
pub(crate) fn may_obey(of_this_term: bool, of_own_leader: bool) -> bool {
    (of_this_term && of_own_leader) || Mutant::G3StaleOrderIsObeyed.is_active()
}

/// Whether a candidacy begins with pre-votes: all do but those that a leader has ordered.
///
/// Voters that hear of a leader refuse pre-votes, and at the time of the order everybody hears of one.
pub(crate) fn asks_for_pre_votes(ordered: bool) -> bool {
    !ordered || Mutant::B14TransferAsksForPreVotes.is_active()
}

/// Whether a request for votes says that the leader itself ordered the candidacy: where voters keep a promise to that leader,
/// it must, for only so they know that it holds no longer (thesis §6.4.1). Whether they do the candidate cannot know: it may be
/// the one whose options have leases switched off.
pub(crate) fn tells_of_order(ordered: bool) -> bool {
    ordered && !Mutant::B11NoTransferMark.is_active()
}

/// Who is told that a transfer is over with the leadership: whoever asked for it.
pub(crate) fn told_of_transfer(asked: CallToken) -> Option<CallToken> {
    (!Mutant::G3EndedTransferTellsNobody.is_active()).then_some(asked)
}
