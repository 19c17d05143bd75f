//! Handing committed entries to the state-machine stage, and letting go of memory.

use std::sync::Arc;

use crate::chunk::{ChunkKind, EntryChunk};
use crate::effects::{Effects, FsmEvent, LogRead, Ticket};
use crate::marks::Mark;
use crate::node::role::Role;
use crate::node::unapplied::Room;
use crate::node::{NodeImpl, NodeState};
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{LogIndex, Time};

impl NodeImpl {
    /// Hands on everything that is committed *and* stable here, as far as the state machine keeps up.
    pub(super) fn deliver(&mut self, fx: &mut Effects) {
        self.unapplied.note(false);
        loop {
            let allowed = self.applied.saturating_add(self.options.max_unapplied_entries);
            let durable = rules::log::may_be_applied(self.log.stable_index(), self.log.last_id().index);
            let to = self.committed_index().min(durable).min(allowed);
            if self.delivered >= to || self.apply_read.is_some() {
                if to == allowed && self.awaits_apply() {
                    fx.marks.set(Mark::ApplyHeldBack);
                }
                return;
            }
            let room = match self.unapplied.room(self.options.max_unapplied_bytes) {
                Room::Bytes(room) => room,
                Room::Applying => {
                    fx.marks.set(Mark::ApplyHeldBack);
                    return;
                }
                Room::Owner => {
                    self.unapplied.note(true);
                    return;
                }
            };
            let from = self.delivered + 1;
            let body = self.options.max_body_size;
            match self.log.entries(from, to, usize::MAX, room.min(body)) {
                Some(chunks) => self.deliver_chunks(chunks, fx),
                None => {
                    let ticket = self.next_ticket();
                    self.apply_read = Some(ticket);
                    let (max_bytes, entries) = self.unapplied.read_begins(room, body);
                    let to = to.min(from.saturating_add(entries - 1));
                    fx.marks.set(Mark::ApplyReadFromStore);
                    fx.reads.push(LogRead { ticket, from, to, max_bytes });
                    return;
                }
            }
        }
    }

    /// Whether the node itself waits for the disk, not only its answers, which leave from the disk stage: a leader's commit
    /// hangs on it, a candidate's vote, the patience of who granted one, or entries that are committed already.
    pub fn awaits_stable(&self) -> bool {
        self.state() != NodeState::Follower
            || self.vote_write.is_some()
            || self.committed_index() > self.log.stable_index()
    }

    /// Says how many bytes of entries (memory of their chunks) the state-machine stage has room for; at first it is without bound. At 0
    /// committed entries stay here until it is told otherwise, and come with the next input, which the owner gives (an
    /// [`Input::Applied`](crate::Input::Applied) with nothing new will do). The entry that crosses the bound still goes, so that a large one
    /// passes; and a read of the store for the state machine that is under way brings what it was begun for.
    pub fn allow_delivery(&mut self, bytes: usize) {
        self.unapplied.allow(bytes);
    }

    /// Whether entries stay here because [`allow_delivery`](Self::allow_delivery) did not let them through, and for no other reason.
    pub fn wants_delivery(&self) -> bool {
        self.unapplied.wants_allowance() && self.state().is_active()
    }

    /// Bytes of entries that were handed on and are not applied, with what a read of the store for the state machine may bring: at most
    /// [`max_unapplied_bytes`](crate::CoreOptions::max_unapplied_bytes) and one entry. 0 when the node has failed or ended: what the
    /// state-machine stage still has of it comes to an end there, and nobody tells.
    pub fn unapplied_bytes(&self) -> usize {
        if self.state().is_active() { self.unapplied.bytes() } else { 0 }
    }

    /// Whether entries that the state machine may see are held back until it has applied what it was given before, or has room.
    pub fn awaits_apply(&self) -> bool {
        self.apply_read.is_none() && self.delivered < self.committed_index().min(self.log.stable_index())
    }

