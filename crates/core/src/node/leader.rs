//! Leading: proposals, quorum contact, commit (Raft §5.3–5.4; SOFAJRaft's `NodeImpl.becomeLeader`).

use std::sync::Arc;

use crate::ballot_box::Counted;
use crate::chunk::{ChunkBuilder, EntryChunk};
use crate::effects::{Effects, LogOp};
use crate::electorate::Electorate;
use crate::marks::Mark;
use crate::node::role::{Leadership, Role};
use crate::node::state::NodeEvent;
use crate::node::{NodeImpl, NodeState};
use crate::peer::PeerId;
use crate::replicator::Replicator;
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{LogId, LogIndex, Term, Time};

/// Where proposed entries stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Index of the first entry.
    pub first_index: LogIndex,
    /// Index of the last entry.
    pub last_index: LogIndex,
    /// Their term.
    pub term: Term,
}

/// Why nothing was proposed. None of these leaves the outcome open: the entries are not in any log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or nobody does.
    #[error("not the leader; {}", .leader.as_ref().map_or("no leader is known".to_owned(), |l| format!("{l} leads")))]
    NotLeader {
        /// The leader, when known.
        leader: Option<PeerId>,
    },
    /// Too much waits for the disk or for the state machine.
    #[error("busy: too many entries wait for the disk or the state machine; try again later")]
    Busy,
    /// Leadership is being handed over.
    #[error("leadership is being transferred; try again at the new leader")]
    Transferring,
    /// The node has failed.
    #[error("the node has failed: {0}")]
    Failed(Status),
    /// The node was shut down or not started.
    #[error("the node is not running")]
    Stopped,
}

impl NodeImpl {
    /// Whether [`propose`](Self::propose) on a leader would not be refused as busy. Rule R1: what waits stays within bounds.
    pub fn has_capacity(&self) -> bool {
        self.log.unstable_entries() < self.options.max_unstable_entries
            && self.log.unstable_bytes() < self.options.max_unstable_bytes
            && self.log.last_id().index - self.applied < self.options.max_unapplied_entries
    }

    pub(super) fn append_proposal(
        &mut self,
        now: Time,
        batch: &mut ChunkBuilder,
        fx: &mut Effects,
    ) -> Result<Proposed, ProposeError> {
        match self.state() {
            NodeState::Leader => {}
            NodeState::Follower | NodeState::Candidate => {
                return Err(ProposeError::NotLeader { leader: self.leader_id().cloned() });
            }
            NodeState::Transferring => return Err(ProposeError::Transferring),
            NodeState::Error => {
                let unknown = || Status::new(RaftError::BadNode, "unknown error");
                return Err(ProposeError::Failed(self.last_error.clone().unwrap_or_else(unknown)));
            }
            NodeState::Uninitialized | NodeState::Shutdown => return Err(ProposeError::Stopped),
        }
        if !self.has_capacity() {
            fx.marks.set(Mark::ProposalRefusedBusy);
            return Err(ProposeError::Busy);
        }
        let first_index = self.log.last_id().index + 1;
        let Some(chunk) = batch.take(first_index, self.hard_state.term) else {
            return Ok(Proposed { first_index, last_index: first_index - 1, term: self.hard_state.term });
        };
        let last_index = chunk.last_index();
        self.append_as_leader(now, chunk, fx);
        Ok(Proposed { first_index, last_index, term: self.hard_state.term })
    }

    /// Appends a chunk of the own term and sends it; the disk works in parallel.
    pub(super) fn append_as_leader(&mut self, now: Time, chunk: EntryChunk, fx: &mut Effects) {
        debug_assert!(chunk.term() == self.hard_state.term);
        let chunk = Arc::new(chunk);
        self.log.append(&chunk);
        fx.log.push(LogOp::Append(chunk));
        for position in 0..self.role.replicators().len() {
            self.send_entries(now, position, fx);
        }
    }

