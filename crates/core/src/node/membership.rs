//! Changing the members by joint consensus (Raft §6; SOFAJRaft's `ConfigurationCtx`).
//!
//! New voters catch up first, as if they were learners. Then the leader logs the joint configuration, which both majorities must
//! commit, then the new one, which its own majority must. One change at a time, none before an entry of the own term is committed
//! (Ongaro, raft-dev 2015), and a leader that is no member any more hands over when all that is done.

use crate::chunk::EntryChunk;
use crate::effects::{CallDone, CallFailure, CallOutcome, CallToken, Effects, MembershipChange};
use crate::message::AppendKind;
use crate::node::NodeImpl;
use crate::node::configuration_ctx::CatchUp;
use crate::peer::{Configuration, PeerId};
use crate::replicator::{Replicator, ReplicatorState};
use crate::rules;
use crate::rules::membership::same;
use crate::stage::{Stage, StageEvent};
use crate::status::{RaftError, Status};
use crate::types::{LogId, LogIndex, Time};

/// Rounds of one election time-out after which a new voter that comes no nearer is given up.
const ROUNDS_WITHOUT_PROGRESS: u32 = 10;

impl MembershipChange {
    /// The configuration that this makes of `conf`.
    fn apply(&self, conf: &Configuration) -> Result<Configuration, Status> {
        let invalid = |what: String| Err(Status::new(RaftError::Invalid, what));
        let mut new = conf.clone();
        match self {
            MembershipChange::AddPeer(peer) => {
                if conf.contains(peer) {
                    return Err(Status::new(
                        RaftError::Exists,
                        format!(
                            "{peer} is a voter already: {conf}; to give it another priority, change the peers"
                        ),
                    ));
                }
                new.learners.retain(|learner| learner != peer);
                new.peers.push(peer.clone());
            }
            MembershipChange::RemovePeer(peer) => {
                if !conf.contains(peer) {
                    return Err(Status::new(RaftError::NotFound, format!("{peer} is no voter: {conf}")));
                }
                new.peers.retain(|voter| voter != peer);
            }
            MembershipChange::ChangePeers(wanted) => new = wanted.clone(),
            MembershipChange::ChangeVoters(voters) => {
                new.learners.retain(|learner| !voters.contains(learner));
                new.peers.clone_from(voters);
            }
            MembershipChange::AddLearners(learners) => {
                if let Some(voter) = learners.iter().find(|learner| conf.contains(learner)) {
                    return invalid(format!(
                        "{voter} is a voter; a member is a voter or a learner, not both"
                    ));
                }
                new.learners.extend(learners.iter().filter(|l| !conf.learners.contains(l)).cloned());
            }
            MembershipChange::RemoveLearners(learners) => new.learners.retain(|l| !learners.contains(l)),
            MembershipChange::ResetLearners(learners) => new.learners.clone_from(learners),
        }
        new.validate().map_err(|error| Status::new(RaftError::Invalid, error.to_string()))?;
        Ok(new)
    }
}

impl NodeImpl {
    /// Whether a change is being carried out, or one of an earlier leader is not over.
    pub(super) fn change_is_under_way(&self) -> bool {
        self.stage() != Stage::None || self.log.configuration().is_joint()
    }

    /// How far the change is that this leader carries out.
    pub(super) fn stage(&self) -> Stage {
        self.role.leadership().map_or(Stage::None, |leader| leader.change.stage)
    }

    /// When a new voter's round is over, or what is logged should be committed.
    pub(super) fn change_deadline(&self) -> Option<Time> {
        self.role.leadership().and_then(|leader| leader.change.deadline())
    }

    pub(super) fn handle_change_members(
        &mut self,
        now: Time,
        call: CallToken,
        change: &MembershipChange,
        prev_index: Option<LogIndex>,
        fx: &mut Effects,
    ) {
        match self.prepare_change(change, prev_index) {
            Err(status) => fx.calls.push(CallOutcome { call, result: Err(CallFailure::Failed(status)) }),
            Ok((old, new)) if rules::membership::changes_nothing(&old, &new) => {
                fx.calls.push(CallOutcome { call, result: Ok(CallDone::Changed { old, new }) });
            }
            Ok((old, new)) => self.begin_change(now, call, old, new, fx),
        }
    }

