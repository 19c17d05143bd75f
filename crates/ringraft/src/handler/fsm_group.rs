//! One state machine in its worker: what it is given, and what becomes of a panic in it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringraft_core::{ChunkKind, EntryChunk, FsmEvent, LogIndex, Mutant, RaftError, Status};

use crate::handler::slow_calls::SlowCalls;
use crate::handler::{GroupHandle, GroupProgress, SharedNames};
use crate::state_machine::iterator::{Consumed, Iterator, Rollback};
use crate::state_machine::{LeaderChangeContext, StateMachine};
use crate::status::NodeStatus;
use crate::task::closure_queue::ClosureBatch;
use crate::task::completion::{Applied, ApplyError, Completion, Deliveries};
use crate::thread::panic_text;

/// A state machine and what belongs to it.
pub struct FsmGroup {
    names: SharedNames,
    state_machine: Option<Box<dyn StateMachine>>,
    progress: Arc<GroupProgress>,
    status: Arc<NodeStatus>,
    /// Committed entries of this batch that are not applied yet.
    chunks: Vec<Arc<EntryChunk>>,
    closures: Vec<ClosureBatch>,
    applied: LogIndex,
    /// Why nothing is applied any more.
    failed: Option<Status>,
}

impl FsmGroup {
    /// A state machine for a group; its log is applied from the first entry after `applied` on.
    pub fn new(
        names: SharedNames,
        state_machine: Box<dyn StateMachine>,
        progress: Arc<GroupProgress>,
        status: Arc<NodeStatus>,
        applied: LogIndex,
    ) -> FsmGroup {
        let state_machine = Some(state_machine);
        let (chunks, closures) = (Vec::new(), Vec::new());
        FsmGroup { names, state_machine, progress, status, chunks, closures, applied, failed: None }
    }
}

impl fmt::Debug for FsmGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsmGroup")
            .field("names", &self.names)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

/// What the loop (or the simulator) tells the owners after a batch.
#[derive(Debug, Default)]
pub struct ApplyOutput {
    /// Groups that have applied entries, up to which index.
    pub applied: Vec<(GroupHandle, Arc<GroupProgress>, LogIndex)>,
    /// Groups whose state machine has failed.
    pub failed: Vec<(GroupHandle, Arc<GroupProgress>, Status)>,
}

