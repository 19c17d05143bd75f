//! Linearizable reads without a log entry (thesis §6.4; SOFAJRaft's `ReadOnlyServiceImpl`, `NodeImpl.handleReadIndexRequest`).
//!
//! A leader remembers where the log was committed when the reads came, and lets them pass when a quorum has answered messages
//! that were sent *after* that: then nobody else led in between. Heartbeats are the messages, one round a round trip however many
//! reads wait. Followers and learners ask the leader, one question at a time for all reads that wait.

use std::collections::VecDeque;

use crate::effects::{
    CallFailure, CallOutcome, CallToken, Effects, FsmEvent, Reply, ReplyToken, Send, Ticket,
};
use crate::message::{
    AppendKind, RaftRequest, RaftResponse, ReadIndexRequest, ReadIndexResponse, ReadOnlyOption,
};
use crate::node::role::Leadership;
use crate::node::{NodeImpl, NodeState};
use crate::peer::PeerId;
use crate::replicator::Replicator;
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{LogIndex, Time};

/// Reads that wait for the same quorum.
#[derive(Debug)]
struct Round {
    /// Only answers to requests after this one count.
    after: Ticket,
    index: LogIndex,
    calls: Vec<CallToken>,
    /// Questions of followers.
    replies: Vec<ReplyToken>,
    since: Time,
}

/// Reads that came together, and when.
type Batch = (Time, Vec<CallToken>);

/// The question that was put to the leader.
#[derive(Debug)]
struct Forwarded {
    ticket: Ticket,
    /// How sure the leader was asked to be.
    mode: ReadOnlyOption,
    /// Oldest first.
    batches: Vec<Batch>,
}

/// Reads that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct ReadOnlyService {
    /// Leader: oldest first.
    rounds: VecDeque<Round>,
    /// Others: what the next question will be about, oldest first.
    waiting: Vec<Batch>,
    /// How sure the leader must be for all of them.
    waiting_mode: ReadOnlyOption,
    forwarded: Option<Forwarded>,
    /// The leader could not be asked: why, and when it is asked again, unless the link to it is there before.
    unreachable: Option<(Status, Time)>,
    /// They may be answered once everything up to the index is handed over.
    confirmed: Vec<(LogIndex, Time, Vec<CallToken>)>,
    /// How many reads are in here.
    len: usize,
}

impl ReadOnlyService {
    /// Reads that wait here.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn fail(&mut self, calls: Vec<CallToken>, status: &Status, fx: &mut Effects) {
        self.len -= calls.len();
        fx.calls.extend(
            calls
                .into_iter()
                .map(|call| CallOutcome { call, result: Err(CallFailure::Failed(status.clone())) }),
        );
    }

    fn fail_all(&mut self, batches: Vec<Batch>, status: &Status, fx: &mut Effects) {
        batches.into_iter().for_each(|(_, calls)| self.fail(calls, status, fx));
    }

    /// When the oldest read has waited for `timeout_ms`.
    fn deadline(&self, timeout_ms: u64) -> Option<Time> {
        let rounds = self.rounds.front().map(|round| round.since);
        let confirmed = self.confirmed.iter().map(|(_, since, _)| *since).min();
        let asked = self.forwarded.as_ref().and_then(|f| f.batches.first()).map(|(since, _)| *since);
        let waiting = self.waiting.first().map(|(since, _)| *since);
        let oldest = rounds.into_iter().chain(confirmed).chain(asked).chain(waiting).min();
        // While a question is under way its answer is waited for.
        let asks_again = !self.waiting.is_empty() && self.forwarded.is_none();
        let again = self.unreachable.as_ref().filter(|_| asks_again).map(|(_, at)| *at);
        oldest.map(|since| since.after_millis(timeout_ms)).into_iter().chain(again).min()
    }
}

impl NodeImpl {
    /// When a read has waited for too long.
    pub(super) fn read_deadline(&self) -> Option<Time> {
        self.reads.deadline(self.options.read_index_timeout_ms)
    }

    pub(super) fn handle_read_index(
        &mut self,
        now: Time,
        calls: Vec<CallToken>,
        mode: ReadOnlyOption,
        fx: &mut Effects,
    ) {
        self.reads.len += calls.len();
        if let Some(status) = self.refuses_reads(calls.len()) {
            self.reads.fail(calls, &status, fx);
            return;
        }
        if self.role.leads() {
            self.begin_read(now, now, calls, None, mode, fx);
            return;
        }
        if let Some(index) = rules::reads::index_without_asking(self.committed_index()) {
            self.reads.confirmed.push((index, now, calls));
            return;
        }
        if self.leader_id().is_none() {
            // Those that were asked of a leader already wait for the next one; who comes now may find another replica that knows one.
            let status = self.not_leader();
            self.reads.fail(calls, &status, fx);
            return;
        }
        if self.reads.waiting.is_empty() || mode == ReadOnlyOption::Safe {
            self.reads.waiting_mode = mode;
        }
        self.reads.waiting.push((now, calls));
        self.forward_reads(now, fx);
    }

