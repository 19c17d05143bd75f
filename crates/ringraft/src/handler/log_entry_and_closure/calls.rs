//! Reads and other calls of users: given to the node, and ended with the group.

use ringraft_core::{CallFailure, Input, RaftError, ReadOnlyOption, Status, Time};

use crate::handler::{CallResult, GroupHandle, LaneOutput, LogEntryAndClosureHandler, NodeCall, ReadEvent};
use crate::task::completion::ApplyError;
use crate::task::promise::Promise;

impl LogEntryAndClosureHandler {
    /// A read; `worker` tells its caller when the group is gone.
    pub(super) fn on_read(&mut self, worker: u16, read: ReadEvent, out: &mut LaneOutput) {
        let ReadEvent { handle, mode, done } = read;
        let Some(group) = self.group(handle) else {
            out.fail(worker, handle, vec![done], ApplyError::Shutdown);
            return;
        };
        group.calls.reads_of_turn(mode).push(done);
        if !group.asked && !group.node().is_leader() {
            self.note_asked(handle);
        }
        self.touch(handle);
    }

    /// Gives the reads of this turn to the node.
    pub(super) fn begin_reads(&mut self, now: Time, handle: GroupHandle, out: &mut LaneOutput) {
        for mode in [ReadOnlyOption::Safe, ReadOnlyOption::LeaseBased] {
            let Some(group) = self.group(handle) else { return };
            let reads = std::mem::take(group.calls.reads_of_turn(mode));
            if reads.is_empty() {
                continue;
            }
            metrics::histogram!("handle-read-index-entries").record(reads.len() as f64);
            if let Some(status) = group.panicked().cloned() {
                let worker = group.worker;
                out.fail(worker, handle, reads, ApplyError::Failed(status));
                continue;
            }
            let calls = reads.into_iter().map(|read| group.calls.insert_read(read)).collect();
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
        let token = group.calls.insert_call(answer);
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
            out.fail(worker, handle, reads, ApplyError::ReadFailed(status.clone()));
        }
        calls.into_iter().for_each(|promise| promise.fulfil(Err(CallFailure::Unknown(status.clone()))));
    }
}
