//! Pre-vote, vote, step-down (Raft §5.2, thesis §9.6; SOFAJRaft's `NodeImpl` election methods).

use crate::effects::{Effects, FsmEvent, LogOp, Reply, ReplyToken, Send, Ticket};
use crate::marks::Mark;
use crate::message::{
    RaftRequest, RaftResponse, RequestVoteRequest, RequestVoteResponse, TimeoutNowRequest, TimeoutNowResponse,
};
use crate::mutants::Mutant;
use crate::node::{NodeImpl, NodeState};
use crate::peer::{PRIORITY_DISABLED, PeerId};
use crate::status::{RaftError, Status};
use crate::types::{LogId, Term, Time};

impl NodeImpl {
    /// A time-out drawn anew: the election time-out plus a random part of the largest delay.
    fn random_timeout_ms(&mut self) -> u64 {
        self.options.election_timeout_ms + self.random.below(self.options.max_election_delay_ms.max(1))
    }

    /// Whether this node votes, by a configuration that may be in force for others: one that excludes it and is not known to be
    /// committed may have reached nobody else, and then nobody could be elected without it (thesis §4.2.2).
    fn may_campaign(&self) -> bool {
        let rejoining = self.rejoining && !Mutant::H10RejoiningPeerVotes.is_active();
        if Mutant::B15ExcludedMemberGivesUp.is_active() {
            return !rejoining && self.log.configuration().is_voter(&self.options.server_id);
        }
        if Mutant::B15RemovedMemberCampaigns.is_active() && self.log.last_id().index > 0 {
            return !rejoining;
        }
        !rejoining && self.log.may_decide(&self.options.server_id, self.committed_index())
    }

    /// Voters wait for a leader; learners and nodes without configuration wait to be told.
    pub(super) fn restart_election_timer(&mut self, now: Time) {
        if self.may_campaign() {
            let timeout = self.random_timeout_ms();
            self.election_timer.start(now.after_millis(timeout));
        } else {
            self.election_timer.stop();
        }
    }

    /// A configuration came into force or went: this node may have become a voter or ceased to be one.
    pub(super) fn configuration_changed(&mut self, now: Time) {
        self.reset_priority();
        if self.state == NodeState::Follower
            && self.may_campaign() != self.election_timer.deadline().is_some()
        {
            self.restart_election_timer(now);
        }
    }

    /// Whether the leader (or, on a leader, a quorum) was heard of within the election time-out.
    pub(super) fn leader_is_alive(&self, now: Time) -> bool {
        self.leader_id.is_some()
            && now.since(self.last_leader_timestamp) < self.options.election_timeout_ms * 1000
    }

    pub(super) fn handle_election_timeout(&mut self, now: Time, fx: &mut Effects) {
        debug_assert!(self.state == NodeState::Follower);
        if !self.may_campaign() {
            // Its removal has been committed since the timer was set.
            self.election_timer.stop();
            return;
        }
        if self.leader_is_alive(now) {
            // Patience counts from the last message, not from when the timer happened to fire.
            self.restart_election_timer(self.last_leader_timestamp);
            return;
        }
        if let Some(end) = self.extended_patience(now, fx) {
            self.election_timer.start(end);
            return;
        }
        if Mutant::B3PreVoteAsksOnce.is_active() && self.leader_id.is_none() {
            self.election_timer.stop();
        } else {
            self.restart_election_timer(now);
        }
        let lost = self.leader_id.clone();
        if let Some(leader) = lost {
            let message = format!("lost contact with leader {leader}");
            self.reset_leader_id(Status::new(RaftError::RaftTimedOut, message), fx);
        }
        if !self.may_campaign() || self.yields_to_priority() {
            return;
        }
        self.pre_vote(now, fx);
    }