    fn refuses_reads(&self, more: usize) -> Option<Status> {
        if !self.state().is_active() {
            let message = format!("node {} is {}", self.options.server_id, self.state());
            return Some(
                self.last_error.clone().unwrap_or_else(|| Status::new(RaftError::NodeShutdown, message)),
            );
        }
        if self.reads.len > self.options.max_pending_reads {
            let message = format!("{} reads wait already, {more} more do not fit", self.reads.len - more);
            return Some(Status::new(RaftError::Busy, message));
        }
        let lag = self.committed_index().saturating_sub(self.applied);
        match self.options.max_read_index_lag {
            Some(limit) if self.state() == NodeState::Follower && lag > limit => {
                let message = format!(
                    "the state machine is {lag} entries behind, more than {limit}; ask another replica"
                );
                Some(Status::new(RaftError::Busy, message))
            }
            _ => None,
        }
    }

    /// A follower or learner asks.
    pub(super) fn handle_read_index_request(
        &mut self,
        now: Time,
        token: ReplyToken,
        request: ReadIndexRequest,
        fx: &mut Effects,
    ) {
        if self.role.leads() {
            self.begin_read(now, now, Vec::new(), Some(token), request.mode, fx);
            return;
        }
        let response = rules::reads::answer_of_non_leader(self.not_leader(), self.committed_index());
        fx.replies.push(Reply { token, response, after_durable: false });
    }

    /// "Not the leader", with the leader's name when it is known.
    pub(super) fn not_leader(&self) -> Status {
        let who = self.leader_id().map_or("no leader is known".to_owned(), |l| format!("{l} leads"));
        Status::new(RaftError::NotPermitted, format!("{} is not the leader; {who}", self.options.server_id))
    }

    /// Leader: notes where the log is committed, and lets the reads pass at once when a lease or the lack of others allows it.
    fn begin_read(
        &mut self,
        now: Time,
        since: Time,
        calls: Vec<CallToken>,
        reply: Option<ReplyToken>,
        mode: ReadOnlyOption,
        fx: &mut Effects,
    ) {
        let first = self.role.leadership().map_or(0, Leadership::first_index);
        let index = rules::reads::read_index(self.committed, first);
        let replies: Vec<ReplyToken> = reply.into_iter().collect();
        let after = Ticket(self.last_ticket);
        let round = Round { after, index, calls, replies, since };
        let leased = mode == ReadOnlyOption::LeaseBased && self.lease_is_valid(now);
        if leased || rules::reads::needs_no_round(self.acknowledged_by_quorum(), after) {
            self.confirm(round, fx);
            return;
        }
        match self.reads.rounds.back_mut() {
            Some(last) if last.after == after => {
                last.since = last.since.min(since);
                last.index = last.index.max(index);
                rules::reads::join_round(&mut last.calls, round.calls);
                last.replies.extend(round.replies);
            }
            _ => self.reads.rounds.push_back(round),
        }
        self.solicit_acknowledgements(now, fx);
    }

    /// The newest request for which a quorum has answered that one or a later one. The own answer is always there.
    fn acknowledged_by_quorum(&mut self) -> Option<Ticket> {
        let leader = self.role.leadership_mut()?;
        let count = leader.replicators.count(&self.log, &self.options.server_id);
        let of_peer = |r: &Replicator| r.acknowledged.filter(|_| r.counts());
        let acknowledged = |slot| count.of(slot, Some(Ticket(u64::MAX)), of_peer);
        rules::quorum::confirms_reads(count.electorate, acknowledged)
    }

    /// Sends a heartbeat to every voter that has none under way, if reads wait for it.
    fn solicit_acknowledgements(&mut self, now: Time, fx: &mut Effects) {
        let Some(after) = self.reads.rounds.back().map(|round| round.after) else { return };
        let Some(leader) = self.role.leadership_mut() else { return };
        let count = leader.replicators.count(&self.log, &self.options.server_id);
        let is_asked = |r: &Replicator| {
            rules::reads::may_ask_at_once(r.heartbeat_in_flight().is_some(), r.heartbeat_failed)
                && r.acknowledged <= Some(after)
        };
        let asked: Vec<usize> = count.voters().filter(|(_, r)| is_asked(r)).map(|(at, _)| at).collect();
        for position in asked {
            self.send_append(now, position, AppendKind::Heartbeat, Vec::new(), fx);
        }
    }