    fn prepare_change(
        &self,
        change: &MembershipChange,
        prev_index: Option<LogIndex>,
    ) -> Result<(Configuration, Configuration), Status> {
        let busy = |what: String| Err(Status::new(RaftError::Busy, what));
        let Some(leader) = self.role.leadership() else { return Err(self.not_leader()) };
        if rules::membership::waits_for_transfer(leader.transfer.is_some()) {
            return busy("leadership is being transferred".to_owned());
        }
        if rules::membership::waits_for_change(self.change_is_under_way()) {
            let what = leader.change.describe().unwrap_or_else(|| "of an earlier leader".to_owned());
            return busy(format!("another change is under way: {what}"));
        }
        if !rules::membership::knows_configuration(self.committed, leader.first_index()) {
            return busy(format!(
                "the leader of term {} has not committed an entry of it yet; try again in a moment",
                self.hard_state.term
            ));
        }
        let entry = self.log.configuration();
        if let Some(prev) = prev_index.filter(|prev| *prev != entry.id.index) {
            let message =
                format!("the members were changed since entry {prev}, by entry {}: {}", entry.id, entry.conf);
            return Err(Status::new(RaftError::Stale, message));
        }
        let old = entry.conf.clone();
        let new = change.apply(&old)?;
        let lost: Vec<&PeerId> =
            new.peers.iter().filter(|peer| old.contains(peer) && !self.peer_counts(peer)).collect();
        if 2 * (new.peers.len() - lost.len()) <= new.peers.len() {
            let names: Vec<String> = lost.iter().map(ToString::to_string).collect();
            return busy(format!(
                "without {}, whose disks were lost and which have not caught up yet, the new members have no majority",
                names.join(", ")
            ));
        }
        Ok((old, new))
    }

