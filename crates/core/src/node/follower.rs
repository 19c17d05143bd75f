//! Taking in a leader's log (Raft §5.3; SOFAJRaft's `handleAppendEntriesRequest` and `LogManager.appendEntries`).

use std::sync::Arc;

use crate::chunk::{ChunkKind, EntryChunk};
use crate::effects::{Effects, FsmEvent, LogOp, Reply, ReplyToken};
use crate::marks::Mark;
use crate::message::{
    AppendEntriesRequest, AppendEntriesResponse, AppendKind, ConflictHint, Extensions, RaftResponse,
};
use crate::node::replication::ANNOUNCED;
use crate::node::{NodeImpl, NodeState};
use crate::peer::PeerId;
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{LogId, LogIndex, Time};
use crate::vote::Vote;

/// Milliseconds between two lines of a node about somebody who breaks the rules.
const ACCUSE_AGAIN_MS: u64 = 10_000;

impl NodeImpl {
    pub(super) fn handle_append_entries_request(
        &mut self,
        now: Time,
        from: &PeerId,
        token: ReplyToken,
        request: AppendEntriesRequest,
        fx: &mut Effects,
    ) {
        let (response, after_durable) = match self.accept_append(now, from, request, fx) {
            Ok((response, after_durable)) => (RaftResponse::AppendEntries(response), after_durable),
            Err(status) => (RaftResponse::Error(status), false),
        };
        // No answer speaks for a term, or gives a promise, that could be forgotten.
        let promised =
            if let RaftResponse::AppendEntries(response) = &response { response.promised } else { 0 };
        let after_durable = after_durable
            || self.hard_state_unstable(fx)
            || rules::reads::promise_waits_for_disk(promised, self.promise_unstable(fx));
        fx.replies.push(Reply { token, response, after_durable });
    }

    /// Handles the request; gives the answer and whether it must wait until everything so far is durable.
    fn accept_append(
        &mut self,
        now: Time,
        from: &PeerId,
        request: AppendEntriesRequest,
        fx: &mut Effects,
    ) -> Result<(AppendEntriesResponse, bool), Status> {
        check_shape(&request, self.options.max_entry_bytes)?;
        if *from == self.options.server_id {
            // A leader must not take itself for the one that it follows.
            let message = format!("{from} is this node itself; a member was started with the id of another");
            return Err(Status::new(RaftError::Invalid, message));
        }
        let refuse = |term| AppendEntriesResponse {
            term,
            success: false,
            last_log_index: None,
            conflict: None,
            rejoining: 0,
            extensions: match request.extensions {
                Extensions::NONE => Extensions::NONE,
                _ => ANNOUNCED,
            },
            promised: 0,
        };
        if request.term < self.hard_state.term {
            fx.marks.set(Mark::StaleLeaderRefused);
            return Ok((refuse(self.hard_state.term), false));
        }
        if let Some(term) = self.follow(now, from, request.term, fx) {
            return Ok((refuse(term), false));
        }
        self.last_leader_timestamp = rules::election::heard_of_leader(self.last_leader_timestamp, now);
        self.patience_begins();
        rules::election::leave_vote_alone(&mut self.hard_state.vote);
        self.promised_at = Some(now);
        if self.rejoining && request.rejoined == self.life {
            tracing::info!(group = %self.options.group_id, node = %self.options.server_id, leader = %from, "has caught up, votes and counts again");
            self.rejoining = false;
            // Whom it voted for in this term nobody knows; that this leader was elected is certain.
            self.hard_state.vote = Vote::For(from.clone());
            self.persist_hard_state(fx);
            self.configuration_changed(now);
        }
        if self.rejoining && !request.extensions.contains(Extensions::REJOIN) {
            let message = format!(
                "{} has lost its disk, and {from} does not know how to bring it back; remove it from the group and add it anew",
                self.options.server_id
            );
            return Err(Status::new(RaftError::HostDown, message));
        }
        let rejoining = if self.rejoining { self.life } else { 0 };
        let promised = self.promise(&request, fx);
        let last_log_index = Some(self.log.last_id().index);
        let prev = request.prev_log;
        if !self.matches(prev) {
            let hint =
                request.extensions.contains(Extensions::CONFLICT_HINT).then(|| self.conflict_hint(prev));
            let response = AppendEntriesResponse {
                conflict: hint,
                last_log_index,
                promised,
                rejoining,
                ..refuse(request.term)
            };
            return Ok((response, false));
        }
        let success = AppendEntriesResponse { success: true, promised, rejoining, ..refuse(request.term) };
        let last_verified = request.last_verified();
        if request.kind == AppendKind::Entries {
            if self.log.unstable_entries() >= self.options.max_unstable_entries
                || self.log.unstable_bytes() >= self.options.max_unstable_bytes
            {
                fx.marks.set(Mark::BusyRefusal);
                let message = format!("{} entries wait for the disk", self.log.unstable_entries());
                return Err(Status::new(RaftError::Busy, message));
            }
            self.append_from_leader(now, request.entries, fx)?;
        }
        let verified = rules::replication::verified_index(last_verified, self.log.last_id().index);
        if request.committed_index > verified {
            fx.marks.set(Mark::CommitCapped);
        }
        self.committed = self.committed.max(request.committed_index.min(verified));
        self.deliver(fx);
        if request.kind == AppendKind::Entries {
            // An older write that is still under way may carry entries that were sent again.
            let unstable = last_verified > self.log.stable_index();
            if unstable && fx.log.is_empty() {
                fx.marks.set(Mark::AcknowledgementWaits);
            }
            Ok((success, rules::replication::acknowledgement_waits(unstable, !fx.log.is_empty())))
        } else {
            Ok((AppendEntriesResponse { last_log_index, ..success }, false))
        }
    }

