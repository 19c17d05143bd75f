//! One replica of one group: role, term, log and everything that follows from them.

mod apply;
mod configuration_ctx;
mod describe;
mod election;
mod follower;
mod getters;
mod leader;
mod lease;
mod membership;
mod patience;
mod read_index;
mod removal;
mod replication;
mod role;
pub(crate) mod state;
mod transfer;
mod unapplied;

use std::fmt;

use crate::chunk::ChunkBuilder;
use crate::effects::{Effects, FsmEvent, HardState, Input, LogOp, Reply, ReplyToken, Ticket};
use crate::invariants::{self, Moment, Step};
use crate::log_manager::LogManager;
use crate::message::{RaftRequest, RaftResponse};
use crate::options::{CoreOptions, RecoveredState};
use crate::peer::PeerId;
use crate::random::Random;
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{LogId, LogIndex, Term, Time};
use crate::vote::Vote;

pub use describe::{Members, NodeDescription, ReplicatorDescription};
pub use leader::{ProposeError, Proposed};
pub use state::NodeState;

use election::PriorityWait;
use patience::Lateness;
use read_index::ReadOnlyService;
use removal::Removal;
use role::{Following, Leadership, Recovered, Role};
use state::NodeEvent;
use transfer::HandedOver;
use unapplied::Unapplied;

/// Terms that a message may be ahead at most.
const MAX_TERM_JUMP: u64 = 1 << 32;

/// A raft node without I/O (SOFAJRaft's `NodeImpl`).
///
/// # Method classes
/// * **Getters** ([`state`](Self::state), [`term`](Self::term), …) look and change nothing.
/// * **Inputs**: [`start`](Self::start) once, then [`step`](Self::step) for whatever happens to the node.
/// * **Commands**: [`propose`](Self::propose), which has an answer of its own besides effects.
/// * **Outputs**: [`Effects`], filled by inputs and commands, and [`deadline`](Self::deadline).
///
/// # Order of calls
/// 1. [`new`](Self::new) with what the log store recovered, then [`start`](Self::start).
/// 2. For every event one input or command with *empty* effects. Afterwards, in this order: take
///    [`Effects::sends`] and [`Effects::replies`] without `after_durable` (they may leave at once); queue
///    [`Effects::log`] as one write together with the messages that wait for it; hand on
///    [`Effects::fsm`], then [`Effects::abandoned`]; start [`Effects::reads`]. All or nothing.
/// 3. Ask [`deadline`](Self::deadline) and give [`Input::Tick`] when it has come. A deadline may silently move
///    later; it moves earlier only within a call.
/// 4. When a write is durable, give [`Input::Persisted`] with its sequence; a newer sequence covers the older.
///
/// The same calls with the same arguments have the same effects: time and randomness are arguments.
pub struct NodeImpl {
    options: CoreOptions,
    role: Role,
    hard_state: HardState,
    log: LogManager,
    /// Commit index.
    committed: LogIndex,
    random: Random,
    last_ticket: u64,
    last_error: Option<Status>,
    /// When it was last told that somebody breaks the rules.
    accused_at: Option<Time>,

    /// Tickets below this belong to earlier rounds of votes or pre-votes.
    vote_round: Ticket,
    /// Write that makes the own candidacy, or a granted vote, durable, until it is.
    vote_write: Option<u64>,
    /// Write that makes the current term and vote durable.
    hard_state_sequence: u64,

    /// From when on patience counts: when the leader was last heard of; on a leader, when a quorum was; at first its own start.
    last_leader_timestamp: Time,
    /// How late the owner is, which makes for more patience.
    lateness: Lateness,
    /// When a leader's message last came: what the promise to it counts from. Unlike the above it is not moved by anything else.
    promised_at: Option<Time>,
    /// The longest promise that this node ever gave, in milliseconds: as written down, or on its way there with this write.
    promised_ms: u64,
    promise_sequence: u64,
    /// The longest promise that earlier lives of the process gave, in milliseconds.
    promise_at_start: u64,
    started_at: Time,
    /// The disk was lost: no vote and no count in a quorum. On disk this is [`Vote::Withheld`].
    rejoining: bool,
    /// Names this life to leaders while rejoining; not 0.
    life: u64,
    removal: Removal,
    handed_over: Option<HandedOver>,
    priority: PriorityWait,

