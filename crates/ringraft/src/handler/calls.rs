//! Reads and other calls of users: numbered, given to the node, and ended exactly once.

use ringraft_core::{CallFailure, CallOutcome, CallToken, Input, RaftError, ReadOnlyOption, Status, Time};
use rustc_hash::FxHashMap;

use crate::completion::{ApplyError, Completion};
use crate::future::Promise;
use crate::handler::effects::fail;
use crate::handler::group::Group;
use crate::handler::{
    CallResult, FsmTask, GroupHandle, LaneOutput, LogEntryAndClosureHandler, NodeCall, ReadEvent,
};

/// Who waits for a call.
enum Waiting {
    Read(Completion),
    Call(Promise<CallResult>),
}

/// Calls of one group that have not ended.
#[derive(Default)]
pub(super) struct Calls {
    last: u64,
    waiting: FxHashMap<CallToken, Waiting>,
    /// Reads of this turn, which share a round.
    safe: Vec<Completion>,
    leased: Vec<Completion>,
}

impl Calls {
    fn insert(&mut self, waiting: Waiting) -> CallToken {
        self.last += 1;
        self.waiting.insert(CallToken(self.last), waiting);
        CallToken(self.last)
    }

    /// The reads of these calls.
    pub(super) fn take_reads(&mut self, calls: &[CallToken]) -> Vec<Completion> {
        let read = |call: &CallToken| match self.waiting.remove(call)? {
            Waiting::Read(completion) => Some(completion),
            Waiting::Call(_) => None,
        };
        calls.iter().filter_map(read).collect()
    }

    /// Everything that waits: reads, and other calls, which learn by that that there is no outcome.
    fn take_all(&mut self) -> (Vec<Completion>, Vec<Promise<CallResult>>) {
        let mut reads = std::mem::take(&mut self.safe);
        reads.append(&mut self.leased);
        let (mut tokens, mut calls) =
            (std::mem::take(&mut self.waiting).into_iter().collect::<Vec<_>>(), Vec::new());
        tokens.sort_unstable_by_key(|(token, _)| *token);
        for (_, waiting) in tokens {
            match waiting {
                Waiting::Read(completion) => reads.push(completion),
                Waiting::Call(promise) => calls.push(promise),
            }
        }
        (reads, calls)
    }
}

impl LogEntryAndClosureHandler {
    /// A read; `worker` tells its caller when the group is gone.
    pub(super) fn on_read(&mut self, worker: u16, read: ReadEvent, out: &mut LaneOutput) {
        let ReadEvent { handle, mode, done } = read;
        let Some(group) = self.group(handle) else {
            fail(out, worker, handle, vec![done], ApplyError::Shutdown);
            return;
        };
        match mode {
            ReadOnlyOption::Safe => group.calls.safe.push(done),
            ReadOnlyOption::LeaseBased => group.calls.leased.push(done),
        }
        if !group.asked && !group.node().is_leader() {
            self.note_asked(handle);
        }
        self.touch(handle);
    }

    /// Gives the reads of this turn to the node.
    pub(super) fn begin_reads(&mut self, now: Time, handle: GroupHandle, out: &mut LaneOutput) {
        for mode in [ReadOnlyOption::Safe, ReadOnlyOption::LeaseBased] {
            let Some(group) = self.group(handle) else { return };
            let reads = match mode {
                ReadOnlyOption::Safe => std::mem::take(&mut group.calls.safe),
                ReadOnlyOption::LeaseBased => std::mem::take(&mut group.calls.leased),
            };
            if reads.is_empty() {
                continue;
            }
            metrics::histogram!("handle-read-index-entries").record(reads.len() as f64);
            if let Some(status) = group.panicked().cloned() {
                let worker = group.worker;
                fail(out, worker, handle, reads, ApplyError::Failed(status));
                continue;
            }
            let calls = reads.into_iter().map(|read| group.calls.insert(Waiting::Read(read))).collect();
            self.step(now, handle, Input::ReadIndex { calls, mode }, out);
        }
    }

    pub(super) fn on_call(
        &mut self,
        now: Time,
        handle: GroupHandle,
        call: NodeCall,
        answer: Promise<CallResult>,
        out: &mut LaneOutput,
    ) {
        let Some(group) = self.group(handle) else {
            // The node has not seen the call, so that this is certain.
            let status = Status::new(RaftError::NodeShutdown, "the node has stopped");
            return answer.fulfil(Err(CallFailure::Failed(status)));
        };
        if let Some(status) = group.panicked() {
            return answer.fulfil(Err(CallFailure::Failed(status.clone())));
        }
        let token = group.calls.insert(Waiting::Call(answer));
        let input = match call {
            NodeCall::ChangeMembers { change, prev_index } => {
                Input::ChangeMembers { call: token, change, prev_index }
            }
            NodeCall::TransferLeadership { to } => Input::TransferLeadership { call: token, to },
            NodeCall::ResetPeers { conf } => Input::ResetPeers { call: token, conf },
        };
        self.step(now, handle, input, out);
    }

    /// The group is over: whoever waits is told.
    pub(super) fn end_calls(&mut self, handle: GroupHandle, status: &Status, out: &mut LaneOutput) {
        let Some(group) = self.group(handle) else { return };
        let ((reads, calls), worker) = (group.calls.take_all(), group.worker);
        if !reads.is_empty() {
            fail(out, worker, handle, reads, ApplyError::ReadFailed(status.clone()));
        }
        calls.into_iter().for_each(|promise| promise.fulfil(Err(CallFailure::Unknown(status.clone()))));
    }
}

/// Ends calls as the node says.
pub(super) fn end_outcomes(
    group: &mut Group,
    handle: GroupHandle,
    outcomes: impl Iterator<Item = CallOutcome>,
    tasks: &mut Vec<FsmTask>,
) {
    for CallOutcome { call, result } in outcomes {
        match group.calls.waiting.remove(&call) {
            Some(Waiting::Call(promise)) => promise.fulfil(result),
            Some(Waiting::Read(completion)) => {
                let error = match result {
                    Err(CallFailure::Failed(status) | CallFailure::Unknown(status)) => refusal(group, status),
                    Ok(_) => {
                        ApplyError::ReadFailed(Status::new(RaftError::Internal, "a read has another outcome"))
                    }
                };
                match tasks.last_mut() {
                    Some(FsmTask::Fail { handle: last, completions, error: same })
                        if *last == handle && *same == error =>
                    {
                        completions.push(completion);
                    }
                    _ => tasks.push(FsmTask::Fail { handle, completions: vec![completion], error }),
                }
            }
            None => debug_assert!(false, "a call ends once"),
        }
    }
}

fn refusal(group: &Group, status: Status) -> ApplyError {
    match status.error {
        RaftError::NotPermitted => ApplyError::NotLeader { leader: group.node().leader_id().cloned() },
        RaftError::Busy => ApplyError::Busy,
        RaftError::NodeShutdown => ApplyError::Shutdown,
        _ => ApplyError::ReadFailed(status),
    }
}
