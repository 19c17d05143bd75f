//! Steps of a lane's groups, and what becomes of their effects.

use std::sync::Arc;

use ringraft_core::{
    AppendKind, Effects, FsmEvent, Input, LogOp, Mark, Mutant, NodeImpl, ProposeError, RaftError,
    RaftRequest, RaftResponse, Status, Time,
};
use ringraft_net::RequestContext;
use ringraft_proto::RequestKind;

use crate::handler::log_entry_and_closure::group::Group;
use crate::handler::log_entry_and_closure::peer_table::pack;
use crate::handler::{
    DiskWrite, FsmTask, GroupHandle, LaneOutput, LogEntryAndClosureHandler, OutSend, ReadTask,
};
use crate::task::completion::ApplyError;

impl LogEntryAndClosureHandler {
    pub(super) fn step(&mut self, now: Time, handle: GroupHandle, input: Input, out: &mut LaneOutput) {
        let Some(worker) = self.group(handle).map(|group| group.worker) else { return };
        let room = self.delivery_room(worker);
        self.step_within(now, handle, input, room, out);
    }

    /// A step that hands about `room` bytes of entries to the state machine at most.
    pub(super) fn step_within(
        &mut self,
        now: Time,
        handle: GroupHandle,
        input: Input,
        room: usize,
        out: &mut LaneOutput,
    ) {
        let Some(group) = self.group(handle) else { return };
        if group.tasks.expects_term() {
            // The term may change with this input: tasks that were checked against the old one go first.
            self.propose(now, handle, out);
        }
        let mut fx = std::mem::take(&mut self.fx);
        if let Some(group) = self.group(handle) {
            group.step(now, input, room, &mut fx);
            out.steps += 1;
        }
        if fx.marks.contains(Mark::RequestTimedOut) && tracing::enabled!(tracing::Level::WARN) {
            self.tell_silent_peers(now, handle);
        }
        self.absorb(handle, &mut fx, out);
        self.fx = fx;
        self.note_held(handle);
    }

    fn tell_silent_peers(&mut self, now: Time, handle: GroupHandle) {
        if let Some(node) = self.node(handle).map(NodeImpl::describe) {
            self.silent_peers.tell(now, &node);
        }
    }

    /// Proposes the tasks that wait, as one chunk.
    pub(super) fn propose(&mut self, now: Time, handle: GroupHandle, out: &mut LaneOutput) {
        let mut fx = std::mem::take(&mut self.fx);
        if let Some(group) = self.group(handle)
            && !group.tasks.is_empty()
            && let Err((error, completions)) = {
                out.steps += 1;
                group.propose(now, &mut fx)
            }
        {
            let error =
                match error {
                    Some(error) => refusal(error),
                    None => ApplyError::Failed(group.panicked().cloned().unwrap_or_else(|| {
                        Status::new(RaftError::BadNode, "the node of this group panicked")
                    })),
                };
            if error == ApplyError::Busy {
                metrics::counter!("apply-task-overload-times").increment(completions.len() as u64);
            }
            let worker = group.worker;
            out.fail(worker, handle, completions, error);
        }
        self.absorb(handle, &mut fx, out);
        self.fx = fx;
    }