    /// Whether a member of higher priority is left the first word (SOFAJRaft's `allowLaunchElection`). What it waits for decays
    /// with every second election time-out, so that somebody campaigns in the end; priority 0 never does.
    fn yields_to_priority(&mut self) -> bool {
        let conf = &self.log.configuration().conf;
        let as_member = |peer: &&PeerId| **peer == self.options.server_id;
        let own = match self.options.server_id.priority() {
            PRIORITY_DISABLED => {
                conf.peers.iter().find(as_member).map_or(PRIORITY_DISABLED, PeerId::priority)
            }
            priority => priority,
        };
        let highest = conf.peers.iter().map(PeerId::priority).max().unwrap_or(PRIORITY_DISABLED);
        match own {
            0 => return true,
            PRIORITY_DISABLED => return false,
            _ => {}
        }
        let mut target = self.target_priority.unwrap_or(highest);
        if own < target {
            self.yielded += 1;
            if self.yielded == 1 {
                return true;
            }
            self.yielded = 0;
            let step = self.options.decay_priority_gap.max(10).max(target / 5);
            target = target.saturating_sub(step).max(1);
            self.target_priority = Some(target);
        }
        own < target
    }

    /// Another leader, or other members: priorities count from their beginning.
    pub(super) fn reset_priority(&mut self) {
        self.target_priority = None;
        self.yielded = 0;
    }

    /// Asks whether an election could be won, without touching term or vote.
    fn pre_vote(&mut self, now: Time, fx: &mut Effects) {
        if self.vote_sequence != 0 || self.disk_is_stalled(now) {
            // A node that cannot write does not campaign.
            fx.marks.set(Mark::CampaignWaitsForDisk);
            return;
        }
        tracing::debug!(group = %self.options.group_id, node = %self.options.server_id, term = self.hard_state.term, "pre-vote");
        self.prev_vote_ctx.init();
        let own = self.options.server_id.clone();
        self.prev_vote_ctx.grant(&own);
        let removed = !self.log.may_decide(&own, self.committed_index());
        if removed && Mutant::B15RemovedMemberCampaigns.is_active()
            || self.prev_vote_ctx.is_granted(self.log.configuration())
        {
            self.elect_self(false, fx);
            return;
        }
        self.send_vote_requests(self.hard_state.term + 1, true, fx);
    }

