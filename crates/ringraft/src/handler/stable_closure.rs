//! The disk stage (SOFAJRaft's `StableClosureEventHandler`): merges writes, and lets go of what waited for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ringraft_core::{LogOp, Mutant, RaftError, RaftResponse, Status};
use ringraft_storage::{GroupWrite, StorageError, WriteBatch};

use crate::handler::{DiskWrite, GroupHandle, GroupProgress, OutReply, OutSend};

/// What the loop (or the simulator) does after a write.
#[derive(Debug, Default)]
pub struct StableOutput {
    /// Requests that may leave now.
    pub sends: Vec<OutSend>,
    /// Answers that may leave now.
    pub replies: Vec<OutReply>,
    /// Groups whose writes are durable, up to which sequence. To be reported after sends and replies have left.
    pub stable: Vec<(GroupHandle, Arc<GroupProgress>, u64)>,
    /// The store has failed: every group that uses it must stop.
    pub failed: Option<Status>,
}

/// What waits for one durable write.
#[derive(Debug, Default)]
struct Waiting {
    sends: Vec<OutSend>,
    replies: Vec<OutReply>,
    stable: Vec<(GroupHandle, Arc<GroupProgress>, u64)>,
}

/// Merges the writes of all lanes into one durable write, and releases what waited for it. Two calls, so that a disk may be slow:
/// [`on_batch`](StableClosureEventHandler::on_batch) before the write, [`on_synced`](StableClosureEventHandler::on_synced) after
/// it, in the same order.
///
/// The first failure is final: nothing is acknowledged after it.
#[derive(Default)]
pub struct StableClosureEventHandler {
    waiting: VecDeque<Waiting>,
    failed: Option<Status>,
}

impl StableClosureEventHandler {
    /// A stage with nothing to do.
    pub fn new() -> StableClosureEventHandler {
        StableClosureEventHandler::default()
    }

    /// Why the store has failed.
    pub fn failed(&self) -> Option<&Status> {
        self.failed.as_ref()
    }

    /// Takes writes, oldest first, and merges them into one. The batch may be empty: then nothing needs to be written, and
    /// [`on_synced`](StableClosureEventHandler::on_synced) follows all the same, after those of earlier batches.
    pub fn on_batch(&mut self, writes: &mut Vec<DiskWrite>) -> WriteBatch {
        let mut batch = WriteBatch { writes: Vec::with_capacity(writes.len()) };
        let mut waiting = Waiting::default();
        let (mut entries, mut bytes) = (0_usize, 0_usize);
        if Mutant::J1BatchIsWrittenBackwards.is_active() {
            writes.reverse();
        }
        for mut write in writes.drain(..) {
            for op in &write.ops {
                if let LogOp::Append(chunk) = op {
                    entries += chunk.len();
                    bytes += chunk.payload().len();
                }
            }
            if !write.ops.is_empty() {
                batch.writes.push(GroupWrite { group: write.key, ops: std::mem::take(&mut write.ops) });
                waiting.stable.push((write.handle, write.progress, write.sequence));
            }
            waiting.sends.append(&mut write.sends);
            waiting.replies.append(&mut write.replies);
        }
        if entries > 0 {
            metrics::histogram!("append-logs-count").record(entries as f64);
            metrics::histogram!("append-logs-bytes").record(bytes as f64);
        }
        self.waiting.push_back(waiting);
        batch
    }

    /// The oldest batch that waits is durable, or the store has failed.
    pub fn on_synced(&mut self, result: Result<(), StorageError>, out: &mut StableOutput) {
        let Some(waiting) = self.waiting.pop_front() else {
            debug_assert!(false, "a write was completed that was never begun");
            return;
        };
        if self.failed.is_none()
            && let Err(error) = result
        {
            tracing::error!(%error, "the log store has failed; nothing is acknowledged any more");
            let status = Status::new(RaftError::Io, error.to_string());
            self.failed = Some(status.clone());
            out.failed = Some(status);
        }
        let failed = self.failed.as_ref().filter(|_| !Mutant::H2FailedWriteIsAcknowledged.is_active());
        match failed {
            None => {
                out.sends.extend(waiting.sends);
                out.replies.extend(waiting.replies);
                out.stable.extend(waiting.stable);
            }
            Some(status) => {
                out.replies.extend(
                    waiting
                        .replies
                        .into_iter()
                        .map(|reply| OutReply { response: RaftResponse::Error(status.clone()), ..reply }),
                );
            }
        }
    }
}

impl fmt::Debug for StableClosureEventHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StableClosureEventHandler")
            .field("waiting", &self.waiting.len())
            .field("failed", &self.failed)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use ringraft_core::{HardState, RequestVoteResponse, Vote};
    use ringraft_net::ReplyHandle;
    use ringraft_storage::{GroupKey, GroupNumber, Incarnation};

    use super::*;

    fn write(slot: u32, sequence: u64) -> DiskWrite {
        DiskWrite {
            handle: GroupHandle { lane: 0, slot, generation: 1 },
            key: GroupKey { number: GroupNumber(slot), incarnation: Incarnation(1) },
            progress: Arc::default(),
            sequence,
            ops: vec![LogOp::HardState(HardState { term: sequence, vote: Vote::None })],
            sends: Vec::new(),
            replies: vec![OutReply {
                handle: ReplyHandle { connection: slot, generation: 1, request: sequence as u32 },
                codec: 1,
                response: RaftResponse::RequestVote(RequestVoteResponse { term: sequence, granted: true }),
            }],
        }
    }

    #[test]
    fn all_groups_share_one_write_and_nothing_leaves_before_it() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let batch = stage.on_batch(&mut vec![write(1, 5), write(2, 7)]);
        assert_eq!(batch.writes.len(), 2);
        assert!(out.replies.is_empty() && out.stable.is_empty());
        stage.on_synced(Ok(()), &mut out);
        let stable: Vec<_> =
            out.stable.iter().map(|(handle, _, sequence)| (handle.slot, *sequence)).collect();
        assert_eq!(stable, [(1, 5), (2, 7)]);
        assert_eq!(out.replies.len(), 2);
    }

    #[test]
    fn what_only_waits_needs_no_write() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let mut waits = write(1, 0);
        waits.ops.clear();
        assert!(stage.on_batch(&mut vec![waits]).is_empty());
        stage.on_synced(Ok(()), &mut out);
        assert_eq!((out.replies.len(), out.stable.len()), (1, 0));
    }

    #[test]
    fn the_first_failure_is_final() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        stage.on_batch(&mut vec![write(1, 1)]);
        stage.on_batch(&mut vec![write(1, 2)]);
        stage.on_synced(Err(StorageError::Poisoned("gone".into())), &mut out);
        assert!(out.failed.take().is_some());
        stage.on_synced(Ok(()), &mut out);
        assert!(out.stable.is_empty(), "nothing is stable after a failure, whatever later writes say");
        assert!(out.failed.is_none(), "told once");
        assert!(out.replies.iter().all(|reply| matches!(reply.response, RaftResponse::Error(_))));
        assert_eq!(out.replies.len(), 2);
    }
}