    fn begin_change(
        &mut self,
        now: Time,
        call: CallToken,
        old: Configuration,
        new: Configuration,
        fx: &mut Effects,
    ) {
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, %old, %new, "changes members");
        let deadline = now.after_millis(self.options.election_timeout_ms);
        let newcomers =
            new.peers.iter().filter(|peer| !old.contains(peer) && **peer != self.options.server_id);
        let catching_up = newcomers
            .map(|peer| CatchUp {
                peer: peer.clone(),
                deadline,
                held: 0,
                lacked: self.log.last_id().index,
                is_first_round: true,
                rounds_without_progress: 0,
                was_near: false,
            })
            .collect();
        if let Some(leader) = self.role.leadership_mut() {
            leader.change.begin(call, old, new, catching_up);
        }
        self.reconcile_replicators(now, fx);
        self.advance_change(now, fx);
    }

    /// Replicates to every member and to those that catch up, and to nobody else.
    fn reconcile_replicators(&mut self, now: Time, fx: &mut Effects) {
        let Some(leader) = self.role.leadership_mut() else { return };
        let conf = self.log.configuration();
        let mut wanted: Vec<PeerId> = conf.voters().chain(conf.learners()).cloned().collect();
        wanted.extend(leader.change.catching_up.iter().map(|c| c.peer.clone()));
        leader.replicators.retain(|peer| wanted.contains(peer));
        for position in 0..leader.replicators.len() {
            // Its priority may be another one now.
            if let Some(r) = leader.replicators.at(position)
                && let Some(peer) = wanted.iter().find(|peer| **peer == r.peer)
            {
                r.peer.clone_from(peer);
            }
        }
        self.start_replicators(now, wanted, fx);
    }

    fn start_replicators(&mut self, now: Time, peers: Vec<PeerId>, fx: &mut Effects) {
        let last_index = self.log.last_id().index;
        for peer in peers {
            let Some(leader) = self.role.leadership_mut() else { return };
            if peer != self.options.server_id && leader.replicators.get(&peer).is_none() {
                leader.replicators.add_replicator(&peer, last_index, now);
                if let Some(position) = leader.replicators.position(&peer) {
                    self.send_entries(now, position, fx);
                }
            }
        }
    }

    /// Goes on with the change as far as it can. Called after whatever may let it go on.
    pub(super) fn advance_change(&mut self, now: Time, fx: &mut Effects) {
        let Some(leader) = self.role.leadership() else { return };
        let committed = self.committed >= leader.change.entry;
        match leader.change.stage {
            Stage::None => {}
            Stage::CatchingUp => self.advance_catch_up(now, fx),
            Stage::Joint if rules::membership::may_leave_joint(committed) => {
                let new = leader.change.new.clone();
                self.log_configuration(now, Stage::Stable, new, Configuration::default(), fx);
            }
            Stage::Stable if committed => self.finish_change(now, fx),
            Stage::Joint | Stage::Stable => {
                let patience_ms = self.options.change_step_ms();
                if let Some(leader) = self.role.leadership_mut() {
                    leader.change.tell_of_standstill(now, patience_ms, fx);
                }
            }
        }
    }

    fn advance_catch_up(&mut self, now: Time, fx: &mut Effects) {
        let (last_index, margin) = (self.log.last_id().index, self.options.catchup_margin);
        let patience = self.options.election_timeout_ms;
        let Some(leader) = self.role.leadership_mut() else { return };
        let (replicators, change) = (&leader.replicators, &mut leader.change);
        let has_caught_up = |r: &Replicator| {
            r.state() == ReplicatorState::Replicate
                && r.rejoining.is_none()
                && last_index.saturating_sub(r.match_index) <= margin
        };
        // All of them at once: who has been near and fell behind while another caught up would get a vote that helps nobody.
        let caught_up = |c: &CatchUp| replicators.get(&c.peer).is_some_and(has_caught_up);
        let all = change.catching_up.iter().all(caught_up);
        let mut given_up = None;
        for c in &mut change.catching_up {
            c.was_near |= replicators.get(&c.peer).is_some_and(has_caught_up);
        }
        // All rounds end together.
        if !all && change.catching_up.iter().any(|c| c.deadline <= now) {
            let each = change.catching_up.iter().all(|c| c.was_near);
            change.rounds_apart = if each { change.rounds_apart + 1 } else { 0 };
            if change.rounds_apart > ROUNDS_WITHOUT_PROGRESS {
                given_up = Some(format!(
                    "the new voters come near and fall behind again under this load; raise catchup_margin, which is {margin} entries"
                ));
            }
        }
        for c in &mut change.catching_up {
            let Some(r) = replicators.get(&c.peer) else { continue };
            if c.deadline > now {
                continue;
            }
            c.was_near = false;
            let answers =
                r.acknowledged.is_some() && now.since(r.last_rpc_send_timestamp) <= 2 * patience * 1000;
            // Measured by what it lacks: who copies more slowly than others write holds more each round, and never arrives.
            let lacks = last_index.saturating_sub(r.match_index);
            let comes_nearer = rules::membership::comes_nearer(lacks, c.lacked) || has_caught_up(r);
            // In the first round the log may grow by a lot that it was never sent.
            c.lacked = if std::mem::take(&mut c.is_first_round) { lacks } else { c.lacked.min(lacks) };
            c.rounds_without_progress = if comes_nearer { 0 } else { c.rounds_without_progress + 1 };
            (c.held, c.deadline) = (r.match_index, now.after_millis(patience));
            if !answers || c.rounds_without_progress >= ROUNDS_WITHOUT_PROGRESS {
                let why = if answers {
                    "comes no nearer"
                } else {
                    "does not answer; see whether it is up and reachable"
                };
                given_up =
                    Some(format!("{} holds {} of {last_index} entries and {why}", c.peer, r.match_index));
            }
        }
        if let Some(what) = given_up {
            self.fail_change(now, Status::new(RaftError::CatchUp, what), fx);
            return;
        }
        if !rules::membership::may_vote(all) {
            return;
        }
        let (old, new) = (change.old.clone(), change.new.clone());
        if rules::membership::needs_joint(!same(&old.peers, &new.peers)) {
            self.log_configuration(now, Stage::Joint, new, old, fx);
        } else {
            self.log_configuration(now, Stage::Stable, new, Configuration::default(), fx);
        }
    }

    fn log_configuration(
        &mut self,
        now: Time,
        stage: Stage,
        conf: Configuration,
        old_conf: Configuration,
        fx: &mut Effects,
    ) {
        let id = LogId::new(self.log.last_id().index + 1, self.hard_state.term);
        let deadline = now.after_millis(self.options.change_step_ms());
        if let Some(leader) = self.role.leadership_mut() {
            leader.change.logged(stage, id.index, deadline);
        }
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, entry = %id, %conf, old = %old_conf,
            "logs a configuration");
        let members: Vec<PeerId> =
            conf.peers.iter().chain(&conf.learners).chain(&old_conf.peers).cloned().collect();
        // Who leaves is replicated to until the change is over, and so learns that it leaves.
        self.append_as_leader(now, EntryChunk::configuration(id, conf, old_conf), fx);
        self.start_replicators(now, members, fx);
        self.commit_by_counting(fx);
        self.deliver(fx);
        self.advance_change(now, fx);
    }

    fn finish_change(&mut self, now: Time, fx: &mut Effects) {
        let Some(leader) = self.role.leadership_mut() else { return };
        let ctx = leader.change.end(StageEvent::Finish);
        if let Some(call) = ctx.call {
            let done = CallDone::Changed { old: ctx.old, new: ctx.new };
            fx.calls.push(CallOutcome { call, result: Ok(done) });
        }
        self.dismiss(now, ctx.entry, fx);
        let votes = self.log.configuration().is_voter(&self.options.server_id);
        if rules::membership::must_leave(votes) {
            // Who is removed with this leader hears of it from the next one's silence; the others are to be led at once.
            self.hand_over(fx);
            let message = format!("{} is no voter any more", self.options.server_id);
            self.step_down(now, self.hard_state.term, Status::new(RaftError::LeaderRemoved, message), fx);
            return;
        }
        self.reconcile_replicators(now, fx);
    }

    /// Tells those that leave that `entry`, which says so, is committed: who knows of its removal never campaigns. A probe goes
    /// behind the entry itself; to whom it has not got, it says nothing.
    fn dismiss(&mut self, now: Time, entry: LogIndex, fx: &mut Effects) {
        for position in 0..self.role.replicators().len() {
            let conf = &self.log.configuration().conf;
            let stays = |peer: &PeerId| conf.contains(peer) || conf.learners.contains(peer);
            let Some(r) = self.role.replicator_at(position).filter(|r| !stays(&r.peer)) else { continue };
            r.probe_at(entry + 1);
            self.send_append(now, position, AppendKind::Probe, Vec::new(), fx);
        }
    }

    /// A change of which nothing is logged comes to nothing.
    fn fail_change(&mut self, now: Time, status: Status, fx: &mut Effects) {
        tracing::warn!(group = %self.options.group_id, node = %self.options.server_id, %status, "members are not changed");
        if let Some(leader) = self.role.leadership_mut() {
            leader.change.end(StageEvent::GiveUp).tell_of_end(&status, fx);
        }
        self.reconcile_replicators(now, fx);
    }

    /// A new leader finishes the change that it finds in its log; its first entry carries it on. One that its own removal left no
    /// other choice than to lead steps down when that is committed.
    pub(super) fn adopt_change(&mut self) {
        let entry = self.log.configuration();
        let stage = rules::membership::inherited_stage(entry, &self.options.server_id);
        if let Some(leader) = self.role.leadership_mut() {
            leader.change.inherit(entry, stage);
        }
    }

    pub(super) fn handle_reset_peers(
        &mut self,
        now: Time,
        call: CallToken,
        conf: Configuration,
        fx: &mut Effects,
    ) {
        let refused = if !self.state().is_active() {
            let message = format!("node {} is {}", self.options.server_id, self.state());
            Some(Status::new(RaftError::Invalid, message))
        } else if self.stage() != Stage::None {
            Some(Status::new(RaftError::Busy, "members are being changed by this leader"))
        } else if self.rejoining {
            // It may lack what was acknowledged, and does not campaign.
            let message = format!(
                "{} has lost its disk and not caught up since, so that it will not lead; force the members upon one that has its log",
                self.options.server_id
            );
            Some(Status::new(RaftError::Invalid, message))
        } else {
            conf.validate().err().map(|error| Status::new(RaftError::Invalid, error.to_string()))
        };
        if let Some(status) = refused {
            fx.calls.push(CallOutcome { call, result: Err(CallFailure::Failed(status)) });
            return;
        }
        let entry = self.log.configuration();
        let equal = !entry.is_joint()
            && same(&entry.conf.peers, &conf.peers)
            && same(&entry.conf.learners, &conf.learners);
        if !equal {
            tracing::warn!(group = %self.options.group_id, node = %self.options.server_id, old = %entry.conf, new = %conf,
                "the members are forced upon this node");
            self.log.force_configuration(conf);
            let term = self.hard_state.term + 1;
            let status = Status::new(RaftError::SetPeer, "the members were forced");
            // The higher term is this node's own: nobody has taken over.
            let ended = self.role.end_transfer();
            self.tell_of_transfer(now, ended, self.hard_state.term, &status, fx);
            self.reset_priority();
            self.step_down(now, term, status, fx);
        }
        self.removal_is_overruled(now, fx);
        fx.calls.push(CallOutcome { call, result: Ok(CallDone::PeersReset) });
    }
}
