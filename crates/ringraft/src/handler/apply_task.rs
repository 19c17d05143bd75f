//! The state-machine stage (SOFAJRaft's `ApplyTaskHandler` and `FSMCallerImpl`).

use std::fmt;

use ringraft_core::Time;
use rustc_hash::FxHashMap;

use crate::handler::fsm_group::{ApplyOutput, FsmGroup, completion_panicked};
use crate::handler::slow_calls::SlowCalls;
use crate::handler::{FsmTask, GroupHandle};
use crate::task::completion::Deliveries;

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

impl ApplyTaskHandler {
    /// A worker without state machines.
    pub fn new() -> ApplyTaskHandler {
        ApplyTaskHandler::default()
    }

    /// Has calls of `on_apply` that take `limit_ms` or longer by `clock` told in the log, at most one in ten seconds.
    pub fn tell_slow_calls(&mut self, limit_ms: u64, clock: fn() -> Time) {
        self.slow_calls = Some(SlowCalls::new(limit_ms, clock));
    }

    /// Does the tasks. Entries of one group that follow each other are applied together.
    pub fn on_batch(&mut self, tasks: &mut Vec<FsmTask>, out: &mut ApplyOutput) {
        for task in tasks.drain(..) {
            match task {
                FsmTask::Committed { handle, chunk, closures } => match self.groups.get_mut(&handle) {
                    Some(group) => {
                        if !group.has_entries() {
                            self.touched.push(handle);
                        }
                        group.gather(chunk, closures);
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
            && group.has_entries()
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

impl fmt::Debug for ApplyTaskHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyTaskHandler").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}
