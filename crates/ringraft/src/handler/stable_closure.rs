//! The disk stage (SOFAJRaft's `StableClosureEventHandler`): merges writes, and lets go of what waited for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ringraft_core::{LogOp, Mutant, RaftError, RaftResponse, Status};
use ringraft_storage::{GroupKey, GroupWrite, RefusedWrites, StorageError, WriteBatch};

use rustc_hash::FxHashSet;

use crate::handler::{DiskWrite, GroupHandle, GroupProgress, OutReply, OutSend, WriteQueue};

/// What the loop (or the simulator) does after a write.
#[derive(Debug, Default)]
pub struct StableOutput {
    /// Requests that may leave now.
    pub sends: Vec<OutSend>,
    /// Answers that may leave now.
    pub replies: Vec<OutReply>,
    /// Groups whose writes are durable, up to which sequence. To be reported after sends and replies have left.
    pub stable: Vec<(GroupHandle, Arc<GroupProgress>, u64)>,
    /// Groups whose writes the store refuses, with the reason: each must stop, the others go on.
    pub refused: Vec<(GroupHandle, Arc<GroupProgress>, Status)>,
    /// The store has failed: every group that uses it must stop.
    pub failed: Option<Status>,
}

/// What waits for one durable write.
#[derive(Debug, Default)]
struct Waiting {
    sends: Vec<OutSend>,
    replies: Vec<OutReply>,
    writes: Vec<WaitingWrite>,
}

/// One write of a group, and how much of what waits is its.
#[derive(Debug)]
struct WaitingWrite {
    key: GroupKey,
    handle: GroupHandle,
    progress: Arc<GroupProgress>,
    sequence: u64,
    /// It has operations; what has none waits for those before it only.
    stored: bool,
    sends: usize,
    replies: usize,
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
    /// One for each group whose writes were refused. A later batch may hold an answer of it that only waits for that write, and of which the
    /// store knows nothing.
    refused: Vec<RefusedWrites>,
    /// Groups that were ended before their writes were done, some of which may still be on their way here.
    ended: FxHashSet<GroupKey>,
}

impl StableClosureEventHandler {
    /// A stage with nothing to do.
    pub fn new() -> StableClosureEventHandler {
        StableClosureEventHandler::default()
    }

    /// The group begins anew in the store: what was refused before concerns it no more.
    pub fn opened(&mut self, group: GroupKey) {
        self.refused.retain(|refused| refused.group != group);
        self.ended.remove(&group);
    }

    /// The groups, which do not run, are removed or lose their logs: what they wanted written is not written any more. Whoever waits for that,
    /// in a batch that was not submitted yet or in the queue, gets an error, as for what still comes. No batch may be with the store.
    ///
    /// All at once: what waits is looked at once, however many groups end, for the disk writes nothing meanwhile.
    pub fn end(&mut self, groups: &[GroupKey], queue: &mut WriteQueue, out: &mut StableOutput) {
        self.ended.extend(groups);
        let ends = groups.iter().copied().collect();
        for waiting in &mut self.waiting {
            waiting.end(&ends, out);
        }
        for write in queue.take_groups(&ends) {
            out.replies.extend(write.replies.into_iter().map(|reply| refuse(reply, &end_of_group())));
        }
    }

    /// Whether the store refuses the group's writes.
    pub fn refuses(&self, group: GroupKey) -> bool {
        self.refused.iter().any(|refused| refused.group == group)
    }

    /// Whether nothing of the group is written any more.
    pub fn has_ended(&self, group: GroupKey) -> bool {
        self.ended.contains(&group)
    }

    /// Nothing is on its way here, so that nothing of groups that have ended is.
    pub fn caught_up(&mut self) {
        self.ended.clear();
    }

    /// Why the store has failed.
    pub fn failed(&self) -> Option<&Status> {
        self.failed.as_ref()
    }

    /// Why nothing is let go of any more. Rule P6: the first failure counts, also for what is written after it.
    fn holds_back(&self) -> Option<&Status> {
        self.failed.as_ref().filter(|_| !Mutant::H2FailedWriteIsAcknowledged.is_active())
    }