impl FsmGroup {
    /// Whether entries wait to be applied together.
    pub(super) fn has_entries(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Entries, and the completions of those that were proposed here, for the next call of the state machine.
    pub(super) fn gather(&mut self, chunk: Arc<EntryChunk>, mut closures: Vec<ClosureBatch>) {
        self.chunks.push(chunk);
        self.closures.append(&mut closures);
    }

    /// Applies what was gathered, and completes its tasks.
    pub(super) fn do_committed(
        &mut self,
        handle: GroupHandle,
        slow_calls: Option<&mut SlowCalls>,
        out: &mut ApplyOutput,
    ) {
        let chunks = std::mem::take(&mut self.chunks);
        let closures = std::mem::take(&mut self.closures);
        let last_index = chunks.last().map_or(self.applied, |chunk| chunk.last_index());
        if let Some(status) = &self.failed {
            let rollback = Rollback { from: 0, status: status.clone() };
            self.run_closures(
                handle,
                closures,
                Consumed { responses: Vec::new(), rollback: Some(rollback) },
                out,
            );
            return;
        }
        let entries: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        metrics::histogram!("fsm-apply-tasks-count").record(entries as f64);
        let start = slow_calls.as_ref().map(|calls| calls.now());
        let consumed = self.on_apply(&chunks, &closures);
        if let (Some(calls), Some(start)) = (slow_calls, start) {
            calls.ended(start, &self.names, entries);
        }
        self.applied = match &consumed.rollback {
            None => last_index,
            Some(rollback) => rollback.from.saturating_sub(1).max(self.applied),
        };
        self.status.set_applied(self.applied);
        if let Some(rollback) = &consumed.rollback {
            self.fail(handle, rollback.status.clone(), out);
        }
        self.run_closures(handle, closures, consumed, out);
        out.applied.push((handle, Arc::clone(&self.progress), self.applied));
        // The next batch gathers in the same memory.
        self.chunks = chunks;
        self.chunks.clear();
    }

    fn on_apply(&mut self, chunks: &[Arc<EntryChunk>], closures: &[ClosureBatch]) -> Consumed {
        let nothing = Consumed { responses: Vec::new(), rollback: None };
        if !chunks.iter().any(|chunk| matches!(chunk.kind(), ChunkKind::Data)) {
            return nothing;
        }
        let Some(state_machine) = &mut self.state_machine else { return nothing };
        let mut iterator = Iterator::new(chunks, closures);
        // Rule X1: a user's bug costs his group, and nobody who shares the worker.
        let call = catch_unwind(AssertUnwindSafe(|| state_machine.on_apply(&mut iterator)));
        match call {
            Ok(()) => {
                if iterator.has_next() {
                    tracing::error!(group = %self.names.group_id, "on_apply left entries in its iterator; they count as applied");
                }
                iterator.finish()
            }
            Err(payload) => {
                self.state_machine_panicked("on_apply", &*payload);
                let message = format!("the state machine panicked in on_apply: {}", panic_text(&*payload));
                let from = chunks.first().map_or(0, |chunk| chunk.first_index());
                let status = Status::new(RaftError::StateMachine, message);
                Consumed { responses: Vec::new(), rollback: Some(Rollback { from, status }) }
            }
        }
    }

    /// Completes the tasks of a batch.
    fn run_closures(
        &mut self,
        handle: GroupHandle,
        closures: Vec<ClosureBatch>,
        consumed: Consumed,
        out: &mut ApplyOutput,
    ) {
        if closures.is_empty() {
            return;
        }
        let mut deliveries = Deliveries::new();
        let mut responses = consumed.responses.into_iter().peekable();
        for ClosureBatch { first_index, term, completions } in closures {
            for (index, completion) in (first_index..).zip(completions) {
                if let Some(Rollback { from, status }) = &consumed.rollback
                    && index >= *from
                {
                    deliveries.deliver(completion, Err(ApplyError::Unknown(status.clone())));
                    continue;
                }
                while responses.peek().is_some_and(|(at, _)| *at < index) {
                    responses.next();
                }
                let response = responses.next_if(|(at, _)| *at == index).map(|(_, response)| response);
                let applied = Applied { index, term, response: response.unwrap_or_default() };
                deliveries.deliver(completion, Ok(applied));
            }
        }
        deliveries.end_batch();
        if deliveries.panicked() {
            self.fail(handle, completion_panicked(), out);
        }
    }

    /// Completes reads, here, where nothing is applied meanwhile. A state machine that has failed answers nothing.
    pub(super) fn answer_reads(
        &mut self,
        handle: GroupHandle,
        index: LogIndex,
        completions: Vec<Completion>,
        out: &mut ApplyOutput,
    ) {
        debug_assert!(
            self.failed.is_some() || has_applied(self.applied, index),
            "applied {} of {index}",
            self.applied
        );
        let outcome = match &self.failed {
            None => Ok(Applied { index, ..Applied::default() }),
            Some(status) => Err(ApplyError::Failed(status.clone())),
        };
        let mut deliveries = Deliveries::new();
        completions.into_iter().for_each(|completion| deliveries.deliver(completion, outcome.clone()));
        deliveries.end_batch();
        if deliveries.panicked() {
            self.fail(handle, completion_panicked(), out);
        }
    }

    pub(super) fn on_event(&mut self, handle: GroupHandle, event: &FsmEvent, out: &mut ApplyOutput) {
        if let FsmEvent::Error(status) = event {
            // Nothing is applied after this, whoever failed.
            self.failed.get_or_insert_with(|| status.clone());
        }
        let Some(state_machine) = &mut self.state_machine else { return };
        let following = |leader: &_, term: u64, status: Option<&Status>| LeaderChangeContext {
            leader: Clone::clone(leader),
            term,
            status: status.cloned(),
        };
        let call = catch_unwind(AssertUnwindSafe(|| match event {
            FsmEvent::LeaderStart { term } => state_machine.on_leader_start(*term),
            FsmEvent::LeaderStop { status } => state_machine.on_leader_stop(status),
            FsmEvent::StartFollowing { leader, term } => {
                state_machine.on_start_following(&following(leader, *term, None));
            }
            FsmEvent::StopFollowing { leader, term, status } => {
                state_machine.on_stop_following(&following(leader, *term, Some(status)));
            }
            FsmEvent::ConfigurationCommitted(entry) => state_machine.on_configuration_committed(entry),
            FsmEvent::Error(status) => state_machine.on_error(status),
            FsmEvent::Committed(_) | FsmEvent::ReadIndex { .. } => {
                debug_assert!(false, "entries and reads come as tasks");
            }
        }));
        if let Err(payload) = call {
            self.state_machine_panicked("a callback", &*payload);
            let message = format!("the state machine panicked in a callback: {}", panic_text(&*payload));
            self.fail(handle, Status::new(RaftError::StateMachine, message), out);
        }
    }

    /// The state machine is not called again.
    fn state_machine_panicked(&mut self, place: &str, payload: &(dyn std::any::Any + Send)) {
        tracing::error!(
            group = %self.names.group_id,
            server = %self.names.server_id,
            "the state machine panicked in {place}: {}; the group stops on this host",
            panic_text(payload)
        );
        if let Some(state_machine) = self.state_machine.take() {
            drop_quietly(state_machine);
        }
    }

    pub(super) fn fail(&mut self, handle: GroupHandle, status: Status, out: &mut ApplyOutput) {
        if self.failed.is_none() {
            self.failed = Some(status.clone());
            self.status.set_error(&status);
            out.failed.push((handle, Arc::clone(&self.progress), status));
        }
    }

    pub(super) fn close(&mut self) {
        if let Some(mut state_machine) = self.state_machine.take() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| state_machine.on_shutdown())) {
                tracing::error!(group = %self.names.group_id, "on_shutdown panicked: {}", panic_text(&*payload));
            }
            drop_quietly(state_machine);
        }
    }
}

/// Whether the state machine holds what a read of `index` must see. The node asks no earlier; the read would else see an older state.
fn has_applied(applied: LogIndex, index: LogIndex) -> bool {
    applied >= index || Mutant::F6ReadDoesNotWaitForApply.is_active()
}

/// Drops what users wrote; a panic in it goes no further.
fn drop_quietly(state_machine: Box<dyn StateMachine>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(state_machine))) {
        tracing::error!("dropping a state machine panicked: {}", panic_text(&*payload));
    }
}

pub(super) fn completion_panicked() -> Status {
    Status::new(RaftError::StateMachine, "a completion of a task panicked")
}
