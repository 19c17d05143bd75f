//! Pre-vote, vote, step-down (Raft §5.2, thesis §9.6; SOFAJRaft's `NodeImpl` election methods).

use crate::effects::{Effects, FsmEvent, Reply, ReplyToken, Send, Ticket};
use crate::marks::Mark;
use crate::message::{
    Extensions, RaftRequest, RaftResponse, RequestVoteRequest, RequestVoteResponse, TimeoutNowRequest,
    TimeoutNowResponse,
};
use crate::node::role::{Candidacy, Following, Leadership, Role};
use crate::node::state::NodeEvent;
use crate::node::{NodeImpl, NodeState};
use crate::peer::{PRIORITY_DISABLED, PeerId};
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{Term, Time};
use crate::vote::Vote;

/// How long a member leaves the first word to those of higher priority.
#[derive(Debug, Default)]
pub(super) struct PriorityWait {
    /// Priority that it waits for a better one to campaign with; the largest of the members until it decays.
    target: Option<i32>,
    /// Election time-outs that passed for the sake of a better one since the target last decayed.
    yielded: u32,
}

impl NodeImpl {
    /// A time-out drawn anew: the election time-out plus a random part of the largest delay.
    fn random_timeout_ms(&mut self) -> u64 {
        self.options.election_timeout_ms + self.random.below(self.options.max_election_delay_ms.max(1))
    }

    /// Whether this node may campaign at all.
    pub(super) fn may_campaign(&self) -> bool {
        let (own, removed) = (&self.options.server_id, self.removal.is_known());
        rules::election::may_campaign(self.rejoining, removed, own, &self.log, self.committed_index())
    }

    /// Voters wait for a leader; learners and nodes without configuration wait to be told.
    pub(super) fn restart_election_timer(&mut self, now: Time) {
        let patience = self.may_campaign().then(|| self.random_timeout_ms());
        let Some(following) = self.role.following_mut() else { return };
        match patience {
            Some(timeout) => following.election_timer.start(now.after_millis(timeout)),
            None => following.election_timer.stop(),
        }
    }

    fn stop_election_timer(&mut self) {
        if let Some(following) = self.role.following_mut() {
            following.election_timer.stop();
        }
    }

    /// A configuration came into force or went: this node may have become a voter or ceased to be one.
    pub(super) fn configuration_changed(&mut self, now: Time) {
        self.reset_priority();
        let Some(following) = self.role.following() else { return };
        if self.may_campaign() != following.election_timer.deadline().is_some() {
            self.restart_election_timer(now);
        }
    }

    /// Whether the leader (or, on a leader, a quorum) was heard of within the election time-out.
    pub(super) fn leader_is_alive(&self, now: Time) -> bool {
        self.leader_id().is_some()
            && now.since(self.last_leader_timestamp) < self.options.election_timeout_ms * 1000
    }

    pub(super) fn handle_election_timeout(&mut self, now: Time, fx: &mut Effects) {
        if !self.may_campaign() {
            // Its removal has been committed since the timer was set.
            self.stop_election_timer();
            return;
        }
        if self.leader_is_alive(now) {
            // Patience counts from the last message, not from when the timer happened to fire.
            self.restart_election_timer(self.last_leader_timestamp);
            return;
        }
        if self.keeps_promise(now) {
            // Its own vote would break the promise as much as one for another. An earlier life may have promised more than this time-out.
            // Not all at the same moment: members that were started together would split the votes.
            let delay = self.random.below(self.options.max_election_delay_ms.max(1));
            self.put_off(self.promise_end().after_millis(delay));
            return;
        }
        if let Some(end) = self.extended_patience(now, fx) {
            self.put_off(end);
            return;
        }
        if rules::election::asks_again(self.leader_id()) {
            self.restart_election_timer(now);
        } else {
            self.stop_election_timer();
        }
        let lost = self.leader_id().cloned();
        if let Some(leader) = lost {
            let message = format!("lost contact with leader {leader}");
            self.reset_leader_id(Status::new(RaftError::RaftTimedOut, message), fx);
        }
        if !self.may_campaign() || self.yields_to_priority() {
            return;
        }
        self.campaign(now, false, fx);
    }

    /// Begins a candidacy, in the way that is right for one that the leader has `ordered` and for one of its own.
    fn campaign(&mut self, now: Time, ordered: bool, fx: &mut Effects) {
        if rules::transfer::asks_for_pre_votes(ordered) {
            self.pre_vote(now, fx);
        } else {
            self.elect_self(ordered, fx);
        }
    }

