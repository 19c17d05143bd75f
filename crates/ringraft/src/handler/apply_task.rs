//! The state-machine stage (SOFAJRaft's `ApplyTaskHandler` and `FSMCallerImpl`).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringraft_core::{ChunkKind, EntryChunk, FsmEvent, LogIndex, Mutant, RaftError, Status, Time};
use rustc_hash::FxHashMap;

use crate::closure_queue::ClosureBatch;
use crate::completion::{Applied, ApplyError, Completion, Deliveries};
use crate::handler::{FsmTask, GroupHandle, GroupProgress, SharedNames, panic_text};
use crate::iterator::{Consumed, Iterator, Rollback};
use crate::node::NodeStatus;
use crate::state_machine::{LeaderChangeContext, StateMachine};

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

/// Owns the state machines of one worker, runs committed entries through them, and completes tasks. Users' code runs here and
/// nowhere else; a panic in it stops the group that it belongs to.
#[derive(Default)]
pub struct ApplyTaskHandler {
    groups: FxHashMap<GroupHandle, Box<FsmGroup>>,
    /// Groups with entries to apply, in the order of their first.
    touched: Vec<GroupHandle>,
    /// Who times the calls of `on_apply`; nobody in the simulator.
    slow_calls: Option<SlowCalls>,
}

/// Tells of calls of `on_apply` that take long, with a bound on the lines.
#[derive(Debug)]
struct SlowCalls {
    limit_ms: u64,
    clock: fn() -> Time,
    told_at: Option<Time>,
    not_told: u64,
}

/// Time between two lines about slow calls of one worker.
const SLOW_CALLS_PAUSE_MS: u64 = 10_000;

impl SlowCalls {
    /// A call that began at `start` has ended.
    fn ended(&mut self, start: Time, names: &SharedNames, entries: usize) {
        let now = (self.clock)();
        let took_ms = now.since(start) / 1000;
        if took_ms < self.limit_ms {
            return;
        }
        if self.told_at.is_some_and(|at| now < at.after_millis(SLOW_CALLS_PAUSE_MS)) {
            self.not_told += 1;
            return;
        }
        self.told_at = Some(now);
        let not_told = std::mem::take(&mut self.not_told);
        tracing::warn!(group = %names.group_id, took_ms, entries, not_told,
            "on_apply took long; the other groups of this worker waited for it");
    }
}

impl ApplyTaskHandler {
    /// A worker without state machines.
    pub fn new() -> ApplyTaskHandler {
        ApplyTaskHandler::default()
    }

    /// Has calls of `on_apply` that take `limit_ms` or longer by `clock` told in the log, at most one in ten seconds.
    pub fn tell_slow_calls(&mut self, limit_ms: u64, clock: fn() -> Time) {
        self.slow_calls = Some(SlowCalls { limit_ms, clock, told_at: None, not_told: 0 });
    }

    /// Does the tasks. Entries of one group that follow each other are applied together.
    pub fn on_batch(&mut self, tasks: &mut Vec<FsmTask>, out: &mut ApplyOutput) {
        for task in tasks.drain(..) {
            match task {
                FsmTask::Committed { handle, chunk, mut closures } => match self.groups.get_mut(&handle) {
                    Some(group) => {
                        if group.chunks.is_empty() {
                            self.touched.push(handle);
                        }
                        group.chunks.push(chunk);
                        group.closures.append(&mut closures);
                    }
                    None => debug_assert!(false, "entries for a group that was never opened"),
                },
                FsmTask::Event { handle, event } => {
                    self.run_apply_task(handle, out);
                    if let Some(group) = self.groups.get_mut(&handle) {
                        group.on_event(handle, &event, out);
                    }
                }
                FsmTask::ReadIndex { handle, index, completions } => {
                    self.run_apply_task(handle, out);
                    if let Some(group) = self.groups.get_mut(&handle) {
                        group.answer_reads(handle, index, completions, out);
                    }
                }
                FsmTask::Fail { handle, completions, error } => {
                    self.run_apply_task(handle, out);
                    let mut deliveries = Deliveries::new();
                    for completion in completions {
                        deliveries.deliver(completion, Err(error.clone()));
                    }
                    deliveries.end_batch();
                    if deliveries.panicked()
                        && let Some(group) = self.groups.get_mut(&handle)
                    {
                        group.fail(handle, completion_panicked(), out);
                    }
                }
                FsmTask::Open { handle, group } => {
                    self.groups.insert(handle, group);
                }
                FsmTask::Close { handle, answer } => {
                    self.run_apply_task(handle, out);
                    if let Some(mut group) = self.groups.remove(&handle) {
                        group.close();
                    }
                    if let Some(answer) = answer {
                        answer.fulfil(true);
                    }
                }
            }
        }
        for handle in std::mem::take(&mut self.touched) {
            self.run_apply_task(handle, out);
        }
    }

    /// Applies what has gathered for one group (SOFAJRaft's `doCommitted`).
    fn run_apply_task(&mut self, handle: GroupHandle, out: &mut ApplyOutput) {
        if let Some(group) = self.groups.get_mut(&handle)
            && !group.chunks.is_empty()
        {
            group.do_committed(handle, self.slow_calls.as_mut(), out);
        }
    }

    /// Shuts every state machine down; for the end of the worker.
    pub fn shutdown(&mut self) {
        let mut handles: Vec<_> = self.groups.keys().copied().collect();
        handles.sort_unstable();
        for handle in handles {
            if let Some(mut group) = self.groups.remove(&handle) {
                group.close();
            }
        }
    }
}

impl FsmGroup {
    fn do_committed(
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
        let start = slow_calls.as_ref().map(|calls| (calls.clock)());
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
    fn answer_reads(
        &mut self,
        handle: GroupHandle,
        index: LogIndex,
        completions: Vec<Completion>,
        out: &mut ApplyOutput,
    ) {
        debug_assert!(
            self.failed.is_some() || self.applied >= index || Mutant::F6ReadDoesNotWaitForApply.is_active(),
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

    fn on_event(&mut self, handle: GroupHandle, event: &FsmEvent, out: &mut ApplyOutput) {
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

    fn fail(&mut self, handle: GroupHandle, status: Status, out: &mut ApplyOutput) {
        if self.failed.is_none() {
            self.failed = Some(status.clone());
            self.status.set_error(&status);
            out.failed.push((handle, Arc::clone(&self.progress), status));
        }
    }

    fn close(&mut self) {
        if let Some(mut state_machine) = self.state_machine.take() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| state_machine.on_shutdown())) {
                tracing::error!(group = %self.names.group_id, "on_shutdown panicked: {}", panic_text(&*payload));
            }
            drop_quietly(state_machine);
        }
    }
}

/// Drops what users wrote; a panic in it goes no further.
fn drop_quietly(state_machine: Box<dyn StateMachine>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(state_machine))) {
        tracing::error!("dropping a state machine panicked: {}", panic_text(&*payload));
    }
}

fn completion_panicked() -> Status {
    Status::new(RaftError::StateMachine, "a completion of a task panicked")
}

impl fmt::Debug for ApplyTaskHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyTaskHandler").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}
