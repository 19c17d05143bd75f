//! Groups that are closed while the disk takes nothing.

use ringraft_core::{RaftError, RaftResponse, Status};
use rustc_hash::FxHashSet;

use crate::handler::{FsmTask, GroupHandle, LaneOutput, OutReply};

impl FsmTask {
    /// Whose it is.
    pub fn handle(&self) -> GroupHandle {
        match self {
            FsmTask::Committed { handle, .. }
            | FsmTask::Event { handle, .. }
            | FsmTask::ReadIndex { handle, .. }
            | FsmTask::Fail { handle, .. }
            | FsmTask::Open { handle, .. }
            | FsmTask::Close { handle, .. } => *handle,
        }
    }
}

impl LaneOutput {
    /// Takes out what the state-machine workers have to do, by worker, for groups that somebody has closed, and drops what those groups
    /// wanted written: for a disk that is full and takes nothing. Otherwise what a worker is told stands behind the writes, and nobody who
    /// would remove a group to make room could stop it. Who waits for their answers is told; requests that waited for the disk do not leave.
    ///
    /// Nothing of what is dropped was acknowledged, and all that was handed on before stands before it, so that the store keeps a prefix.
    pub fn let_closed_go(&mut self) -> Vec<Vec<FsmTask>> {
        let tasks = self.fsm.iter().flatten();
        let closed: FxHashSet<GroupHandle> = tasks
            .filter(|task| matches!(task, FsmTask::Close { answer: Some(_), .. }))
            .map(FsmTask::handle)
            .collect();
        if closed.is_empty() {
            return Vec::new();
        }
        let status = Status::new(RaftError::NodeShutdown, "the node was shut down while the disk was full");
        for write in self.disk.extract_if(.., |write| closed.contains(&write.handle)) {
            self.replies.extend(
                (write.replies.into_iter())
                    .map(|reply| OutReply { response: RaftResponse::Error(status.clone()), ..reply }),
            );
        }
        let take =
            |tasks: &mut Vec<FsmTask>| tasks.extract_if(.., |task| closed.contains(&task.handle())).collect();
        self.fsm.iter_mut().map(take).collect()
    }
}