    /// Its priority by the configuration in force, which is what the others go by, and which can be changed while the group runs.
    /// One that gives it none leaves it the one that it was started with.
    fn own_priority(&self) -> i32 {
        let own = &self.options.server_id;
        let as_member = self.log.configuration().conf.peers.iter().find(|peer| *peer == own);
        match as_member.map_or(PRIORITY_DISABLED, PeerId::priority) {
            PRIORITY_DISABLED => own.priority(),
            priority => priority,
        }
    }

    /// Whether a member of higher priority is left the first word (SOFAJRaft's `allowLaunchElection`). What it waits for decays
    /// with every second election time-out, so that somebody campaigns in the end; priority 0 never does.
    fn yields_to_priority(&mut self) -> bool {
        let own = self.own_priority();
        let conf = &self.log.configuration().conf;
        let highest = conf.peers.iter().map(PeerId::priority).max().unwrap_or(PRIORITY_DISABLED);
        match own {
            0 => return true,
            PRIORITY_DISABLED => return false,
            _ => {}
        }
        let mut target = self.priority.target.unwrap_or(highest);
        if own < target {
            self.priority.yielded += 1;
            if self.priority.yielded == 1 {
                return true;
            }
            self.priority.yielded = 0;
            let step = self.options.decay_priority_gap.max(10).max(target / 5);
            target = target.saturating_sub(step).max(1);
            self.priority.target = Some(target);
        }
        own < target
    }

    /// Another leader, or other members: priorities count from their beginning.
    pub(super) fn reset_priority(&mut self) {
        self.priority = PriorityWait::default();
    }

    /// Asks whether an election could be won, without touching term or vote.
    fn pre_vote(&mut self, now: Time, fx: &mut Effects) {
        if self.vote_write.is_some() || self.disk_is_stalled(now) {
            // A node that cannot write does not campaign.
            fx.marks.set(Mark::CampaignWaitsForDisk);
            return;
        }
        tracing::debug!(group = %self.options.group_id, node = %self.options.server_id, term = self.hard_state.term, "pre-vote");
        let Some(following) = self.role.following_mut() else { return };
        let own = &self.options.server_id;
        following.pre_votes.init();
        following.pre_votes.grant(own);
        let alone = following.pre_votes.is_granted(self.log.configuration());
        if rules::election::wins_alone(alone, own, &self.log, self.committed) {
            self.elect_self(false, fx);
            return;
        }
        let request = RequestVoteRequest {
            pre_vote: true,
            extensions: Extensions::REMOVAL,
            conf_index: self.log.configuration().id.index,
            ..self.vote_request(self.hard_state.term + 1)
        };
        self.send_vote_requests(request, fx);
    }