    /// Moves the effects of one step into the output of the turn.
    pub(super) fn absorb(&mut self, handle: GroupHandle, fx: &mut Effects, out: &mut LaneOutput) {
        self.touch(handle);
        self.count_tail(handle);
        out.marks.add(fx.marks);
        let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut() else {
            fx.clear();
            return;
        };
        let (before, unapplied) = group.count_unapplied();
        if before != unapplied {
            self.rooms.count_unapplied(group.worker, before, unapplied);
        }
        if group.panicked().is_some() {
            fx.clear();
            self.fail_group(handle, out);
            return;
        }
        let waits = !fx.log.is_empty()
            || fx.sends.iter().any(|send| send.after_durable)
            || fx.replies.iter().any(|reply| reply.after_durable);
        let most = self.limits.write_bytes;
        let mut write = waits.then(|| take_write(&mut out.disk, group, most));
        if let Some(write) = &mut write
            && !fx.log.is_empty()
        {
            write.bytes += fx.log.iter().map(op_bytes).sum::<usize>();
            write.ops.append(&mut fx.log);
            write.sequence = fx.write_sequence;
        }
        for reply in fx.replies.drain(..) {
            let Some(waiting) = self.replies.take(reply.token) else {
                debug_assert!(false, "a request is answered once");
                continue;
            };
            let creation = group.names.creation;
            let answer = waiting.answer(creation, reply.response);
            match &mut write {
                Some(write) if answer_waits(reply.after_durable) => {
                    write.replies.push(answer);
                }
                _ => out.replies.push(answer),
            }
        }
        for send in fx.sends.drain(..) {
            let Some(number) = self.peers.number(&send.to, &self.transport) else {
                tracing::error!(peer = %send.to, "too many peers on one lane");
                continue;
            };
            let Some(peer) = self.peers.get(number) else { continue };
            let link = match &send.request {
                RaftRequest::AppendEntries(request) if request.kind != AppendKind::Heartbeat => {
                    if request.kind == AppendKind::Entries {
                        metrics::histogram!("replicate-entries-count").record(request.entry_count() as f64);
                        metrics::histogram!("replicate-entries-bytes").record(request.payload_bytes() as f64);
                    }
                    peer.log
                }
                RaftRequest::AppendEntries(_) => {
                    metrics::counter!("heartbeat-times").increment(1);
                    peer.control
                }
                // Behind the entries that were sent: who campaigns before it has them is refused by those that do.
                RaftRequest::TimeoutNow(_) => peer.log,
                _ => peer.control,
            };
            let context = RequestContext {
                lane: self.lane,
                kind: RequestKind::of(&send.request).into(),
                slot: handle.slot,
                generation: handle.generation,
                ticket: pack(number, send.ticket.0),
            };
            let request = OutSend {
                link,
                context,
                names: Arc::clone(&group.names),
                to: Arc::clone(&peer.text),
                request: send.request,
                timeout_ms: send.timeout_ms,
            };
            match &mut write {
                Some(write) if request_waits(send.after_durable) => {
                    write.sends.push(request);
                }
                _ => out.sends.push(request),
            }
        }
        out.disk.extend(write);
        let key = group.key;
        let readers = out.reads.len();
        out.reads[handle.slot as usize % readers].extend(fx.reads.drain(..).map(|read| ReadTask {
            handle,
            key,
            read,
        }));
        let tasks = &mut out.fsm[usize::from(group.worker)];
        for event in fx.fsm.drain(..) {
            tasks.push(match event {
                FsmEvent::ReadIndex { calls, index } => {
                    FsmTask::ReadIndex { handle, index, completions: group.calls.take_reads(&calls) }
                }
                FsmEvent::Committed(chunk) => {
                    let mut closures = Vec::new();
                    if !group.closures.is_empty() {
                        group.closures.pop_until(chunk.last_index(), &mut closures);
                    }
                    FsmTask::Committed { handle, chunk, closures }
                }
                event => FsmTask::Event { handle, event },
            });
        }
        group.end_outcomes(fx.calls.drain(..), tasks);
        if let Some(status) = fx.abandoned.take() {
            let completions = group.closures.end_of_leadership();
            if !completions.is_empty() {
                let error = lost_from_sight(status);
                tasks.push(FsmTask::Fail { handle, completions, error });
            }
        }
        fx.clear();
    }

    /// A step panicked: whoever waits is told, and the state machine hears that the node has failed.
    fn fail_group(&mut self, handle: GroupHandle, out: &mut LaneOutput) {
        let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut() else { return };
        let Some(status) = group.panicked().cloned() else { return };
        let waiting = self.replies.take_group(handle);
        self.end_calls(handle, &status, out);
        let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut() else { return };
        let (worker, completions) = (group.worker, group.closures.take_all());
        for waiting in waiting {
            let response = RaftResponse::Error(status.clone());
            out.replies.push(waiting.answer(0, response));
        }
        if !completions.is_empty() {
            out.fail(worker, handle, completions, ApplyError::Unknown(status.clone()));
        }
        if group.report_panic() {
            out.fsm[usize::from(worker)].push(FsmTask::Event { handle, event: FsmEvent::Error(status) });
        }
    }
}

/// Whether an answer leaves with the write of its step. Rule P4: it says what is durable, and a crash would make a lie of it.
fn answer_waits(after_durable: bool) -> bool {
    after_durable && !Mutant::H5AnswersLeaveBesideTheWrite.is_active()
}

/// Whether a request leaves with the write of its step. Rule P2: a vote that is asked for is durable, or a restart casts another.
fn request_waits(after_durable: bool) -> bool {
    after_durable && !Mutant::H5RequestsLeaveBesideTheWrite.is_active()
}

/// What callers hear of tasks that a leader leaves behind. Rule O3: another leader may commit them yet; who heard of a refusal would
/// give them again.
fn lost_from_sight(status: Status) -> ApplyError {
    match Mutant::I2UnknownIsToldAsRefusal.is_active() {
        true => ApplyError::NotLeader { leader: None },
        false => ApplyError::Unknown(status),
    }
}

/// The group's write of this turn: the last one, if nothing of another group stands behind it, and it is not so large that the disk
/// stage should be able to put others between.
fn take_write(writes: &mut Vec<DiskWrite>, group: &Group, most: usize) -> DiskWrite {
    match writes.pop_if(|write| write.handle == group.handle && write.bytes < most) {
        Some(write) => write,
        None => DiskWrite {
            handle: group.handle,
            key: group.key,
            progress: Arc::clone(&group.progress),
            sequence: 0,
            ops: Vec::new(),
            bytes: 0,
            sends: Vec::new(),
            replies: Vec::new(),
        },
    }
}

/// What an operation takes in a write, about.
fn op_bytes(op: &LogOp) -> usize {
    match op {
        LogOp::Append(chunk) => chunk.memory_bytes(),
        _ => size_of::<LogOp>(),
    }
}

fn refusal(error: ProposeError) -> ApplyError {
    match error {
        ProposeError::NotLeader { leader } => ApplyError::NotLeader { leader },
        ProposeError::Busy | ProposeError::Transferring => ApplyError::Busy,
        ProposeError::Failed(status) => ApplyError::Failed(status),
        ProposeError::Stopped => ApplyError::Shutdown,
    }
}
