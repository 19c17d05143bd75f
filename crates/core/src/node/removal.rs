//! Knowing that one is a member no more (`docs/decisions/0006-who-may-vote.md`).
//!
//! A member learns of its removal by its own log, when the configuration that no longer names it is committed, or from a leader that
//! refuses its pre-vote. Either way it writes down which entry that was, and is silent from then on, also after a restart, until a
//! newer configuration names it. It goes on voting: whether others may be elected is not for it to judge.

use crate::effects::{Effects, LogOp};
use crate::message::{Extensions, RequestVoteRequest, RequestVoteResponse};
use crate::node::NodeImpl;
use crate::peer::PeerId;
use crate::rules;
use crate::types::{LogId, Time};

/// What a node knows of its removal.
#[derive(Debug)]
pub(super) struct Removal {
    /// The committed configuration that no longer names this node; 0/0 for none.
    at: LogId,
    /// The configuration in force, and how many in the log were not committed, when the log was looked at last. As long as neither
    /// changes there is nothing to learn from it, and a step compares no names.
    judged: Option<(LogId, usize)>,
}

impl Removal {
    /// What the disk says.
    pub(super) fn recovered(at: LogId) -> Removal {
        Removal { at: rules::membership::resumed_removal(at), judged: None }
    }

    /// The configuration's entry; 0/0 for none.
    pub(super) fn at(&self) -> LogId {
        self.at
    }

    /// Whether the node knows that it was removed.
    pub(super) fn is_known(&self) -> bool {
        self.at.index > 0
    }
}

impl NodeImpl {
    /// Learns from the own log whether this node is a member no more, or one again. A leader that removes itself leads until that
    /// is committed, and learns it when it has stepped down.
    pub(super) fn judge_removal(&mut self, now: Time, fx: &mut Effects) {
        if !self.state().is_active() || self.role.leads() {
            return;
        }
        let conf = self.log.configuration();
        let judged = (conf.id, self.log.configurations_behind(self.committed));
        if self.removal.judged == Some(judged) {
            return;
        }
        self.removal.judged = Some(judged);
        let own = &self.options.server_id;
        if self.removal.is_known() {
            if rules::membership::is_member_again(self.removal.at, own, conf) {
                tracing::info!(group = %self.options.group_id, node = %self.options.server_id, entry = %conf.id, conf = %conf.conf,
                    "is a member again");
                self.write_removal(now, LogId::default(), fx);
            }
        } else if let Some(at) = rules::membership::proven_removal(own, &self.log, self.committed) {
            tracing::warn!(group = %self.options.group_id, node = %self.options.server_id, entry = %at, conf = %conf.conf,
                "was removed from the group: asks for no votes any more; stop it here, or add it to the group again");
            self.write_removal(now, at, fx);
        }
    }

    /// What this leader says, in refusing its pre-vote, to an asker that is a member no more.
    pub(super) fn removal_to_tell(&self, asker: &PeerId, request: &RequestVoteRequest) -> Option<LogId> {
        if !self.role.leads() || !request.extensions.contains(Extensions::REMOVAL) {
            return None;
        }
        rules::membership::removal_to_tell(asker, request.conf_index, &self.log, self.committed)
    }

    /// A leader that was asked for its pre-vote may say that this node was removed: it is silent then as if it had known.
    pub(super) fn hear_of_removal(
        &mut self,
        now: Time,
        from: &PeerId,
        response: &RequestVoteResponse,
        fx: &mut Effects,
    ) {
        let Some(at) = response.removed.filter(|_| !response.granted) else { return };
        let conf = self.log.configuration();
        let overruled = self.removal.is_known() || self.log.is_forced();
        if overruled || !rules::membership::may_believe_removal(at, response.term, conf, self.committed) {
            return;
        }
        tracing::warn!(group = %self.options.group_id, node = %self.options.server_id, leader = %from, entry = %at, conf = %conf.conf,
            "was removed from the group, says its leader: asks for no votes any more; stop it here, or add it to the group again");
        self.write_removal(now, at, fx);
    }

    /// An operator forces members upon this node. When they name it, it is to campaign, whatever it was told before.
    pub(super) fn removal_is_overruled(&mut self, now: Time, fx: &mut Effects) {
        if self.removal.is_known() && self.log.configuration().names(&self.options.server_id) {
            self.write_removal(now, LogId::default(), fx);
        }
    }

    fn write_removal(&mut self, now: Time, at: LogId, fx: &mut Effects) {
        self.removal.at = at;
        fx.log.push(LogOp::MemberRemoved { at });
        self.configuration_changed(now);
    }
}