    /// Reads wait through changes of role: a follower's go on when it becomes the leader, and confirmed ones in any case.
    reads: ReadOnlyService,
    /// Last index handed to the state-machine stage.
    delivered: LogIndex,
    applied: LogIndex,
    /// What the state-machine stage holds.
    unapplied: Unapplied,
    /// Read of committed entries that are no longer in memory.
    apply_read: Option<Ticket>,
}

impl NodeImpl {
    /// A node over a recovered log. It does nothing before [`start`](Self::start).
    ///
    /// # Errors
    /// `EINVAL` when the initial configuration is invalid or the recovered parts contradict each other.
    pub fn new(
        now: Time,
        options: CoreOptions,
        recovered: RecoveredState,
        seed: u64,
    ) -> Result<NodeImpl, Status> {
        let invalid = |message: String| Status::new(RaftError::Invalid, message);
        options.validate().map_err(invalid)?;
        if !options.initial_conf.is_empty() {
            options.initial_conf.validate().map_err(|e| invalid(e.to_string()))?;
        }
        let recovered_state = recovered.hard_state.clone();
        let before_first = recovered.before_first;
        let promised_ms = recovered.promised_ms;
        let removal = Removal::recovered(recovered.member_removed);
        let damaged = recovered.damaged.first().cloned();
        let log = LogManager::new(recovered, options.initial_conf.clone())
            .map_err(|what| invalid(format!("group {}: {what}", options.group_id)))?;
        let rejoining = recovered_state.vote == Vote::Withheld;
        let hard_state_lost = recovered_state.term < log.last_id().term;
        let hard_state = rules::election::resumed(recovered_state, log.last_id());
        Ok(NodeImpl {
            role: Role::Uninitialized(Recovered { hard_state_lost, damaged }),
            hard_state,
            committed: before_first.index,
            random: Random::new(seed),
            last_ticket: 0,
            last_error: None,
            accused_at: None,
            vote_round: Ticket(1),
            vote_write: None,
            hard_state_sequence: 0,
            last_leader_timestamp: now,
            lateness: Lateness::default(),
            promised_at: None,
            promised_ms,
            promise_sequence: 0,
            promise_at_start: promised_ms,
            started_at: now,
            life: Random::new(!seed).below(u64::MAX >> 2) + 1,
            rejoining,
            removal,
            handed_over: None,
            priority: PriorityWait::default(),
            reads: ReadOnlyService::default(),
            delivered: before_first.index,
            applied: before_first.index,
            unapplied: Unapplied::default(),
            apply_read: None,
            log,
            options,
        })
    }

    // --- inputs ---

    /// Starts the node: it follows nobody and waits for its election time-out; a sole voter campaigns at once. One whose log is damaged
    /// has failed.
    pub fn start(&mut self, now: Time, fx: &mut Effects) {
        let start = self.moment();
        let before = self.role.enter(NodeEvent::Start, Role::Follower(Following::default()));
        self.last_leader_timestamp = now;
        self.started_at = now;
        if let Role::Uninitialized(Recovered { damaged: Some(range), .. }) = &before {
            // Rule P7: what it may have acknowledged it cannot give to anybody, so that it neither votes nor counts.
            let what = format!("{range}; drop this replica's log and let it rejoin the group");
            self.fail(now, Status::new(RaftError::Io, what), fx);
            return self.finish(now, start, fx);
        }
        let blank = self.log.last_id() == LogId::default() && self.hard_state == HardState::default();
        if blank && self.options.rejoin {
            self.rejoining = true;
            self.hard_state.vote = Vote::Withheld;
            self.persist_hard_state(fx);
        }
        if matches!(before, Role::Uninitialized(Recovered { hard_state_lost: true, .. })) {
            // The entry that tells of the term may be truncated before anything else writes it.
            self.persist_hard_state(fx);
        }
        self.restart_election_timer(now);
        let (conf, own) = (self.log.configuration(), &self.options.server_id);
        if conf.id == LogId::default() && !conf.conf.is_empty() && !conf.names(own) {
            tracing::warn!(group = %self.options.group_id, node = %own, initial_conf = %conf.conf,
                "the initial configuration does not name this server: it takes no part until a leader replicates to it");
        }
        let alone = !conf.is_joint() && conf.conf.peers.len() == 1 && conf.is_voter(own);
        // Whoever led when it was not alone may hold a lease by its promise, and not know yet that it is alone now.
        let waits = self.rejoining || self.keeps_promise(now) && !self.log.was_always_alone(own);
        if alone && !waits && self.may_campaign() {
            self.elect_self(false, fx);
        }
        self.finish(now, start, fx);
    }