    /// Starts a new term as candidate. Nothing leaves, and the own vote does not count, before term and vote
    /// are durable. `ordered` by the leader itself, which no voter needs to protect then.
    pub(super) fn elect_self(&mut self, ordered: bool, fx: &mut Effects) {
        debug_assert!(self.state == NodeState::Follower || self.state == NodeState::Candidate);
        let own = self.options.server_id.clone();
        let status = Status::new(RaftError::RaftTimedOut, "campaigning");
        self.reset_leader_id(status, fx);
        self.state = NodeState::Candidate;
        self.ordered_to_campaign = ordered;
        self.hard_state.term += 1;
        self.hard_state.voted_for = Some(own);
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, term = self.hard_state.term, "campaigns");
        self.election_timer.stop();
        // The vote timer starts when the vote is durable: a slow disk must not burn terms.
        self.vote_timer.stop();
        self.vote_ctx.init();
        self.vote_refused = false;
        self.persist_hard_state(fx);
        self.vote_sequence = self.log.last_sequence() + 1;
        self.send_vote_requests(self.hard_state.term, false, fx);
    }

    fn send_vote_requests(&mut self, term: Term, pre_vote: bool, fx: &mut Effects) {
        self.vote_round = Ticket(self.last_ticket + 1);
        let own = self.options.server_id.clone();
        let conf = self.log.configuration();
        let learners = conf.learners().filter(|_| Mutant::C10LearnersVote.is_active());
        let peers: Vec<PeerId> = conf.voters().chain(learners).filter(|p| **p != own).cloned().collect();
        let marks = !Mutant::B11NoTransferMark.is_active();
        let transfer = marks && self.ordered_to_campaign && self.options.lease_reads && !pre_vote;
        let request = RequestVoteRequest { term, last_log: self.log.last_id(), pre_vote, transfer };
        for to in peers {
            let ticket = self.next_ticket();
            fx.sends.push(Send {
                to,
                ticket,
                request: RaftRequest::RequestVote(request),
                after_durable: !pre_vote && !Mutant::A2VoteRequestedBeforeDurable.is_active(),
                timeout_ms: u32::try_from(self.options.election_timeout_ms).unwrap_or(u32::MAX),
            });
        }
    }

    /// The write that carries the own candidacy or a granted vote is durable.
    pub(super) fn vote_is_durable(&mut self, now: Time, fx: &mut Effects) {
        match self.state {
            NodeState::Candidate => {
                let timeout = self.random_timeout_ms();
                self.vote_timer.start(now.after_millis(timeout));
                let own = self.options.server_id.clone();
                self.vote_ctx.grant(&own);
                if self.vote_ctx.is_granted(self.log.configuration()) {
                    self.become_leader(now, fx);
                }
            }
            // Patience counts from when the vote could reach the candidate (RATIS-980).
            NodeState::Follower => self.restart_election_timer(now),
            _ => {}
        }
    }

    pub(super) fn handle_vote_timeout(&mut self, now: Time, fx: &mut Effects) {
        debug_assert!(self.state == NodeState::Candidate);
        if let Some(end) = self.extended_patience(now, fx) {
            self.vote_timer.start(end);
            return;
        }
        fx.marks.set(Mark::VoteRoundTimedOut);
        // Who was refused might be one that the others have removed without its knowledge: it would raise terms, and depose leaders,
        // for ever.
        if self.options.step_down_when_vote_timedout || self.vote_refused {
            let status = Status::new(RaftError::RaftTimedOut, "the vote round timed out without a quorum");
            self.step_down(now, self.hard_state.term, status, fx);
            self.pre_vote(now, fx);
        } else {
            self.elect_self(false, fx);
        }
    }

    pub(super) fn handle_pre_vote_request(
        &mut self,
        now: Time,
        from: &PeerId,
        token: ReplyToken,
        request: RequestVoteRequest,
        fx: &mut Effects,
    ) {
        // A leader that asks for pre-votes leads no more, whatever was heard of it before (hashicorp#605).
        let has_leader = self.leader_is_alive(now) && self.leader_id.as_ref() != Some(from);
        // Nor would its vote be granted within the promise: that would only raise terms, and depose the leader.
        let has_leader = has_leader || self.keeps_promise(now);
        let rejoining = self.rejoining && !Mutant::H10RejoiningPeerVotes.is_active();
        let granted = !rejoining
            && !has_leader
            && request.term >= self.hard_state.term
            && self.is_up_to_date(request.last_log);
        if has_leader {
            fx.marks.set(Mark::PreVoteRefusedForLeader);
        } else if request.last_log < self.log.last_id() {
            fx.marks.set(Mark::PreVoteRefusedByLog);
        }
        let response = RequestVoteResponse { term: self.hard_state.term, granted };
        let after_durable = self.hard_state_unstable(fx);
        fx.replies.push(Reply { token, response: RaftResponse::RequestVote(response), after_durable });
    }

    pub(super) fn handle_request_vote_request(
        &mut self,
        now: Time,
        from: &PeerId,
        token: ReplyToken,
        request: RequestVoteRequest,
        fx: &mut Effects,
    ) {
        if self.keeps_promise(now) && !request.transfer {
            let response = RequestVoteResponse { term: self.hard_state.term, granted: false };
            let after_durable = self.hard_state_unstable(fx);
            fx.replies.push(Reply { token, response: RaftResponse::RequestVote(response), after_durable });
            return;
        }
        if request.term > self.hard_state.term {
            let message = format!("{from} asks for votes in term {}", request.term);
            self.step_down(now, request.term, Status::new(RaftError::HigherTermRequest, message), fx);
        }
        let mut voted = self.hard_state.voted_for.clone();
        if Mutant::H10RejoiningPeerVotes.is_active() {
            voted = voted.filter(|vote| !vote.is_empty());
        }
        let granted = request.term == self.hard_state.term
            && self.state == NodeState::Follower
            // A vote for the empty peer is how a lost disk is remembered.
            && !from.is_empty()
            && voted.as_ref().is_none_or(|v| v == from)
            && (self.is_up_to_date(request.last_log) || Mutant::A7LogsAreNotCompared.is_active());
        if granted {
            if voted.is_none() {
                self.hard_state.voted_for = Some(from.clone());
                self.persist_hard_state(fx);
                self.vote_sequence = self.log.last_sequence() + 1;
            }
            self.restart_election_timer(now);
        } else if request.last_log < self.log.last_id() {
            fx.marks.set(Mark::VoteRefusedByLog);
        } else if request.term == self.hard_state.term {
            fx.marks.set(Mark::VoteRefusedAlreadyGiven);
        }
        let response = RequestVoteResponse { term: self.hard_state.term, granted };
        let after_durable = self.anything_unstable(fx) && !Mutant::A1VoteAnsweredBeforeDurable.is_active();
        fx.replies.push(Reply { token, response: RaftResponse::RequestVote(response), after_durable });
    }

    /// Whether a candidate's log is at least as new as the own one (Raft §5.4.1).
    fn is_up_to_date(&self, candidate: LogId) -> bool {
        // The last *accepted* entry, durable or not: what was accepted may count in a quorum already.
        let mut own = self.log.last_id();
        if Mutant::A13VoterComparesStableIndex.is_active() {
            let stable = self.log.stable_index();
            own = LogId::new(stable, self.log.term_at(stable).unwrap_or(0));
        }
        if Mutant::A10LongerLogWins.is_active() {
            return candidate.index >= own.index;
        }
        if Mutant::A10LogsMustBeAheadInBoth.is_active() {
            return candidate.term >= own.term && candidate.index >= own.index;
        }
        candidate >= own
    }

    pub(super) fn handle_vote_response(
        &mut self,
        now: Time,
        from: &PeerId,
        ticket: Ticket,
        response: RequestVoteResponse,
        fx: &mut Effects,
    ) {
        if Mutant::B1PreVotesOfOtherTermsAreDropped.is_active()
            && self.state == NodeState::Follower
            && response.term != self.hard_state.term
        {
            return;
        }
        if self.step_down_if_higher(now, response.term, RaftError::HigherTermResponse, fx) {
            return;
        }
        // Grants of an earlier round count for nothing (little-raft#44).
        let of_this_round = ticket >= self.vote_round || Mutant::A11GrantOfAnEarlierRound.is_active();
        self.vote_refused |= of_this_round && !response.granted && self.state == NodeState::Candidate;
        if !of_this_round || !(response.granted || Mutant::A7RefusalCountsAsGrant.is_active()) {
            if response.granted {
                fx.marks.set(Mark::LateGrantIgnored);
            }
            return;
        }
        match self.state {
            NodeState::Follower => {
                self.prev_vote_ctx.grant(from);
                if self.prev_vote_ctx.is_granted(self.log.configuration()) {
                    self.elect_self(false, fx);
                }
            }
            // An answer of this term to a request of this round; the own vote counts once it is durable.
            NodeState::Candidate if response.term == self.hard_state.term => {
                self.vote_ctx.grant(from);
                if self.vote_ctx.is_granted(self.log.configuration()) {
                    self.become_leader(now, fx);
                }
            }
            _ => {}
        }
    }

    pub(super) fn handle_timeout_now_request(
        &mut self,
        now: Time,
        from: &PeerId,
        token: ReplyToken,
        request: TimeoutNowRequest,
        fx: &mut Effects,
    ) {
        if request.term > self.hard_state.term {
            let message = format!("{from} transfers leadership in term {}", request.term);
            self.step_down(now, request.term, Status::new(RaftError::HigherTermRequest, message), fx);
        }
        let votes = self.may_campaign();
        let stale = Mutant::G3StaleOrderIsObeyed.is_active();
        let accepts = (request.term == self.hard_state.term || stale)
            && self.state == NodeState::Follower
            && (self.leader_id.as_ref() == Some(from) || stale)
            && votes;
        let term = if accepts { request.term + 1 } else { self.hard_state.term };
        if accepts && Mutant::B14TransferAsksForPreVotes.is_active() {
            self.pre_vote(now, fx);
        } else if accepts {
            self.elect_self(true, fx);
        }
        let response = RaftResponse::TimeoutNow(TimeoutNowResponse { term, success: accepts });
        let after_durable = self.anything_unstable(fx);
        fx.replies.push(Reply { token, response, after_durable });
    }

    /// Steps down when somebody knows a higher term. Returns whether it did.
    pub(super) fn step_down_if_higher(
        &mut self,
        now: Time,
        term: Term,
        error: RaftError,
        fx: &mut Effects,
    ) -> bool {
        if term <= self.hard_state.term {
            return false;
        }
        fx.marks.set(Mark::HigherTermSeen);
        self.step_down(now, term, Status::new(error, format!("another node is in term {term}")), fx);
        true
    }

    /// Becomes a follower of nobody, in `term` when that is higher. Waiting proposals become *unknown*.
    pub(super) fn step_down(&mut self, now: Time, term: Term, status: Status, fx: &mut Effects) {
        debug_assert!(self.state.is_active() && term >= self.hard_state.term);
        if self.state != NodeState::Follower {
            tracing::info!(group = %self.options.group_id, node = %self.options.server_id, state = %self.state,
                term = self.hard_state.term, new_term = term, %status, "steps down");
        }
        if matches!(self.state, NodeState::Leader | NodeState::Transferring) {
            self.abandon_rounds(fx);
            self.abandon_change(&status, fx);
            self.end_transfer(term, &status, fx);
            self.ballot_box.clear_pending_tasks();
            self.replicators.stop_all();
            self.step_down_timer.stop();
            self.term_start_index = 0;
            let uncommitted = self.committed_index() + 1;
            if Mutant::D25StepDownCutsTheLog.is_active() && uncommitted <= self.log.last_id().index {
                self.log.truncate_suffix(uncommitted);
                fx.log.push(LogOp::TruncateSuffix { from: uncommitted });
            }
            if std::mem::take(&mut self.leader_started) {
                fx.fsm.push(FsmEvent::LeaderStop { status: status.clone() });
            }
            fx.abandoned = Some(status.clone());
            self.leader_id = None;
        }
        self.reset_leader_id(status, fx);
        self.vote_timer.stop();
        let followed = self.state == NodeState::Follower && self.may_campaign();
        self.state = NodeState::Follower;
        self.end_vote_round();
        if term > self.hard_state.term {
            self.hard_state.term = term;
            if !Mutant::A4VoteSurvivesItsTerm.is_active() {
                self.hard_state.voted_for = self.rejoining.then(PeerId::empty);
            }
            self.vote_sequence = 0;
            self.persist_hard_state(fx);
        }
        // A follower's patience goes on until it grants a vote or hears of a leader (Raft §5.2): a candidate that cannot win must not
        // keep it from trying. It counts from the last message of a leader, not from when the timer happened to be set.
        match self.election_timer.deadline().filter(|_| followed) {
            Some(deadline) => {
                let patience = self.random_timeout_ms();
                let end = self.last_leader_timestamp.after_millis(patience);
                self.election_timer.start(end.max(deadline));
            }
            None => self.restart_election_timer(now),
        }
    }

    /// Late grants count for nothing: those of a candidacy are no pre-votes, and pre-votes that come when a leader
    /// was heard of must not depose it.
    pub(super) fn end_vote_round(&mut self) {
        self.vote_round = Ticket(self.last_ticket + 1);
        self.prev_vote_ctx.init();
    }

    /// Forgets the leader that was followed, if any.
    pub(super) fn reset_leader_id(&mut self, status: Status, fx: &mut Effects) {
        if let Some(leader) = self.leader_id.take() {
            fx.fsm.push(FsmEvent::StopFollowing { leader, term: self.hard_state.term, status });
        }
    }
}