    /// A peer has answered: reads that waited for it pass.
    pub(super) fn advance_reads(&mut self, now: Time, fx: &mut Effects) {
        if self.reads.rounds.is_empty() {
            return;
        }
        let acknowledged = self.acknowledged_by_quorum();
        let confirmed = |round: &mut Round| rules::reads::round_is_confirmed(acknowledged, round.after);
        while let Some(round) = self.reads.rounds.pop_front_if(confirmed) {
            self.confirm(round, fx);
        }
        self.solicit_acknowledgements(now, fx);
    }

    fn confirm(&mut self, round: Round, fx: &mut Effects) {
        let Round { index, calls, replies, since, .. } = round;
        let response = RaftResponse::ReadIndex(ReadIndexResponse { index });
        fx.replies.extend(replies.into_iter().map(|token| Reply {
            token,
            response: response.clone(),
            after_durable: false,
        }));
        if !calls.is_empty() {
            self.reads.confirmed.push((index, since, calls));
        }
    }

    /// Lets reads go whose entries are on their way to the state machine: it sees them after those.
    pub(super) fn release_reads(&mut self, fx: &mut Effects) {
        let reached = rules::reads::answerable_index(self.delivered);
        if self.reads.confirmed.iter().all(|(index, ..)| *index > reached) {
            return;
        }
        let confirmed = std::mem::take(&mut self.reads.confirmed);
        for (index, since, calls) in confirmed {
            if index <= reached {
                self.reads.len -= calls.len();
                fx.fsm.push(FsmEvent::ReadIndex { calls, index });
            } else {
                self.reads.confirmed.push((index, since, calls));
            }
        }
    }

    // --- on a follower ---

    /// Asks the leader for everything that waits, unless a question is under way: that one came too early for these reads. Where no
    /// leader is known, or it cannot be reached, they wait for one, at most for as long as a read may wait.
    fn forward_reads(&mut self, now: Time, fx: &mut Effects) {
        if self.reads.forwarded.is_some() || self.reads.waiting.is_empty() {
            return;
        }
        if self.reads.unreachable.as_ref().is_some_and(|(_, again)| now < *again) && !self.role.leads() {
            return;
        }
        if self.role.leads() {
            let batches = std::mem::take(&mut self.reads.waiting);
            // It has become the leader itself meanwhile. They have waited for a part of their time already.
            let since = batches.first().map_or(now, |(since, _)| *since);
            let calls = batches.into_iter().flat_map(|(_, calls)| calls).collect();
            self.begin_read(now, since, calls, None, self.reads.waiting_mode, fx);
            return;
        }
        let Some(to) = self.leader_id().cloned() else { return };
        let batches = std::mem::take(&mut self.reads.waiting);
        let ticket = self.next_ticket();
        self.reads.forwarded = Some(Forwarded { ticket, mode: self.reads.waiting_mode, batches });
        fx.sends.push(Send {
            to,
            ticket,
            request: RaftRequest::ReadIndex(ReadIndexRequest { mode: self.reads.waiting_mode }),
            after_durable: false,
            timeout_ms: u32::try_from(self.options.read_index_timeout_ms).unwrap_or(u32::MAX),
        });
    }

    /// The leader has answered.
    pub(super) fn handle_read_index_response(
        &mut self,
        now: Time,
        ticket: Ticket,
        response: ReadIndexResponse,
        fx: &mut Effects,
    ) {
        let Some(forwarded) = self.reads.forwarded.take_if(|f| f.ticket == ticket) else { return };
        self.reads.unreachable = None;
        let confirmed = forwarded.batches.into_iter().map(|(since, calls)| (response.index, since, calls));
        self.reads.confirmed.extend(confirmed);
        self.forward_reads(now, fx);
    }

    /// The leader that was asked is followed no more: what it was asked waits for the next one, however long that may take to answer
    /// for the old.
    pub(super) fn take_back_question(&mut self) {
        self.reads.unreachable = None;
        self.question_waits();
    }

    /// What the question was about waits for the next one: a later question is good for reads that came earlier.
    fn question_waits(&mut self) {
        let Some(forwarded) = self.reads.forwarded.take() else { return };
        let later = std::mem::replace(&mut self.reads.waiting, forwarded.batches);
        if later.is_empty() {
            self.reads.waiting_mode = forwarded.mode;
        } else if forwarded.mode == ReadOnlyOption::Safe {
            self.reads.waiting_mode = ReadOnlyOption::Safe;
        }
        self.reads.waiting.extend(later);
    }

    /// A leader is known, or the node leads itself: it is asked for the reads that wait.
    pub(super) fn leader_is_known(&mut self, now: Time, fx: &mut Effects) {
        self.forward_reads(now, fx);
    }

