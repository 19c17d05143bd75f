//! Replicating to peers: what each gets, what its answers say, and when it is asked again (Raft §5.3; SOFAJRaft's `Replicator`).

use std::sync::Arc;

use crate::chunk::EntryChunk;
use crate::effects::{Effects, LogRead, Send, Ticket};
use crate::marks::Mark;
use crate::message::{AppendEntriesRequest, AppendEntriesResponse, AppendKind, Extensions, RaftRequest};
use crate::node::{NodeImpl, NodeState};
use crate::peer::PeerId;
use crate::replicator::{Inflight, Rejoining, Replicator, ReplicatorState, next_after_rejection};
use crate::rules;
use crate::rules::replication::WakeUp;
use crate::status::{RaftError, Status};
use crate::types::{LogId, Time};

/// Extensions that every request announces, and every answer to a peer that announced some.
pub(super) const ANNOUNCED: Extensions = Extensions::CONFLICT_HINT.with(Extensions::REJOIN);

impl NodeImpl {
    // --- sending ---

    /// Sends whatever the peer may get now: a probe, or entries while its window is open.
    pub(super) fn send_entries(&mut self, now: Time, position: usize, fx: &mut Effects) {
        let last_index = self.log.last_id().index;
        loop {
            let Some(r) = self.role.replicator_at(position) else { return };
            if r.block_timer.deadline().is_some() || r.state() == ReplicatorState::Snapshot {
                return;
            }
            if r.state() == ReplicatorState::Probe {
                if r.inflight_count() == 0 {
                    self.send_append(now, position, AppendKind::Probe, Vec::new(), fx);
                }
                return;
            }
            if r.next_index > last_index || r.reading.is_some() {
                return;
            }
            if !r.window_open(&self.options) {
                fx.marks.set(Mark::WindowFull);
                return;
            }
            let (from, read) = (r.next_index, std::mem::take(&mut r.read_entries));
            let usable = read.first().is_some_and(|c| c.first_index() == from);
            let (entries, bytes) = (self.options.max_entries_size, self.options.max_body_size);
            let taken = if usable { Some(read) } else { self.log.entries(from, last_index, entries, bytes) };
            match taken {
                Some(taken) => self.send_append(now, position, AppendKind::Entries, taken, fx),
                None => {
                    // No more than one request may carry.
                    let enough = from.saturating_add((entries as u64).saturating_sub(1));
                    let to = self.log.stable_index().min(enough);
                    let read = LogRead { ticket: self.next_ticket(), from, to, max_bytes: bytes };
                    if let Some(r) = self.role.replicator_at(position) {
                        r.reading = Some(read.ticket);
                    }
                    fx.marks.set(Mark::PeerReadFromStore);
                    fx.reads.push(read);
                    return;
                }
            }
        }
    }