    /// Wins the election: replicates to everybody and commits everything before by an entry of the own term.
    pub(super) fn become_leader(&mut self, now: Time, fx: &mut Effects) {
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, term = self.hard_state.term, "leads");
        self.last_leader_timestamp = now;
        self.patience_begins();
        let conf = self.log.configuration().clone();
        let last_index = self.log.last_id().index;
        let mut leadership = Leadership::new(last_index + 1);
        for peer in conf.voters().chain(conf.learners()).filter(|p| **p != self.options.server_id) {
            leadership.replicators.add_replicator(peer, last_index, now);
        }
        leadership.step_down_timer.start(now.after_millis(self.options.election_timeout_ms / 2));
        self.role.enter(NodeEvent::Win, Role::Leader(Box::new(leadership)));
        let id = LogId::new(last_index + 1, self.hard_state.term);
        if let Some(first) = rules::log::first_entry_of_term(id, conf) {
            self.append_as_leader(now, first, fx);
            self.adopt_change();
        }
        let own = self.options.server_id.clone();
        self.tell_who_leads(&own, fx);
        self.leader_is_known(now, fx);
    }

    /// Every half election time-out: a leader that a quorum does not answer leads no more.
    pub(super) fn handle_step_down_timeout(&mut self, now: Time, fx: &mut Effects) {
        if rules::election::leaves_to_another(self.disk_is_stalled(now), || self.best_candidate().is_some()) {
            let message = format!(
                "a write is under way for {} ms or more; see to the disk",
                self.options.disk_stall_ms()
            );
            self.hand_over(fx);
            self.step_down(now, self.hard_state.term, Status::new(RaftError::Io, message), fx);
            return;
        }
        let lease = self.options.lease_micros();
        let Some(leader) = self.role.leadership_mut() else { return };
        let count = leader.replicators.count(&self.log, &self.options.server_id);
        let answers = |r: &Replicator| r.counts() && now.since(r.last_rpc_send_timestamp) <= lease;
        let contact = rules::quorum::has_quorum(count.electorate, |slot| count.of(slot, true, answers));
        if rules::election::may_lead_on(contact) {
            self.last_leader_timestamp = now;
            if let Some(leader) = self.role.leadership_mut() {
                let period = (self.options.election_timeout_ms / 2).max(1);
                leader.step_down_timer.start(now.after_millis(period));
            }
            return;
        }
        fx.marks.set(Mark::QuorumLost);
        let message = format!("no quorum answered within {} ms", lease / 1000);
        self.step_down(now, self.hard_state.term, Status::new(RaftError::RaftTimedOut, message), fx);
    }

    /// Commits what both majorities hold durably; the leader counts itself for what is durable here.
    pub(super) fn commit_by_counting(&mut self, fx: &mut Effects) {
        let Some(leader) = self.role.leadership_mut() else { return };
        let held_here = rules::log::held_by_leader(self.log.stable_index(), self.log.last_id().index);
        let count = leader.replicators.count(&self.log, &self.options.server_id);
        let held = |slot| count.of(slot, held_here, Replicator::counts_for);
        match leader.ballot_box.commit_at(self.committed, count.electorate, held) {
            Counted::Committed(index) => self.committed = index,
            Counted::OldTerm => fx.marks.set(Mark::OldTermHeldBack),
            Counted::Nothing => {}
        }
    }

    /// As [`commit_by_counting`](Self::commit_by_counting), by name and without committing: for those who only look on.
    pub(super) fn committable_seen_from_outside(&self) -> Option<LogIndex> {
        let leader = self.role.leadership()?;
        let held_here = rules::log::held_by_leader(self.log.stable_index(), self.log.last_id().index);
        let members = Electorate::of(self.log.configuration(), |peer| peer);
        let held = |peer: &PeerId| match *peer == self.options.server_id {
            true => held_here,
            false => leader.replicators.get(peer).map_or(0, Replicator::counts_for),
        };
        let index = rules::quorum::durable_index(&members, held, &mut Vec::new());
        rules::log::counts_for_commit(index, leader.ballot_box.pending_index()).then_some(index)
    }
}