    /// The leader has refused to answer the question. Says whether it was one.
    pub(super) fn read_index_refused(
        &mut self,
        now: Time,
        ticket: Ticket,
        status: &Status,
        fx: &mut Effects,
    ) -> bool {
        let Some(forwarded) = self.reads.forwarded.take_if(|f| f.ticket == ticket) else { return false };
        self.reads.unreachable = None;
        self.reads.fail_all(forwarded.batches, status, fx);
        self.forward_reads(now, fx);
        true
    }

    /// The question did not get to the leader, or its answer did not come back. Says whether it was one. The link may be there in a
    /// moment, and a read has time: it waits for that.
    pub(super) fn read_index_undelivered(&mut self, now: Time, ticket: Ticket, status: &Status) -> bool {
        if self.reads.forwarded.as_ref().is_none_or(|f| f.ticket != ticket) {
            return false;
        }
        self.question_waits();
        let again = now.after_millis(self.options.heartbeat_ms());
        self.reads.unreachable = Some((status.clone(), again));
        true
    }

    /// A connection to this peer has come up: if it leads, it is asked what could not be asked before.
    pub(super) fn reads_go_on(&mut self, now: Time, peer: &PeerId, fx: &mut Effects) {
        if self.leader_id() == Some(peer) && self.reads.unreachable.take().is_some() {
            self.forward_reads(now, fx);
        }
    }

    // --- ends ---

    /// Reads that have waited for too long.
    pub(super) fn handle_read_timeout(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.options.read_index_timeout_ms;
        if self.read_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let unasked = self.why_not_asked();
        let late = |since: Time| since.after_millis(timeout) <= now;
        let status = Status::new(
            RaftError::TimedOut,
            format!("no quorum, or no entries, within {timeout} ms; the leader may have changed, try again"),
        );
        while let Some(round) = self.reads.rounds.pop_front_if(|round| late(round.since)) {
            self.end_round(round, &status, fx);
        }
        for (index, since, calls) in std::mem::take(&mut self.reads.confirmed) {
            if late(since) {
                self.reads.fail(calls, &status, fx);
            } else {
                self.reads.confirmed.push((index, since, calls));
            }
        }
        let overdue_of = |batches: &mut Vec<Batch>| -> Vec<Batch> {
            let split = batches.partition_point(|(since, _)| late(*since));
            batches.drain(..split).collect()
        };
        let asked = self.reads.forwarded.as_mut().map(|f| overdue_of(&mut f.batches)).unwrap_or_default();
        let waited = overdue_of(&mut self.reads.waiting);
        self.reads.fail_all(asked, &status, fx);
        self.reads.fail_all(waited, unasked.as_ref().unwrap_or(&status), fx);
        // The question, all of whose reads are gone, is not worth waiting for.
        self.reads.forwarded.take_if(|f| f.batches.is_empty());
        self.forward_reads(now, fx);
    }

    /// What keeps reads from being asked of the leader, when something does.
    fn why_not_asked(&self) -> Option<Status> {
        let timeout = self.options.read_index_timeout_ms;
        let message = match (&self.reads.unreachable, self.leader_id()) {
            (Some((status, _)), Some(leader)) => {
                format!("leader {leader} could not be asked within {timeout} ms: {}", status.message)
            }
            (None, None) => format!("no leader was known within {timeout} ms"),
            _ => return None,
        };
        Some(Status::new(RaftError::TimedOut, message))
    }

    fn end_round(&mut self, round: Round, status: &Status, fx: &mut Effects) {
        self.reads.fail(round.calls, status, fx);
        fx.replies.extend(round.replies.into_iter().map(|token| Reply {
            token,
            response: RaftResponse::Error(status.clone()),
            after_durable: false,
        }));
    }

    /// Leadership is over: what no quorum has confirmed never will be.
    pub(super) fn abandon_rounds(&mut self, fx: &mut Effects) {
        if self.reads.rounds.is_empty() || !rules::reads::rounds_end_with_leadership() {
            return;
        }
        let status =
            Status::new(RaftError::NotPermitted, "leadership was lost before a quorum confirmed the read");
        for round in std::mem::take(&mut self.reads.rounds) {
            self.end_round(round, &status, fx);
        }
    }

    /// The node takes part no more: no read will be answered.
    pub(super) fn abandon_reads(&mut self, status: &Status, fx: &mut Effects) {
        for round in std::mem::take(&mut self.reads.rounds) {
            self.end_round(round, status, fx);
        }
        let mut batches = std::mem::take(&mut self.reads.waiting);
        batches.extend(self.reads.forwarded.take().into_iter().flat_map(|forwarded| forwarded.batches));
        let confirmed = std::mem::take(&mut self.reads.confirmed);
        batches.extend(confirmed.into_iter().map(|(_, since, calls)| (since, calls)));
        self.reads.fail_all(batches, status, fx);
        debug_assert_eq!(self.reads.len, 0, "every read is accounted for");
    }
}