    /// Takes in what happened and says what to do about it.
    pub fn step(&mut self, now: Time, input: Input, fx: &mut Effects) {
        debug_assert!(fx.is_empty(), "the effects of the last step were not taken");
        let start = self.moment();
        match input {
            Input::Request { from, reply, request } => self.handle_request(now, &from, reply, request, fx),
            Input::Response { from, ticket, result } => self.handle_response(now, &from, ticket, result, fx),
            Input::Persisted { sequence } => self.handle_persisted(now, sequence, fx),
            Input::Applied { index } => self.handle_applied(index, fx),
            Input::LogRead { ticket, result } => self.handle_log_read(now, ticket, result, fx),
            Input::Tick => self.handle_tick(now, fx),
            Input::PeerConnected { peer } => self.handle_peer_connected(now, &peer, fx),
            Input::Failed { status } => self.fail(now, status, fx),
            Input::ReadIndex { calls, mode } => self.handle_read_index(now, calls, mode, fx),
            Input::ChangeMembers { call, change, prev_index } => {
                self.handle_change_members(now, call, &change, prev_index, fx)
            }
            Input::TransferLeadership { call, to } => self.handle_transfer_leadership(now, call, to, fx),
            Input::ResetPeers { call, conf } => self.handle_reset_peers(now, call, conf, fx),
            Input::Shutdown => self.shutdown(now, fx),
        }
        if self.role.leads() {
            self.feed_rejoining(now, fx);
            self.advance_change(now, fx);
            self.advance_transfer(fx);
            self.advance_reads(now, fx);
        }
        self.finish(now, start, fx);
    }

