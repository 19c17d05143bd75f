//! Changing members by joint consensus (Raft §6; Ongaro, raft-dev 2015).

use crate::effects::CallToken;
use crate::mutants::Mutant;
use crate::peer::{ConfigurationEntry, PeerId};
use crate::stage::Stage;
use crate::types::LogIndex;

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

/// The configurations that are left when the log is truncated from `from` on: those of the entries that stay.
///
/// A configuration is in force as soon as it is in the log, and no longer than that (Raft §6).
pub(crate) fn forget_truncated(configurations: &mut Vec<ConfigurationEntry>, from: LogIndex) {
    if Mutant::C15TruncationKeepsConfigurations.is_active() {
        let gone = configurations.iter_mut().filter(|c| c.id.index >= from);
        gone.for_each(|c| c.id.index = from - 1);
    }
    configurations.retain(|c| c.id.index < from);
}