    pub(super) fn send_append(
        &mut self,
        now: Time,
        position: usize,
        kind: AppendKind,
        entries: Vec<Arc<EntryChunk>>,
        fx: &mut Effects,
    ) {
        let ticket = self.next_ticket();
        let (term, committed_index) = (self.hard_state.term, self.committed);
        let heartbeat_ms = self.options.heartbeat_ms();
        let Some(r) = self.role.replicator_at(position) else { return };
        // A heartbeat stands on what is known to match: it may overtake entries that are on their way.
        let prev_index = if kind == AppendKind::Heartbeat { r.match_index } else { r.next_index - 1 };
        let prev_log = match (self.log.term_at(prev_index), kind) {
            (Some(prev_term), _) => LogId::new(prev_index, prev_term),
            (None, AppendKind::Heartbeat) => LogId::default(),
            (None, _) => {
                tracing::warn!(group = %self.options.group_id, peer = %r.peer, index = prev_index,
                    "the peer needs entries that are compacted away");
                r.needs_snapshot();
                return;
            }
        };
        let caught_up = |of: &Rejoining| committed_index.min(r.match_index) > of.behind;
        let rejoined = r.rejoining.filter(caught_up).map_or(0, |rejoining| rejoining.number);
        if let Some(rejoining) = r.rejoining.as_mut().filter(|_| rejoined != 0) {
            rejoining.told.get_or_insert(ticket);
        }
        let request = AppendEntriesRequest {
            kind,
            term,
            prev_log,
            committed_index,
            entries,
            extensions: match self.options.lease_reads {
                true => ANNOUNCED.with(Extensions::PROMISE),
                false => ANNOUNCED,
            },
            rejoined,
            promise_wanted: if self.options.lease_reads { self.options.election_timeout_ms } else { 0 },
        };
        let timeout_ms = match kind {
            AppendKind::Heartbeat => {
                r.heartbeat_sent(ticket, now);
                self.options.heartbeat_timeout_ms()
            }
            AppendKind::Probe | AppendKind::Entries => {
                let (last, bytes) = (request.last_verified(), request.payload_bytes());
                let (prev, heartbeat_before) = (prev_log.index, r.heartbeat_timer);
                r.sent(Inflight { ticket, kind, prev, last, bytes, sent_at: now, heartbeat_before });
                r.next_index = last + 1;
                self.options.rpc_default_timeout_ms
            }
        };
        // Any request tells the peer that the leader lives. That the peer lives only answers tell: when those to requests
        // stay out, because its disk is slow, heartbeats go beside them.
        let overdue = r.oldest_sent_at().is_some_and(|at| now.since(at) >= heartbeat_ms * 1000);
        if kind == AppendKind::Heartbeat || !overdue {
            r.heartbeat_timer.start(now.after_millis(heartbeat_ms));
        } else {
            fx.marks.set(Mark::HeartbeatBesideRequests);
        }
        fx.sends.push(Send {
            to: r.peer.clone(),
            ticket,
            request: RaftRequest::AppendEntries(request),
            after_durable: false,
            timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        });
    }

    // --- answers ---

    /// Whether a peer counts in quorums: as far as is known it has not lost its disk, or has caught up since.
    pub(super) fn peer_counts(&self, peer: &PeerId) -> bool {
        self.role.replicators().get(peer).is_none_or(Replicator::counts)
    }

    /// Peers that have lost their disks need an entry that was made after that: where nobody proposes, the leader does.
    pub(super) fn feed_rejoining(&mut self, now: Time, fx: &mut Effects) {
        let last_index = self.log.last_id().index;
        // Not only when it is known to hold the rest: a process that was started again may hold it all, and then nothing else is sent.
        let waits = |r: &Replicator| r.rejoining.is_some_and(|rejoining| rejoining.behind == last_index);
        if self.state() == NodeState::Leader
            && self.has_capacity()
            && self.role.replicators().iter().any(waits)
        {
            let id = LogId::new(last_index + 1, self.hard_state.term);
            self.append_as_leader(now, EntryChunk::no_op(id), fx);
        }
    }

