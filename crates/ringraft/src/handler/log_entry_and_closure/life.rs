//! Groups that begin and end in a lane: the owner's answers to the host.

use ringraft_core::{Input, NodeImpl, NodeState, RaftError, RaftResponse, Status, Time};

use crate::handler::log_entry_and_closure::Slot;
use crate::handler::log_entry_and_closure::group::Group;
use crate::handler::{
    Control, DamagedGroup, FsmTask, GroupHandle, LaneOutput, LogEntryAndClosureHandler, OpenGroup,
};
use crate::task::completion::ApplyError;
use crate::task::credit::cost;
use crate::task::promise::Promise;

impl LogEntryAndClosureHandler {
    pub(super) fn on_control(&mut self, now: Time, control: Control, out: &mut LaneOutput) {
        match control {
            Control::Open { group, answer } => self.open(now, *group, answer, out),
            Control::Close { handle, answer } => {
                if self.close(now, handle, Some(answer), out) {
                    tracing::debug!(?handle, "group closed");
                }
            }
            Control::Describe { handle, answer } => {
                let description = self.group(handle).map(|group| {
                    let mut description = group.node().describe();
                    description.creation = group.names.creation;
                    if let Some(status) = group.panicked() {
                        description.state = NodeState::Error;
                        description.last_error = Some(status.clone());
                    }
                    description
                });
                answer.fulfil(description);
            }
            Control::Members { handle, answer } => {
                let members = self.group(handle).map(|group| match group.panicked() {
                    Some(status) => Err(status.clone()),
                    None => group.node().members(now),
                });
                answer.fulfil(members);
            }
            Control::Call { handle, call, answer } => self.on_call(now, handle, call, answer, out),
            // The end of the turn arms the timer.
            Control::WatchReads { handle } => self.touch(handle),
            Control::Damaged { groups } => self.on_damage(now, &groups, out),
            Control::Stop => self.stop(now, out),
        }
    }

    /// Rule P7: what this replica may have acknowledged it cannot give to anybody, so that from now on it neither votes nor counts. The log
    /// of a group that is not here is looked at when it is started.
    fn on_damage(&mut self, now: Time, damaged: &[DamagedGroup], out: &mut LaneOutput) {
        // One walk over the groups, however many are damaged: a rotten file may hold something of each.
        let groups = self.slots.iter().filter_map(|slot| slot.group.as_deref());
        let here: Vec<(GroupHandle, &DamagedGroup)> = groups
            .filter_map(|group| {
                let place = damaged.binary_search_by_key(&group.key, |damaged| damaged.key).ok()?;
                Some((group.handle, damaged.get(place)?))
            })
            .collect();
        for (handle, group) in here {
            self.step(now, handle, Input::Failed { status: group.status.clone() }, out);
            group.stopped();
        }
    }

    fn open(
        &mut self,
        now: Time,
        open: OpenGroup,
        answer: Promise<Result<GroupHandle, Status>>,
        out: &mut LaneOutput,
    ) {
        if self.stopping {
            answer.fulfil(Err(Status::new(RaftError::Shutdown, "the host is shutting down")));
            return;
        }
        if let Some(status) = &self.store_failed {
            // It was opened just before the store failed. Nobody would ever tell it.
            return answer.fulfil(Err(status.clone()));
        }
        let OpenGroup { names, key, options, recovered, seed, worker, progress, status, fsm } = open;
        let node = match NodeImpl::new(now, options, recovered, seed) {
            Ok(node) => node,
            Err(status) => return answer.fulfil(Err(status)),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let handle = GroupHandle { lane: self.lane, slot, generation: entry.generation };
        let mut group = Box::new(Group::new(handle, names, key, worker, progress, status, node));
        out.fsm[usize::from(worker)].push(FsmTask::Open { handle, group: fsm });
        let mut fx = std::mem::take(&mut self.fx);
        group.start(now, &mut fx);
        self.slots[slot as usize].group = Some(group);
        self.absorb(handle, &mut fx, out);
        self.fx = fx;
        // The caller must find the node in the state in which it started.
        if let Some(group) = self.group(handle) {
            group.publish_status();
        }
        answer.fulfil(Ok(handle));
    }

    /// Stops a group; its worker answers when the state machine is gone.
    fn close(
        &mut self,
        now: Time,
        handle: GroupHandle,
        answer: Option<Promise<bool>>,
        out: &mut LaneOutput,
    ) -> bool {
        if self.group(handle).is_none() {
            if let Some(answer) = answer {
                answer.fulfil(false);
            }
            return false;
        }
        self.propose(now, handle, out);
        if let Some(group) = self.group(handle) {
            let (worker, held) = (group.worker, std::mem::take(&mut group.backlog));
            if !held.is_empty() {
                self.rooms.backlog_ends(worker, held.len());
                let bytes = held.iter().map(|task| cost(task.data.len())).sum();
                self.rooms.count_task(worker, bytes);
                out.fail(
                    worker,
                    handle,
                    held.into_iter().map(|task| task.done).collect(),
                    ApplyError::Shutdown,
                );
            }
        }
        self.begin_reads(now, handle, out);
        self.step(now, handle, Input::Shutdown, out);
        let status = Status::new(RaftError::NodeShutdown, "the node was shut down");
        self.end_calls(handle, &status, out);
        for waiting in self.replies.take_group(handle) {
            let status = Status::new(RaftError::NodeShutdown, "the node was shut down");
            let response = RaftResponse::Error(status);
            out.replies.push(waiting.answer(0, response));
        }
        self.waiting_for_links.retain(|(waits, _)| *waits != handle);
        let slot = &mut self.slots[handle.slot as usize];
        if let Some(mut group) = slot.group.take() {
            self.tails.ended(group.tail_counted(), group.tail_listed);
            let left = group.closures.take_all();
            if !left.is_empty() {
                let status = Status::new(RaftError::NodeShutdown, "the node was shut down");
                out.fail(group.worker, handle, left, ApplyError::Unknown(status));
            }
            group.publish_shutdown();
            out.fsm[usize::from(group.worker)].push(FsmTask::Close { handle, answer });
        }
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.slot);
        true
    }

    fn stop(&mut self, now: Time, out: &mut LaneOutput) {
        self.stopping = true;
        for handle in self.handles() {
            self.close(now, handle, None, out);
        }
    }
}