    /// Hands chunks on while there is room; what is left comes again when there is.
    fn deliver_chunks(&mut self, chunks: Vec<Arc<EntryChunk>>, fx: &mut Effects) {
        for chunk in chunks {
            if !matches!(self.unapplied.room(self.options.max_unapplied_bytes), Room::Bytes(_)) {
                return;
            }
            self.deliver_chunk(chunk, fx);
        }
    }

    fn deliver_chunk(&mut self, chunk: Arc<EntryChunk>, fx: &mut Effects) {
        debug_assert_eq!(chunk.first_index(), self.delivered + 1, "entries are applied in order, each once");
        let (first, last) = (chunk.first_index(), chunk.last_index());
        let is_configuration = matches!(chunk.kind(), ChunkKind::Configuration { .. });
        self.delivered = last;
        self.unapplied.handed_on(&chunk);
        fx.fsm.push(FsmEvent::Committed(chunk));
        if is_configuration && let Some(conf) = self.log.configuration_at(last) {
            fx.fsm.push(FsmEvent::ConfigurationCommitted(conf.clone()));
        }
        if let Role::Leader(leader) = &mut self.role
            && leader.transfer.is_none()
            && !leader.announced
            && (first..=last).contains(&leader.first_index())
        {
            leader.announced = true;
            fx.fsm.push(FsmEvent::LeaderStart { term: self.hard_state.term });
        }
    }

    pub(super) fn handle_applied(&mut self, index: LogIndex, fx: &mut Effects) {
        if !self.state().is_active() {
            return;
        }
        debug_assert!(index <= self.delivered, "applied {index} of {} handed over", self.delivered);
        self.applied = self.applied.max(index);
        self.log.forget_configurations(self.applied, &self.options.server_id);
        self.unapplied.applied(self.applied);
        self.deliver(fx);
    }

    pub(super) fn handle_log_read(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Vec<Arc<EntryChunk>>, Status>,
        fx: &mut Effects,
    ) {
        if !self.state().is_active() {
            return;
        }
        if self.apply_read != Some(ticket) {
            self.replicator_read(now, ticket, result, fx);
            return;
        }
        self.apply_read = None;
        self.unapplied.read_ends();
        match result.and_then(|chunks| self.deliver_read(chunks, fx)) {
            Ok(()) => self.deliver(fx),
            Err(status) => self.fail(now, status, fx),
        }
    }

    fn deliver_read(&mut self, chunks: Vec<Arc<EntryChunk>>, fx: &mut Effects) -> Result<(), Status> {
        let to = self.committed_index().min(self.log.stable_index());
        for chunk in chunks {
            let Some(part) = chunk.share(self.delivered + 1, to) else { continue };
            if !self.log.confirms(self.delivered + 1, std::slice::from_ref(&part)) {
                let message = format!(
                    "the log store returned {part:?} where entry {} was asked for",
                    self.delivered + 1
                );
                return Err(Status::new(RaftError::Io, message));
            }
            self.deliver_chunk(part, fx);
        }
        Ok(())
    }

    /// Lets go of every durable entry in memory; what peers or the state machine want of it is read from the store. For owners of many
    /// nodes, whose bounds together are more than there is memory.
    pub fn let_go_of_tail(&mut self) {
        self.log.release(self.log.stable_index());
    }

    /// Forgets entries that nobody here needs any more: handed over, durable, and held by every peer. For peers
    /// that lag a bounded amount is kept.
    pub(super) fn release_entries(&mut self) {
        let free = self.delivered.min(self.log.stable_index());
        let held = self.role.replicators().iter().map(|r| r.match_index).min().unwrap_or(u64::MAX);
        self.log.release(free.min(held));
        self.log.shrink(free, self.options.max_tail_bytes);
        // Entries that wait for a slow state machine can be read back; memory stays bounded.
        self.log.shrink(self.log.stable_index(), self.options.max_unstable_bytes);
    }
}