    pub(super) fn handle_append_entries_response(
        &mut self,
        now: Time,
        from: &PeerId,
        ticket: Ticket,
        response: AppendEntriesResponse,
        fx: &mut Effects,
    ) {
        if rules::replication::heeds_term_of_answer()
            && self.step_down_if_higher(now, response.term, RaftError::HigherTermResponse, fx)
        {
            return;
        }
        // Only an answer of this term acknowledges this leader.
        let of_this_term = response.term == self.hard_state.term;
        let lease = self.options.lease_by_promise(response.promised);
        let Some(position) = self.role.replicators().awaiting(ticket, from) else {
            fx.marks.set(Mark::ForgottenAnswerIgnored);
            return;
        };
        if of_this_term {
            self.note_rejoining(position, ticket, response.rejoining, fx);
        }
        let Some(r) = self.role.replicator_at(position) else { return };
        if let Some(sent_at) = r.heartbeat_answered(ticket) {
            if of_this_term {
                r.alive(ticket, rules::reads::contact_counts_from(sent_at, now), lease);
            }
            // The peer does not hold what it once confirmed, or never confirmed anything: find out.
            if !response.success && r.state() == ReplicatorState::Replicate {
                let next = next_after_rejection(r.match_index, response.last_log_index, None, |_| None);
                r.probe_at(next);
                self.send_entries(now, position, fx);
            }
            return;
        }
        let Some(inflight) = r.answered(ticket) else { return };
        if of_this_term {
            r.alive(ticket, rules::reads::contact_counts_from(inflight.sent_at, now), lease);
        }
        if response.success && response.term != self.hard_state.term {
            // An answer from the past of a confused peer proves nothing.
            let heartbeat_ms = self.options.heartbeat_ms();
            r.block(now, heartbeat_ms);
            return;
        }
        if !response.success {
            let log = &self.log;
            let hint = response.conflict;
            let next = next_after_rejection(inflight.prev, response.last_log_index, hint, |t| {
                log.last_index_of_term(t)
            });
            match hint {
                Some(hint) if hint.term == 0 => fx.marks.set(Mark::ShorterLogFound),
                Some(_) if next + 1 < inflight.prev => fx.marks.set(Mark::ConflictHintSkips),
                _ => {}
            }
            r.probe_at(next);
        } else {
            if r.state() == ReplicatorState::Probe {
                r.matched(inflight.last);
                let (first, last) = (self.log.first_index(), self.log.last_id().index);
                if inflight.kind == AppendKind::Probe && inflight.last == last && last >= first {
                    r.ask_for_durability(last);
                }
            }
            let durable = rules::replication::confirms_durability(inflight.kind);
            if inflight.kind == AppendKind::Entries {
                r.took_entries();
            }
            if durable && inflight.last > r.match_index {
                r.match_index = inflight.last;
                self.commit_by_counting(fx);
                self.deliver(fx);
            }
        }
        self.send_entries(now, position, fx);
    }

    /// Takes note of whether a peer has lost its disk.
    fn note_rejoining(&mut self, position: usize, ticket: Ticket, rejoining: u64, fx: &mut Effects) {
        let last_index = self.log.last_id().index;
        let Some(r) = self.role.replicator_at(position) else { return };
        let counted = r.counts();
        r.note_rejoining(rejoining, ticket, last_index);
        if rules::quorum::counts_anew(counted, r.counts()) {
            self.commit_by_counting(fx);
            self.deliver(fx);
        }
    }

    pub(super) fn handle_rpc_error(
        &mut self,
        now: Time,
        from: &PeerId,
        ticket: Ticket,
        status: &Status,
        fx: &mut Effects,
    ) {
        let heartbeat_ms = self.options.heartbeat_ms();
        // Only the first error of a window counts; the others belong to requests that are forgotten (sofa-jraft#460).
        let Some(position) = self.role.replicators().awaiting(ticket, from) else { return };
        let Some(r) = self.role.replicator_at(position) else { return };
        if r.heartbeat_answered(ticket).is_some() {
            r.heartbeat_failed = true;
            return;
        }
        if status.error == RaftError::Again {
            // Flow control, not an error: the peer is well, and so is what it was sent.
            fx.marks.set(Mark::LinkFull);
            r.not_sent(ticket, now, heartbeat_ms);
            return;
        }
        // Debug only: a host that is away fails for every group, and the network says so once for all.
        tracing::debug!(group = %self.options.group_id, node = %self.options.server_id, peer = %from, %status,
            errors = r.consecutive_errors, "replication failed, probing again after a pause");
        if status.error == RaftError::Busy {
            r.too_busy();
        }
        r.block(now, heartbeat_ms);
    }