    /// Starts a new term as candidate. Nothing leaves, and the own vote does not count, before term and vote
    /// are durable. `ordered` by the leader itself, which no voter needs to protect then.
    pub(super) fn elect_self(&mut self, ordered: bool, fx: &mut Effects) {
        let own = self.options.server_id.clone();
        let status = Status::new(RaftError::RaftTimedOut, "campaigning");
        self.reset_leader_id(status, fx);
        self.role.enter(NodeEvent::Campaign, Role::Candidate(Candidacy::default()));
        self.hard_state.term += 1;
        self.hard_state.vote = Vote::For(own);
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, term = self.hard_state.term, "campaigns");
        self.persist_hard_state(fx);
        self.vote_write = Some(self.log.last_sequence() + 1);
        let transfer = rules::transfer::tells_of_order(ordered);
        let request = self.vote_request(self.hard_state.term);
        self.send_vote_requests(RequestVoteRequest { transfer, ..request }, fx);
    }

    /// Asks for a vote in `term`.
    fn vote_request(&self, term: Term) -> RequestVoteRequest {
        RequestVoteRequest {
            term,
            last_log: self.log.last_id(),
            pre_vote: false,
            transfer: false,
            extensions: Extensions::NONE,
            conf_index: 0,
        }
    }

    /// Begins a round: asks everybody.
    fn send_vote_requests(&mut self, request: RequestVoteRequest, fx: &mut Effects) {
        self.vote_round = Ticket(self.last_ticket + 1);
        let own = self.options.server_id.clone();
        let asked = rules::election::asked_for_votes(self.log.configuration());
        let peers: Vec<PeerId> = asked.filter(|p| **p != own).cloned().collect();
        for to in peers {
            let ticket = self.next_ticket();
            fx.sends.push(Send {
                to,
                ticket,
                request: RaftRequest::RequestVote(request),
                after_durable: rules::election::vote_request_waits(request.pre_vote),
                timeout_ms: u32::try_from(self.options.election_timeout_ms).unwrap_or(u32::MAX),
            });
        }
    }

    /// The write that carries the own candidacy or a granted vote is durable.
    pub(super) fn vote_is_durable(&mut self, now: Time, fx: &mut Effects) {
        if self.state() == NodeState::Follower {
            // Patience counts from when the vote could reach the candidate (RATIS-980).
            self.restart_election_timer(now);
        }
        if self.state() == NodeState::Candidate {
            let timeout = self.random_timeout_ms();
            let own = self.options.server_id.clone();
            if let Role::Candidate(candidacy) = &mut self.role {
                candidacy.vote_timer.start(now.after_millis(timeout));
            }
            self.count_vote(now, &own, fx);
        }
    }

    /// A vote for this candidate.
    fn count_vote(&mut self, now: Time, voter: &PeerId, fx: &mut Effects) {
        let Role::Candidate(candidacy) = &mut self.role else { return };
        candidacy.votes.grant(voter);
        if candidacy.votes.is_granted(self.log.configuration()) {
            self.become_leader(now, fx);
        }
    }

    pub(super) fn handle_vote_timeout(&mut self, now: Time, fx: &mut Effects) {
        if let Some(end) = self.extended_patience(now, fx) {
            self.put_off(end);
            return;
        }
        let refused = matches!(&self.role, Role::Candidate(candidacy) if candidacy.refused);
        fx.marks.set(Mark::VoteRoundTimedOut);
        // Who was refused might be one that the others have removed without its knowledge: it would raise terms, and depose leaders,
        // for ever.
        if self.options.step_down_when_vote_timedout || refused {
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
        let has_leader = self.leader_is_alive(now) && self.leader_id() != Some(from);
        // Nor would its vote be granted within the promise: that would only raise terms, and depose the leader.
        let has_leader = has_leader || self.keeps_promise(now);
        let granted = rules::election::takes_part(self.rejoining)
            && !has_leader
            && request.term >= self.hard_state.term
            && rules::election::is_up_to_date(request.last_log, &self.log);
        if has_leader {
            fx.marks.set(Mark::PreVoteRefusedForLeader);
        } else if request.last_log < self.log.last_id() {
            fx.marks.set(Mark::PreVoteRefusedByLog);
        }
        let removed = if granted { None } else { self.removal_to_tell(from, &request) };
        let response = RequestVoteResponse { term: self.hard_state.term, granted, removed };
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
            let response = RequestVoteResponse { term: self.hard_state.term, granted: false, removed: None };
            let after_durable = self.hard_state_unstable(fx);
            fx.replies.push(Reply { token, response: RaftResponse::RequestVote(response), after_durable });
            return;
        }
        if request.term > self.hard_state.term {
            let message = format!("{from} asks for votes in term {}", request.term);
            self.step_down(now, request.term, Status::new(RaftError::HigherTermRequest, message), fx);
        }
        let up_to_date = rules::election::is_up_to_date(request.last_log, &self.log);
        let granted = request.term == self.hard_state.term
            && self.state() == NodeState::Follower
            && rules::election::may_grant_vote(&self.hard_state.vote, from, up_to_date);
        if granted {
            if self.hard_state.vote.candidate() != Some(from) {
                self.hard_state.vote = Vote::For(from.clone());
                self.persist_hard_state(fx);
                self.vote_write = Some(self.log.last_sequence() + 1);
            }
            self.restart_election_timer(now);
        } else if request.last_log < self.log.last_id() {
            fx.marks.set(Mark::VoteRefusedByLog);
        } else if request.term == self.hard_state.term {
            fx.marks.set(Mark::VoteRefusedAlreadyGiven);
        }
        let response = RequestVoteResponse { term: self.hard_state.term, granted, removed: None };
        let after_durable = rules::election::vote_answer_waits(self.anything_unstable(fx));
        fx.replies.push(Reply { token, response: RaftResponse::RequestVote(response), after_durable });
    }

    pub(super) fn handle_vote_response(
        &mut self,
        now: Time,
        from: &PeerId,
        ticket: Ticket,
        response: RequestVoteResponse,
        fx: &mut Effects,
    ) {
        let asks_for_pre_votes = self.state() == NodeState::Follower;
        if asks_for_pre_votes && !rules::election::looks_at_pre_vote(response.term, self.hard_state.term) {
            return;
        }
        if asks_for_pre_votes && rules::election::is_of_round(ticket, self.vote_round) {
            // Before the term, which ends the round: who was away for long learns of both from one answer.
            self.hear_of_removal(now, from, &response, fx);
        }
        if self.step_down_if_higher(now, response.term, RaftError::HigherTermResponse, fx) {
            return;
        }
        let of_this_round = rules::election::is_of_round(ticket, self.vote_round);
        if let Role::Candidate(candidacy) = &mut self.role {
            candidacy.refused |= of_this_round && !response.granted;
        }
        if !of_this_round || !rules::election::is_grant(response.granted) {
            if response.granted {
                fx.marks.set(Mark::LateGrantIgnored);
            }
            return;
        }
        match &mut self.role {
            Role::Follower(following) => {
                following.pre_votes.grant(from);
                if following.pre_votes.is_granted(self.log.configuration()) {
                    self.elect_self(false, fx);
                }
            }
            // An answer of this term to a request of this round; the own vote counts once it is durable.
            Role::Candidate(_) if response.term == self.hard_state.term => self.count_vote(now, from, fx),
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
        let of_this_term = request.term == self.hard_state.term;
        let of_own_leader = self.leader_id() == Some(from);
        let accepts = rules::transfer::may_obey(of_this_term, of_own_leader)
            && self.state() == NodeState::Follower
            && self.may_campaign();
        let term = if accepts { request.term + 1 } else { self.hard_state.term };
        if accepts {
            self.campaign(now, true, fx);
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
        debug_assert!(self.state().is_active() && term >= self.hard_state.term);
        if self.state() != NodeState::Follower {
            tracing::info!(group = %self.options.group_id, node = %self.options.server_id, state = %self.state(),
                term = self.hard_state.term, new_term = term, %status, "steps down");
        }
        self.reset_leader_id(status.clone(), fx);
        let patience = match self.role.enter(NodeEvent::StepDown, Role::Follower(Following::default())) {
            Role::Follower(before) => before.election_timer.deadline().filter(|_| self.may_campaign()),
            Role::Leader(leadership) => {
                self.end_leadership(now, *leadership, term, status, fx);
                None
            }
            _ => None,
        };
        self.end_vote_round();
        if term > self.hard_state.term {
            self.hard_state.term = term;
            self.hard_state.vote = rules::election::vote_of_new_term(&self.hard_state.vote, self.rejoining);
            self.vote_write = None;
            self.persist_hard_state(fx);
        }
        let Some(deadline) = patience else {
            self.restart_election_timer(now);
            return;
        };
        // A follower's patience goes on until it grants a vote or hears of a leader (Raft §5.2): a candidate that cannot win must not
        // keep it from trying. It counts from the last message of a leader, not from when the timer happened to be set.
        let end = self.last_leader_timestamp.after_millis(self.random_timeout_ms());
        if let Some(following) = self.role.following_mut() {
            following.election_timer.start(end.max(deadline));
        }
    }

    /// Everything that only a leader does is over; who waits for it is told.
    fn end_leadership(
        &mut self,
        now: Time,
        leadership: Leadership,
        term: Term,
        status: Status,
        fx: &mut Effects,
    ) {
        self.abandon_rounds(fx);
        leadership.change.tell_of_end(&status, fx);
        self.tell_of_transfer(now, leadership.transfer, term, &status, fx);
        rules::log::step_down_cuts_nothing(&mut self.log, self.committed, &mut fx.log);
        if leadership.announced {
            fx.fsm.push(FsmEvent::LeaderStop { status: status.clone() });
        }
        fx.abandoned = Some(status);
    }

    /// Late grants count for nothing: those of a candidacy are no pre-votes, and pre-votes that come when a leader
    /// was heard of must not depose it.
    pub(super) fn end_vote_round(&mut self) {
        self.vote_round = Ticket(self.last_ticket + 1);
        if let Some(following) = self.role.following_mut() {
            following.pre_votes.init();
        }
    }

    /// Forgets the leader that was followed, if any.
    pub(super) fn reset_leader_id(&mut self, status: Status, fx: &mut Effects) {
        if let Some(leader) = self.role.following_mut().and_then(|following| following.leader.take()) {
            self.take_back_question();
            fx.fsm.push(FsmEvent::StopFollowing { leader, term: self.hard_state.term, status });
        }
    }
}