    /// Follows the sender in its term. Gives the term to refuse with when the term has another leader already.
    fn follow(&mut self, now: Time, from: &PeerId, term: u64, fx: &mut Effects) -> Option<u64> {
        if term > self.hard_state.term || self.state() == NodeState::Candidate {
            if term == self.hard_state.term {
                fx.marks.set(Mark::CandidateFollows);
            }
            let message = format!("{from} leads term {term}");
            self.step_down(now, term, Status::new(RaftError::NewLeader, message), fx);
        }
        match self.leader_id() {
            Some(leader) if leader == from => None,
            Some(leader) => {
                let message = format!("{from} and {leader} both claim to lead term {term}");
                self.accuse(now, &message);
                self.step_down(now, term + 1, Status::new(RaftError::LeaderConflict, message), fx);
                Some(term + 1)
            }
            None => {
                tracing::info!(group = %self.options.group_id, node = %self.options.server_id, leader = %from, term, "follows");
                self.reset_priority();
                self.end_vote_round();
                if let Some(following) = self.role.following_mut() {
                    following.leader = Some(from.clone());
                }
                fx.fsm.push(FsmEvent::StartFollowing { leader: from.clone(), term });
                self.tell_who_leads(from, fx);
                self.leader_is_known(now, fx);
                None
            }
        }
    }

    /// Whether the log holds this entry. What is committed matches by definition, also when it is compacted away.
    fn matches(&self, prev: LogId) -> bool {
        match self.log.term_at(prev.index) {
            Some(term) => rules::replication::previous_matches(term, prev.term),
            None => prev.index < self.log.first_index() && prev.index <= self.committed_index(),
        }
    }

    /// Rule Q4: names the first entry of the term that stands there, so that a rejection skips the whole of it.
    fn conflict_hint(&self, prev: LogId) -> ConflictHint {
        match self.log.term_at(prev.index) {
            Some(term) => ConflictHint { term, first_index: self.log.first_index_of_term_at(prev.index) },
            None => ConflictHint { term: 0, first_index: self.log.last_id().index + 1 },
        }
    }

    /// Appends what is new, from the first entry on that differs; entries that match are left alone.
    fn append_from_leader(
        &mut self,
        now: Time,
        entries: Vec<Arc<EntryChunk>>,
        fx: &mut Effects,
    ) -> Result<(), Status> {
        let mut configuration = false;
        for chunk in entries {
            let Some(first_new) = rules::replication::first_to_append(&self.log, &chunk) else {
                fx.marks.set(Mark::EntriesKnownAlready);
                continue;
            };
            if first_new > chunk.first_index() {
                fx.marks.set(Mark::EntriesPartlyNew);
            }
            if first_new <= self.log.last_id().index {
                self.truncate_conflict(now, first_new, fx)?;
                configuration = true;
            }
            let Some(new) = chunk.share(first_new, chunk.last_index()) else { continue };
            configuration |= matches!(new.kind(), ChunkKind::Configuration { .. });
            self.log.append(&new);
            fx.log.push(LogOp::Append(new));
        }
        if configuration {
            self.configuration_changed(now);
        }
        Ok(())
    }

    /// Says that somebody breaks the rules, once in a while: whoever can make requests up could fill the disk that the log shares.
    fn accuse(&mut self, now: Time, message: &str) {
        if self.accused_at.is_none_or(|at| now >= at.after_millis(ACCUSE_AGAIN_MS)) {
            self.accused_at = Some(now);
            tracing::error!(group = %self.options.group_id, node = %self.options.server_id, "{message}");
        }
    }

    fn truncate_conflict(&mut self, now: Time, from: LogIndex, fx: &mut Effects) -> Result<(), Status> {
        if from <= self.committed_index() {
            // Cannot happen while every member keeps the rules; committed entries are never given up.
            let message = format!(
                "refused to truncate from {from}: everything up to {} is committed; a member has lost its log or \
                 its vote, check which one was restored or wiped",
                self.committed_index()
            );
            self.accuse(now, &message);
            return Err(Status::new(RaftError::Invalid, message));
        }
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, from, last = %self.log.last_id(),
            "truncates a conflicting suffix");
        self.log.truncate_suffix(from);
        fx.marks.set(Mark::SuffixTruncated);
        fx.log.push(LogOp::TruncateSuffix { from });
        Ok(())
    }
}

/// Refuses what no correct leader sends, before anything is changed.
fn check_shape(request: &AppendEntriesRequest, max_entry_bytes: usize) -> Result<(), Status> {
    let invalid = |what: String| Err(Status::new(RaftError::Invalid, what));
    if (request.kind == AppendKind::Entries) == request.entries.is_empty() {
        return invalid("entries and kind of the request contradict each other".to_owned());
    }
    if request.prev_log.term > request.term {
        return invalid(format!(
            "previous entry {} is of a later term than {}",
            request.prev_log, request.term
        ));
    }
    let mut last = request.prev_log;
    for chunk in &request.entries {
        if last.index.checked_add(1) != Some(chunk.first_index())
            || chunk.term() < last.term
            || chunk.term() > request.term
        {
            return invalid(format!("entries {chunk:?} do not follow {last} in term {}", request.term));
        }
        // None of them is large in a chunk that is not.
        let large = |at: &usize| chunk.entry(*at).len() > max_entry_bytes;
        if chunk.payload().len() > max_entry_bytes
            && let Some(at) = (0..chunk.len()).find(large)
        {
            let (index, bytes) = (chunk.first_index() + at as u64, chunk.entry(at).len());
            return invalid(format!(
                "entry {index} has {bytes} bytes and the log store here takes {max_entry_bytes}; start this member with larger segment files"
            ));
        }
        last = chunk.last_id();
    }
    Ok(())
}