    pub(super) fn handle_peer_connected(&mut self, now: Time, peer: &PeerId, fx: &mut Effects) {
        self.reads_go_on(now, peer, fx);
        let Some(position) = self.role.replicators().position(peer) else { return };
        let Some(r) = self.role.replicator_at(position) else { return };
        r.heartbeat_failed = false;
        if r.block_timer.deadline().is_some() {
            r.block_timer.stop();
            fx.marks.set(Mark::ProbeOnConnect);
            self.send_entries(now, position, fx);
        }
    }

    /// Entries for a peer that lags behind the memory have been read.
    pub(super) fn replicator_read(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Vec<Arc<EntryChunk>>, Status>,
        fx: &mut Effects,
    ) {
        let Some(position) = (0..self.role.replicators().len())
            .find(|p| self.role.replicator_at(*p).is_some_and(|r| r.reading == Some(ticket)))
        else {
            fx.marks.set(Mark::StaleReadIgnored);
            return;
        };
        let heartbeat_ms = self.options.heartbeat_ms();
        let Some(r) = self.role.replicator_at(position) else { return };
        r.reading = None;
        let (log, from) = (&self.log, r.next_index);
        // The wire carries no index of an entry: a hole would become another log at the peer.
        let result = result.and_then(|entries| match log.confirms(from, &entries) {
            true => Ok(entries),
            false => {
                let message = format!("the log store returned {entries:?} where entry {from} was asked for");
                Err(Status::new(RaftError::Io, message))
            }
        });
        match result {
            Ok(entries) => r.read_entries = entries,
            Err(status) => {
                tracing::error!(group = %self.options.group_id, peer = %r.peer, %status, "log read failed");
                r.block(now, heartbeat_ms);
            }
        }
        self.wake(now, position, WakeUp::LogRead, fx);
    }

    /// What the replicator may have waited for has come.
    fn wake(&mut self, now: Time, position: usize, after: WakeUp, fx: &mut Effects) {
        if rules::replication::wakes(after) {
            self.send_entries(now, position, fx);
        }
    }

    // --- time ---

    pub(super) fn replicator_deadline(&self, r: &Replicator) -> Option<Time> {
        let rpc = r.oldest_sent_at().map(|at| at.after_millis(self.options.rpc_default_timeout_ms));
        let block = r.block_timer.deadline();
        let heartbeat = match r.heartbeat_in_flight() {
            Some(at) => Some(at.after_millis(self.options.heartbeat_timeout_ms())),
            None => Some(r.heartbeat_timer.deadline().unwrap_or_default()),
        };
        [rpc, block, heartbeat].into_iter().flatten().min()
    }

    pub(super) fn handle_replicator_timeouts(&mut self, now: Time, fx: &mut Effects) {
        let heartbeat_ms = self.options.heartbeat_ms();
        let heartbeat_timeout_ms = self.options.heartbeat_timeout_ms();
        for position in 0..self.role.replicators().len() {
            let Some(r) = self.role.replicator_at(position) else { return };
            let waited = r.oldest_sent_at().map_or(0, |at| now.since(at));
            if waited >= self.options.rpc_default_timeout_ms * 1000 {
                tracing::debug!(group = %self.options.group_id, peer = %r.peer, "no answer in time, probing again");
                fx.marks.set(Mark::RequestTimedOut);
                r.block(now, heartbeat_ms);
            }
            if r.block_timer.is_due(now) {
                r.block_timer.stop();
                fx.marks.set(Mark::ProbeAfterError);
                self.wake(now, position, WakeUp::BlockOver, fx);
            }
            let Some(r) = self.role.replicator_at(position) else { return };
            if r.heartbeat_in_flight().is_some_and(|at| at.after_millis(heartbeat_timeout_ms) <= now) {
                r.heartbeat_lost();
            }
            let due = r.heartbeat_timer.deadline().is_none() || r.heartbeat_timer.is_due(now);
            if due && r.heartbeat_in_flight().is_none() {
                self.send_append(now, position, AppendKind::Heartbeat, Vec::new(), fx);
            }
        }
    }
}