    /// Takes writes, oldest first, and merges them into one. The batch may be empty: then nothing needs to be written, and
    /// [`on_synced`](StableClosureEventHandler::on_synced) follows all the same, after those of earlier batches.
    pub fn on_batch(&mut self, writes: &mut Vec<DiskWrite>) -> WriteBatch {
        let mut batch = WriteBatch { writes: Vec::with_capacity(writes.len()) };
        let mut waiting = Waiting::default();
        let (mut entries, mut bytes) = (0_usize, 0_usize);
        in_order_of_arrival(writes);
        for mut write in writes.drain(..) {
            if !self.ended.is_empty() && self.has_ended(write.key) {
                waiting.forget(write);
                continue;
            }
            for op in &write.ops {
                if let LogOp::Append(chunk) = op {
                    entries += chunk.len();
                    bytes += chunk.payload().len();
                }
            }
            let stored = !write.ops.is_empty();
            if stored {
                batch.writes.push(GroupWrite { group: write.key, ops: std::mem::take(&mut write.ops) });
            }
            waiting.writes.push(WaitingWrite {
                key: write.key,
                handle: write.handle,
                progress: write.progress,
                sequence: write.sequence,
                stored,
                sends: write.sends.len(),
                replies: write.replies.len(),
            });
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

    /// The oldest batch that waits is durable, but for groups whose writes were refused, or the store has failed. Nothing of a
    /// group that is refused leaves any more: what waited for its write does not, and those who asked get an error.
    pub fn on_synced(&mut self, result: Result<Vec<RefusedWrites>, StorageError>, out: &mut StableOutput) {
        let Some(waiting) = self.waiting.pop_front() else {
            debug_assert!(false, "a write was completed that was never begun");
            return;
        };
        match result {
            Ok(refused) => {
                for one in refused {
                    if self.refused.iter().all(|known| known.group != one.group) {
                        self.refused.push(one);
                    }
                }
            }
            Err(error) => {
                // Rule P6: a later success would vouch for what this failure has lost.
                if self.failed.is_none() {
                    tracing::error!(%error, "the log store has failed; nothing is acknowledged any more");
                    let status = Status::new(RaftError::Io, format!("the log store has stopped: {error}"));
                    self.failed = Some(status.clone());
                    out.failed = Some(status);
                }
            }
        }
        match self.holds_back() {
            None if self.refused.is_empty() => {
                out.sends.extend(waiting.sends);
                out.replies.extend(waiting.replies);
                let stored = waiting.writes.into_iter().filter(|write| write.stored);
                out.stable.extend(stored.map(|write| (write.handle, write.progress, write.sequence)));
            }
            None => waiting.release_but(&self.refused, out),
            Some(status) => {
                out.replies.extend(waiting.replies.into_iter().map(|reply| refuse(reply, status)))
            }
        }
    }
}

/// Rule P1: writes of a group are records in the order in which it made them, and they come so.
fn in_order_of_arrival(writes: &mut [DiskWrite]) {
    if Mutant::J1BatchIsWrittenBackwards.is_active() {
        writes.reverse();
    }
}

fn refuse(reply: OutReply, status: &Status) -> OutReply {
    OutReply { response: RaftResponse::Error(status.clone()), ..reply }
}

/// What is told to who waits for a group that was ended.
fn end_of_group() -> Status {
    Status::new(RaftError::NodeShutdown, "the group was removed from this host, or its log was dropped")
}

impl Waiting {
    /// Takes a write of a group that has ended: only who waits for its answers is left of it.
    fn forget(&mut self, write: DiskWrite) {
        self.writes.push(WaitingWrite {
            key: write.key,
            handle: write.handle,
            progress: write.progress,
            sequence: 0,
            stored: false,
            sends: 0,
            replies: write.replies.len(),
        });
        self.replies.extend(write.replies.into_iter().map(|reply| refuse(reply, &end_of_group())));
    }

    /// Nothing of the groups waits any more: who asked gets an error now.
    fn end(&mut self, groups: &FxHashSet<GroupKey>, out: &mut StableOutput) {
        let (mut sends, mut replies) =
            (std::mem::take(&mut self.sends).into_iter(), std::mem::take(&mut self.replies).into_iter());
        self.writes.retain(|write| {
            let sends = sends.by_ref().take(write.sends);
            let replies = replies.by_ref().take(write.replies);
            let ends = groups.contains(&write.key);
            if ends {
                sends.for_each(drop);
                out.replies.extend(replies.map(|reply| refuse(reply, &end_of_group())));
            } else {
                self.sends.extend(sends);
                self.replies.extend(replies);
            }
            !ends
        });
    }

    /// Lets go of everything but what belongs to groups whose writes were refused.
    fn release_but(self, refused: &[RefusedWrites], out: &mut StableOutput) {
        let (mut sends, mut replies) = (self.sends.into_iter(), self.replies.into_iter());
        let mut told: Vec<GroupHandle> = Vec::new();
        for write in self.writes {
            let sends = sends.by_ref().take(write.sends);
            let replies = replies.by_ref().take(write.replies);
            let Some(reason) = refused.iter().find(|refused| refused.group == write.key) else {
                out.sends.extend(sends);
                out.replies.extend(replies);
                if write.stored {
                    out.stable.push((write.handle, write.progress, write.sequence));
                }
                continue;
            };
            let status = Status::new(
                RaftError::Io,
                format!("the log store refuses the group's writes: {}", reason.reason),
            );
            sends.for_each(drop);
            out.replies.extend(replies.map(|reply| refuse(reply, &status)));
            if !told.contains(&write.handle) {
                told.push(write.handle);
                out.refused.push((write.handle, write.progress, status));
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
    use ringraft_core::{
        Extensions, HardState, LogId, RaftRequest, RequestVoteRequest, RequestVoteResponse, Vote,
    };
    use ringraft_net::{LinkId, ReplyHandle, RequestContext};
    use ringraft_storage::{GroupNumber, Incarnation};

    use super::*;
    use crate::handler::GroupNames;

    fn write(slot: u32, sequence: u64) -> DiskWrite {
        DiskWrite {
            handle: GroupHandle { lane: 0, slot, generation: 1 },
            key: GroupKey { number: GroupNumber(slot), incarnation: Incarnation(1) },
            progress: Arc::default(),
            sequence,
            ops: vec![LogOp::HardState(HardState { term: sequence, vote: Vote::None })],
            bytes: 0,
            sends: Vec::new(),
            replies: vec![OutReply {
                handle: ReplyHandle { connection: slot, generation: 1, request: sequence as u32 },
                codec: 1,
                creation: 0,
                response: RaftResponse::RequestVote(RequestVoteResponse {
                    term: sequence,
                    granted: true,
                    removed: None,
                }),
            }],
        }
    }

    #[test]
    fn all_groups_share_one_write_and_nothing_leaves_before_it() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let batch = stage.on_batch(&mut vec![write(1, 5), write(2, 7)]);
        assert_eq!(batch.writes.len(), 2);
        assert!(out.replies.is_empty() && out.stable.is_empty());
        stage.on_synced(Ok(Vec::new()), &mut out);
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
        stage.on_synced(Ok(Vec::new()), &mut out);
        assert_eq!((out.replies.len(), out.stable.len()), (1, 0));
    }

    /// Shows rule P7.
    #[test]
    fn a_group_whose_writes_are_refused_stops_alone() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let mut waits = write(2, 0);
        waits.ops.clear();
        let names = GroupNames::new("g".parse().unwrap(), "127.0.0.1:1".parse().unwrap(), 0);
        let send = |write: &mut DiskWrite, term| {
            let (last_log, pre_vote, transfer) = (LogId::default(), false, false);
            let (extensions, conf_index) = (Extensions::NONE, 0);
            let vote = RequestVoteRequest { term, last_log, pre_vote, transfer, extensions, conf_index };
            write.sends.push(OutSend {
                link: LinkId(1),
                context: RequestContext { lane: 0, kind: 0, slot: 0, generation: 1, ticket: term },
                names: names.clone(),
                to: "127.0.0.1:2".into(),
                request: RaftRequest::RequestVote(vote),
                timeout_ms: 1000,
            });
        };
        let mut batch = vec![write(1, 5), write(2, 7), waits, write(2, 8), write(3, 9)];
        batch.iter_mut().zip(1..).for_each(|(write, term)| send(write, term));
        stage.on_batch(&mut batch);
        let group = GroupKey { number: GroupNumber(2), incarnation: Incarnation(1) };
        let reason = StorageError::Invalid { group, what: "a gap".into() };
        stage.on_synced(Ok(vec![RefusedWrites { group, reason }]), &mut out);
        let stable: Vec<_> = out.stable.iter().map(|(handle, ..)| handle.slot).collect();
        assert_eq!(stable, [1, 3]);
        let asked: Vec<_> = out
            .replies
            .iter()
            .map(|reply| (reply.handle.connection, matches!(reply.response, RaftResponse::Error(_))))
            .collect();
        assert_eq!(asked, [(1, false), (2, true), (2, true), (2, true), (3, false)]);
        let left: Vec<_> = out
            .sends
            .iter()
            .map(|send| match &send.request {
                RaftRequest::RequestVote(vote) => vote.term,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(left, [1, 5], "a vote that was not stored must not leave");
        let [(handle, _, status)] = &out.refused[..] else { panic!("{:?}", out.refused) };
        assert!(handle.slot == 2 && status.message.contains("a gap"), "{status}");
        assert!(out.failed.is_none() && stage.failed().is_none());
    }

    /// Shows rule P7: a later batch may hold an answer that only waited for the write that was refused.
    #[test]
    fn a_group_that_was_refused_answers_nothing_in_later_batches() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let group = write(2, 7).key;
        let mut waits = write(2, 8);
        waits.ops.clear();
        stage.on_batch(&mut vec![write(2, 7)]);
        stage.on_batch(&mut vec![waits, write(3, 9)]);
        let reason = StorageError::Invalid { group, what: "a gap".into() };
        stage.on_synced(Ok(vec![RefusedWrites { group, reason }]), &mut out);
        stage.on_synced(Ok(Vec::new()), &mut out);
        let granted = |reply: &OutReply| !matches!(reply.response, RaftResponse::Error(_));
        let told: Vec<_> =
            out.replies.iter().map(|reply| (reply.handle.connection, granted(reply))).collect();
        assert_eq!(told, [(2, false), (2, false), (3, true)]);
        stage.opened(group);
        stage.on_batch(&mut vec![write(2, 1)]);
        out.replies.clear();
        stage.on_synced(Ok(Vec::new()), &mut out);
        assert!(granted(&out.replies[0]), "it begins anew");
    }

    /// A group is removed, or loses its log, while its writes wait for room: nothing of them is done or leaves any more, neither of those that
    /// wait nor of those that come later; who asked is told at once, and the group beside it goes on.
    #[test]
    fn a_group_that_ends_has_nothing_more_written() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let mut queue = WriteQueue::new();
        let group = write(2, 1).key;
        queue.push(vec![write(2, 6), write(4, 1)]);
        let mut batch = stage.on_batch(&mut vec![write(1, 5), write(2, 5), write(3, 5)]);
        stage.end(&[group], &mut queue, &mut out);
        batch.writes.retain(|write| !stage.has_ended(write.group));
        assert_eq!((batch.writes.len(), queue.len()), (2, 1));
        let told = |out: &mut StableOutput| -> Vec<_> {
            let replies = std::mem::take(&mut out.replies).into_iter();
            replies.map(|r| (r.handle.connection, matches!(r.response, RaftResponse::Error(_)))).collect()
        };
        assert_eq!(told(&mut out), [(2, true), (2, true)]);
        stage.on_synced(Ok(Vec::new()), &mut out);
        assert_eq!(told(&mut out), [(1, false), (3, false)]);
        assert_eq!(out.stable.iter().map(|(handle, ..)| handle.slot).collect::<Vec<_>>(), [1, 3]);
        let late = stage.on_batch(&mut vec![write(2, 7), write(1, 6)]);
        assert_eq!(late.writes.len(), 1, "it was on its way");
        stage.on_synced(Ok(Vec::new()), &mut out);
        assert_eq!(told(&mut out), [(2, true), (1, false)]);
        stage.opened(group);
        assert_eq!(stage.on_batch(&mut vec![write(2, 1)]).writes.len(), 1, "it begins anew");
        stage.end(&[write(1, 1).key], &mut queue, &mut out);
        stage.caught_up();
        assert!(!stage.has_ended(write(1, 1).key), "nothing of it can come any more");
    }

    /// A hundred thousand groups end while as many writes wait: looking through those for each group would take minutes, and the groups that
    /// stay wait for the disk as long.
    #[test]
    fn many_groups_end_in_one_look() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        let mut queue = WriteQueue::new();
        stage.on_batch(&mut (0..100_000).map(|slot| write(slot, 1)).collect());
        queue.push((0..100_001).map(|slot| write(slot, 2)).collect());
        let groups: Vec<GroupKey> = (0..100_000).map(|slot| write(slot, 1).key).collect();
        stage.end(&groups, &mut queue, &mut out);
        assert_eq!((queue.len(), out.replies.len()), (1, 200_000));
        assert!(groups.iter().all(|group| stage.has_ended(*group)));
        groups.iter().for_each(|group| stage.opened(*group));
        assert!(!groups.iter().any(|group| stage.has_ended(*group)));
    }

    /// Shows rule P6.
    #[test]
    fn the_first_failure_is_final() {
        let (mut stage, mut out) = (StableClosureEventHandler::new(), StableOutput::default());
        stage.on_batch(&mut vec![write(1, 1)]);
        stage.on_batch(&mut vec![write(1, 2)]);
        stage.on_synced(Err(StorageError::Poisoned("gone".into())), &mut out);
        assert!(out.failed.take().is_some());
        stage.on_synced(Ok(Vec::new()), &mut out);
        assert!(out.stable.is_empty(), "nothing is stable after a failure, whatever later writes say");
        assert!(out.failed.is_none(), "told once");
        assert!(out.replies.iter().all(|reply| matches!(reply.response, RaftResponse::Error(_))));
        assert_eq!(out.replies.len(), 2);
    }
}
