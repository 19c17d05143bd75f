//! Changing members by joint consensus (Raft §6; Ongaro, raft-dev 2015).

use crate::effects::CallToken;
use crate::log_manager::LogManager;
use crate::mutants::Mutant;
use crate::peer::{Configuration, ConfigurationEntry, PeerId};
use crate::stage::Stage;
use crate::types::{LogId, LogIndex, Term, Time};

/// Whether a change must wait because leadership is handed over: nothing new is logged meanwhile, or the new leader, which was
/// chosen because it has the whole log, would lack it.
pub(crate) fn waits_for_transfer(transferring: bool) -> bool {
    transferring && !Mutant::G2ChangeDuringTransfer.is_active()
}

/// Whether a change must wait for the one that is under way, be it that of an earlier leader.
///
/// Two changes at once are configurations of which majorities need not meet.
pub(crate) fn waits_for_change(under_way: bool) -> bool {
    under_way && !Mutant::C3SecondChangeBeforeTheFirstIsOver.is_active()
}

/// Whether a leader knows the configuration that it would change: an entry of its term is committed.
///
/// Before that a configuration of another leader, which it has never seen, may still be in force (Ongaro, raft-dev 2015).
pub(crate) fn knows_configuration(committed: LogIndex, first: LogIndex) -> bool {
    committed >= first || Mutant::C1ChangeBeforeTheOwnTerm.is_active()
}

/// Whether new voters get their votes, given whether all of them are near the end of the log now.
///
/// A voter that lags helps no quorum: added early, it can stop the group from committing anything (thesis §4.2.1).
pub(crate) fn may_vote(caught_up: bool) -> bool {
    caught_up || Mutant::C24NobodyCatchesUp.is_active()
}

/// Whether two lists name the same peers, in whatever order and with whatever priorities.
pub(crate) fn same(a: &[PeerId], b: &[PeerId]) -> bool {
    a.len() == b.len() && a.iter().all(|peer| b.contains(peer))
}

/// Whether a change is done before it begins: the same voters with the same priorities, and the same learners.
///
/// Priorities alone are a change, too: one entry, without a joint configuration, for the majorities are the same. Members take
/// their priorities from the configuration in force, so that nothing else can change them in a group that runs.
pub(crate) fn changes_nothing(old: &Configuration, new: &Configuration) -> bool {
    let priorities = |peer: &PeerId| old.peers.iter().any(|o| o == peer && o.priority() == peer.priority());
    same(&old.peers, &new.peers) && new.peers.iter().all(priorities) && same(&old.learners, &new.learners)
}

/// Whether a change goes through a joint configuration: whenever the voters differ (Raft §6).
///
/// From one set of voters to another at once, both may elect a leader in the same term.
pub(crate) fn needs_joint(voters_differ: bool) -> bool {
    voters_differ && !Mutant::C3ChangeWithoutJoint.is_active()
}

/// Whether a leader may log the configuration that ends a joint one: when the joint one is committed.
///
/// Before that the old half may not know of the change, and may elect a leader by itself.
pub(crate) fn may_leave_joint(joint_is_committed: bool) -> bool {
    joint_is_committed || Mutant::C4JointIsLeftUncommitted.is_active()
}

/// Whether a leader leaves when its change is over: it does when it votes no more (Raft §6). A leader outside the configuration
/// leads a group whose members cannot count it.
pub(crate) fn must_leave(votes: bool) -> bool {
    !votes && !Mutant::C7RemovedLeaderStays.is_active()
}

/// Whether a new voter that lacks so many entries is nearer its vote than ever before, where it lacked `least` at best.
///
/// What it lacks can only so often be less than ever: who comes nearer arrives, and who does not is given up in the end.
pub(crate) fn comes_nearer(lacks: LogIndex, least: LogIndex) -> bool {
    lacks < least
}

/// Whether who asked for a change is told now that its entry, which should be committed by `deadline`, is not.
///
/// A call ends always. Where disks stand still nothing else ends this one: their members answer heartbeats, and the leader leads on.
pub(crate) fn waits_no_longer(deadline: Time, now: Time) -> bool {
    deadline <= now
}

/// Who is told that a change came to nothing, or may have: whoever asked for it.
pub(crate) fn told_of_change(asked: Option<CallToken>) -> Option<CallToken> {
    asked.filter(|_| !Mutant::C23AbandonedChangeTellsNobody.is_active())
}

/// How far the change is that a new leader finds in its log, and must finish, for nobody else will.
///
/// A joint configuration is to be left. A leader that does not vote was elected to finish its own removal.
pub(crate) fn inherited_stage(conf: &ConfigurationEntry, own: &PeerId) -> Stage {
    if Mutant::C4NewLeaderStaysJoint.is_active() {
        return Stage::None;
    }
    match (conf.is_joint(), conf.is_voter(own)) {
        (true, _) => Stage::Joint,
        (false, false) => Stage::Stable,
        (false, true) => Stage::None,
    }
}

// --- removed ---

/// The removal that a node starts with: what its disk says.
///
/// The commit index is not kept. Without the record everything looks uncommitted after a restart, the node takes itself for a
/// member again, asks for ever, and is elected to lead the group that removed it when the leader is lost (its log lacks nothing
/// as long as nothing was written since).
pub(crate) fn resumed_removal(recovered: LogId) -> LogId {
    if Mutant::B15RemovalIsForgottenAtRestart.is_active() { LogId::default() } else { recovered }
}

/// The removal of `own` that its log proves: a committed configuration that names it no more.
///
/// Only a committed one. One that is not may have reached nobody else, and then nobody could be elected without `own` (thesis
/// §4.2.2). Who was never named is not removed, but on its way in: it catches up before it gets its vote.
pub(crate) fn proven_removal(own: &PeerId, log: &LogManager, committed: LogIndex) -> Option<LogId> {
    let known = match Mutant::B15RemovalCountsUncommitted.is_active() {
        true => log.last_id().index,
        false => committed,
    };
    log.removal_of(own, known).filter(|_| log.ever_named(own))
}

/// Whether a member that was removed by entry `removed` is one again, by the configuration in force.
///
/// Only a newer one says so. An older one that names it is what the removal removed it from, or was never committed.
pub(crate) fn is_member_again(removed: LogId, own: &PeerId, conf: &ConfigurationEntry) -> bool {
    conf.names(own) && conf.id.index > removed.index && !Mutant::B15MemberAgainStaysRemoved.is_active()
}

/// What a leader tells a member that asks for pre-votes and goes by the configuration of entry `conf_index`: the committed
/// configuration that does not name it, when that is newer.
///
/// A member that was away while it was removed hears of it from nobody else, for nobody replicates to it, and would ask for
/// ever. One that is being added again, by whatever entry behind, is told nothing.
pub(crate) fn removal_to_tell(
    asker: &PeerId,
    conf_index: LogIndex,
    log: &LogManager,
    committed: LogIndex,
) -> Option<LogId> {
    log.removal_of(asker, committed).filter(|at| at.index > conf_index)
}

/// Whether a member believes that the configuration `told` has removed it, where it goes by `conf` and knows as committed
/// what is up to `committed`.
///
/// It does when that is newer than what it goes by, and of a term that whoever says so may know. Otherwise the answer is of
/// before the member was added again, or made up. Whoever believes wrongly is silent; it votes all the same, so that others can
/// be elected, and the next configuration that names it ends the silence.
pub(crate) fn may_believe_removal(
    told: LogId,
    teller: Term,
    conf: &ConfigurationEntry,
    committed: LogIndex,
) -> bool {
    told.index > conf.id.index.max(committed) && (1..=teller).contains(&told.term)
}