    /// Proposes entries: the leader appends them as one chunk and replicates it. The builder is emptied on
    /// success and left as it was on failure.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose(
        &mut self,
        now: Time,
        batch: &mut ChunkBuilder,
        fx: &mut Effects,
    ) -> Result<Proposed, ProposeError> {
        debug_assert!(fx.is_empty(), "the effects of the last step were not taken");
        let start = self.moment();
        let proposed = self.append_proposal(now, batch, fx)?;
        self.finish(now, start, fx);
        Ok(proposed)
    }

    fn handle_request(
        &mut self,
        now: Time,
        from: &PeerId,
        token: ReplyToken,
        request: RaftRequest,
        fx: &mut Effects,
    ) {
        if !self.state().is_active() {
            let message = format!(
                "node {} of group {} is {}",
                self.options.server_id,
                self.options.group_id,
                self.state()
            );
            let response = RaftResponse::Error(Status::new(RaftError::Invalid, message));
            fx.replies.push(Reply { token, response, after_durable: false });
            return;
        }
        if !self.is_plausible(request.term()) {
            let message = format!("term {} is too far beyond term {}", request.term(), self.hard_state.term);
            let response = RaftResponse::Error(Status::new(RaftError::Invalid, message));
            fx.replies.push(Reply { token, response, after_durable: false });
            return;
        }
        match request {
            RaftRequest::RequestVote(r) if r.pre_vote => {
                self.handle_pre_vote_request(now, from, token, r, fx)
            }
            RaftRequest::RequestVote(r) => self.handle_request_vote_request(now, from, token, r, fx),
            RaftRequest::AppendEntries(r) => self.handle_append_entries_request(now, from, token, r, fx),
            RaftRequest::TimeoutNow(r) => self.handle_timeout_now_request(now, from, token, r, fx),
            RaftRequest::ReadIndex(r) => self.handle_read_index_request(now, token, r, fx),
        }
    }

    fn handle_response(
        &mut self,
        now: Time,
        from: &PeerId,
        ticket: Ticket,
        result: Result<RaftResponse, Status>,
        fx: &mut Effects,
    ) {
        if !self.state().is_active() {
            return;
        }
        if let Err(status) = &result
            && self.read_index_undelivered(now, ticket, status)
        {
            return;
        }
        let implausible =
            |response: &RaftResponse| response.term().is_some_and(|term| !self.is_plausible(term));
        let result = match result {
            Ok(response) if implausible(&response) => {
                Err(Status::new(RaftError::Invalid, format!("{from} answers from an impossible term")))
            }
            result => result,
        };
        match result {
            Ok(RaftResponse::RequestVote(r)) => self.handle_vote_response(now, from, ticket, r, fx),
            Ok(RaftResponse::AppendEntries(r)) => {
                self.handle_append_entries_response(now, from, ticket, r, fx)
            }
            Ok(RaftResponse::TimeoutNow(r)) => self.handle_timeout_now_response(now, from, ticket, r, fx),
            Ok(RaftResponse::ReadIndex(r)) => self.handle_read_index_response(now, ticket, r, fx),
            Ok(RaftResponse::Error(status)) | Err(status) => {
                let known = self.read_index_refused(now, ticket, &status, fx)
                    || self.timeout_now_failed(ticket, &status, fx);
                if !known {
                    self.handle_rpc_error(now, from, ticket, &status, fx);
                }
            }
        }
    }

    fn handle_persisted(&mut self, now: Time, sequence: u64, fx: &mut Effects) {
        if !self.state().is_active() {
            return;
        }
        self.log.persisted(sequence);
        let persisted = self.log.persisted_sequence();
        if self.vote_write.take_if(|write| *write <= persisted).is_some() {
            self.vote_is_durable(now, fx);
        }
        self.commit_by_counting(fx);
        self.deliver(fx);
    }

    fn handle_tick(&mut self, now: Time, fx: &mut Effects) {
        if !self.state().is_active() {
            return;
        }
        if self.role.deadline().is_some_and(|at| at <= now) {
            match &self.role {
                Role::Follower(_) => self.handle_election_timeout(now, fx),
                Role::Candidate(_) => self.handle_vote_timeout(now, fx),
                Role::Leader(_) => self.handle_step_down_timeout(now, fx),
                Role::Uninitialized(_) | Role::Error | Role::Shutdown => {}
            }
        }
        self.handle_transfer_timeout(now, fx);
        self.handle_read_timeout(now, fx);
        self.handle_replicator_timeouts(now, fx);
        self.tick_ends();
    }

    /// SOFAJRaft's `onError`: the node gives up every role and says so.
    fn fail(&mut self, now: Time, status: Status, fx: &mut Effects) {
        if !self.state().is_active() {
            return;
        }
        tracing::error!(group = %self.options.group_id, node = %self.options.server_id, %status, "node failed");
        self.hand_over(fx);
        self.step_down(now, self.hard_state.term, status.clone(), fx);
        // Nothing of this step may reach the failed store.
        fx.log.clear();
        self.role.enter(NodeEvent::Fail, Role::Error);
        self.abandon_reads(&status, fx);
        self.abandon_handed_over(&status, fx);
        self.last_error = Some(status.clone());
        fx.fsm.push(FsmEvent::Error(status));
    }

    fn shutdown(&mut self, now: Time, fx: &mut Effects) {
        if self.state() == NodeState::Shutdown {
            return;
        }
        let status = Status::new(RaftError::NodeShutdown, "the node is shutting down");
        if self.state().is_active() {
            self.hand_over(fx);
            self.step_down(now, self.hard_state.term, status.clone(), fx);
        }
        self.abandon_reads(&status, fx);
        self.abandon_handed_over(&status, fx);
        fx.abandoned = Some(status);
        self.role.enter(NodeEvent::ShutDown, Role::Shutdown);
    }

    /// Closes a step, which began at `start`: numbers its write, lets memory go, and sees to it that it kept every invariant.
    fn finish(&mut self, now: Time, start: Option<Moment>, fx: &mut Effects) {
        self.release_reads(fx);
        self.judge_removal(now, fx);
        if !fx.log.is_empty() {
            fx.write_sequence = self.log.begin_write(now);
            if fx.log.iter().any(|op| matches!(op, LogOp::HardState(_))) {
                self.hard_state_sequence = fx.write_sequence;
            }
            if fx.log.iter().any(|op| matches!(op, LogOp::Promise { .. })) {
                self.promise_sequence = fx.write_sequence;
            }
        }
        self.release_entries();
        if let (Some(before), Some(after)) = (start, self.moment()) {
            invariants::check(Step { before: &before, fx, after: &after });
        }
    }

    /// What the invariants see of this node; nothing where assertions are off.
    fn moment(&self) -> Option<Moment> {
        if !cfg!(debug_assertions) {
            return None;
        }
        let term_start = self.role.leadership().map(Leadership::first_index);
        let open = |first: LogIndex| self.log.configurations_behind(first.max(self.committed));
        Some(Moment {
            own: self.options.server_id.clone(),
            state: self.state(),
            term: self.hard_state.term,
            vote: self.hard_state.vote.clone(),
            rejoining: self.rejoining,
            removed: self.removal.at(),
            hard_state_is_durable: self.hard_state_sequence <= self.log.persisted_sequence(),
            promise_is_durable: self.promise_sequence <= self.log.persisted_sequence(),
            last: self.log.last_id(),
            stable: self.log.stable_index(),
            committed: self.committed,
            committed_term: self.log.term_at(self.committed),
            delivered: self.delivered,
            applied: self.applied,
            term_start,
            stage: self.stage(),
            open_configurations: term_start.map_or(0, open),
        })
    }

    fn persist_hard_state(&mut self, fx: &mut Effects) {
        // Only the last of several changes within one step matters.
        if let Some(LogOp::HardState(last)) = fx.log.last_mut() {
            last.clone_from(&self.hard_state);
        } else {
            fx.log.push(LogOp::HardState(self.hard_state.clone()));
        }
    }

    /// Whether an answer that rests on term, vote or log as they are now must wait for the disk.
    fn hard_state_unstable(&self, fx: &Effects) -> bool {
        self.hard_state_sequence > self.log.persisted_sequence()
            || fx.log.iter().any(|op| matches!(op, LogOp::HardState(_)))
    }

    /// Whether anything that was emitted is not durable yet.
    fn anything_unstable(&self, fx: &Effects) -> bool {
        !fx.log.is_empty() || self.log.last_sequence() > self.log.persisted_sequence()
    }

    /// Whether a write is under way for so long that this node must not lead.
    fn disk_is_stalled(&self, now: Time) -> bool {
        self.log.oldest_write().is_some_and(|since| now.since(since) >= self.options.disk_stall_ms() * 1000)
    }

    /// Whether a member could be in this term: no cluster holds so many elections while one member is away. A
    /// hostile or damaged term must not push the cluster to the end of the numbers.
    fn is_plausible(&self, term: Term) -> bool {
        term <= self.hard_state.term.saturating_add(MAX_TERM_JUMP)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }
}

impl fmt::Debug for NodeImpl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.describe(), f)
    }
}

#[cfg(test)]
mod tests;
