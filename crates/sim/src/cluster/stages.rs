//! The loops around the handlers, as `ringraft`'s threads run them, one call at a time on virtual time.

use std::collections::BTreeSet;

use ringraft::handler::{
    ApplyOutput, FsmTask, LaneEvent, OutReply, OutSend, ReadTask, ResponseEvent, StableOutput,
};
use ringraft_core::{FsmEvent, NodeState, RaftError, RaftRequest, Status};
use ringraft_net::{Accept, Inbound, ReplyHandle};

use super::host::{OpenRequest, Process};
use super::network::Arrival;
use super::oracle::unseen;
use super::world::{Event, World, broken};
use crate::checkers::Violation;

/// Batches after which the store gets time for housekeeping.
const BATCHES_PER_MAINTENANCE: u64 = 4;

impl World {
    /// Lets the lane of a host have a turn in so many microseconds, unless one comes earlier.
    pub(super) fn wake(&mut self, host: usize, delay: u64) {
        let at = self.now + delay + self.random.below(self.plan.stage_delay);
        let at = at.max(self.hosts[host].paused_until);
        let life = self.hosts[host].life;
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.next_turn.is_none_or(|next| at < next) {
            process.next_turn = Some(at);
            self.at(at, Event::Turn(host, life));
        }
    }

    /// One turn of a lane, with its part of the network on board.
    pub(super) fn turn(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        let now = self.now;
        if self.hosts[host].life != life {
            return Ok(());
        }
        if self.hosts[host].paused_until > now {
            if let Some(process) = &mut self.hosts[host].process {
                process.next_turn = None;
            }
            let delay = self.hosts[host].paused_until - now;
            self.wake(host, delay);
            return Ok(());
        }
        let host_now = self.hosts[host].clock.now(now);
        let Some(mut process) = self.hosts[host].process.take() else { return Ok(()) };
        if process.next_turn != Some(now) {
            self.hosts[host].process = Some(process);
            return Ok(());
        }
        process.next_turn = None;
        self.report.events += 1;
        let p = &mut *process;
        let accept = p.out.disk.is_empty() && p.out.fsm.iter().all(Vec::is_empty);
        let room = if accept { self.plan.turn_events } else { p.lane.room().min(self.plan.turn_events) };
        let mut events = Vec::new();
        p.processors.set_room(room);
        self.take_arrivals(host, p, &mut events);
        let mut touched = BTreeSet::new();
        let mut all = false;
        for _ in 0..room {
            events.extend(p.ring.pop_front());
        }
        for event in &events {
            let handle = match event {
                LaneEvent::Apply(task) => Some(task.handle),
                LaneEvent::Read(read) => Some(read.handle),
                LaneEvent::Request(request) => Some(request.handle),
                LaneEvent::LogRead { handle, .. } => Some(*handle),
                LaneEvent::Response(response) => {
                    let (slot, generation) = (response.context.slot, response.context.generation);
                    Some(ringraft::handler::GroupHandle { lane: 0, slot, generation })
                }
                LaneEvent::Connected(_) | LaneEvent::Control(_) => {
                    all = true;
                    None
                }
            };
            touched.extend(handle.and_then(|handle| p.by_handle.get(&handle)));
        }
        self.report.events += events.len() as u64;
        let mut progress = Vec::new();
        let store_failed = p.board.take(&mut progress);
        touched.extend(progress.iter().filter_map(|(handle, _)| p.by_handle.get(handle)));
        let (lane, out) = (&mut p.lane, &mut p.out);
        if let Some(status) = store_failed {
            all = true;
            lane.on_store_failed(host_now, &status, out);
        }
        for (context, status) in p.failed.drain(..) {
            let (slot, generation) = (context.slot, context.generation);
            let handle = ringraft::handler::GroupHandle { lane: 0, slot, generation };
            touched.extend(p.by_handle.get(&handle));
            lane.on_send_failed(host_now, context, status, out);
        }
        lane.on_progress(host_now, &mut progress, out);
        let stopping = p.stopping.is_some();
        let held = self.plan.limits.deferred - lane.room().min(self.plan.limits.deferred);
        lane.on_batch(host_now, &mut events, accept || stopping, out);
        if self.plan.limits.deferred - lane.room().min(self.plan.limits.deferred) > held {
            *self.report.marks.entry("request held back").or_default() += 1;
        }
        lane.on_tick(host_now, out);
        lane.end_turn(host_now, out);
        let by_output = out.sends.iter().map(|send| send.context.slot).collect::<Vec<_>>();
        for (handle, group) in &p.by_handle {
            if by_output.contains(&handle.slot) {
                touched.insert(*group);
            }
        }
        touched.extend(out.disk.iter().filter_map(|write| p.by_handle.get(&write.handle)));
        if all || self.plan.groups.len() <= 2 {
            touched.extend(p.by_handle.values());
        }
        self.hosts[host].process = Some(process);
        self.observe_turn(host, &touched)?;
        self.hand_on(host)?;
        self.rest(host)
    }

    /// Gives what has arrived to the processors, as far as they take it, and the events that they make to the lane.
    fn take_arrivals(&mut self, host: usize, p: &mut Process, events: &mut Vec<LaneEvent>) {
        let mut busy = BTreeSet::new();
        let mut kept = std::collections::VecDeque::new();
        for arrival in std::mem::take(&mut self.hosts[host].arrivals) {
            match arrival {
                Arrival::Request(connection, frame) => {
                    if busy.contains(&connection) {
                        kept.push_back(Arrival::Request(connection, frame));
                        continue;
                    }
                    let handle = ReplyHandle { connection, generation: 1, request: frame.id };
                    if let Accept::Busy(frame) = p.processors.on_request(handle, frame) {
                        *self.report.marks.entry("request held back").or_default() += 1;
                        busy.insert(connection);
                        kept.push_back(Arrival::Request(connection, frame));
                    }
                }
                Arrival::Response(context, frame) => p.processors.on_response(context, frame),
                Arrival::Failed(context, reason) => p.processors.on_request_failed(context, reason),
                Arrival::Connected(link, endpoint, class) => {
                    p.processors.on_connected(link, &endpoint, class);
                }
            }
        }
        self.hosts[host].arrivals = kept;
        p.processors.on_turn_end();
        p.processors.take_local(events);
        for event in events.iter() {
            let LaneEvent::Request(event) = event else { continue };
            let Some(group) = p.by_handle.get(&event.handle) else { continue };
            let vote = matches!(&event.request, RaftRequest::RequestVote(vote) if !vote.pre_vote);
            let entries = match &event.request {
                RaftRequest::AppendEntries(append) => {
                    append.entries.last().map(|c| (c.last_index(), c.term()))
                }
                _ => None,
            };
            let open = OpenRequest { group: *group, from: event.from.clone(), vote, entries };
            p.requests.entry(event.reply).or_default().push(open);
        }
    }

    /// Shows the checkers what a turn has emitted.
    pub(super) fn observe_turn(&mut self, host: usize, touched: &BTreeSet<usize>) -> Result<(), Violation> {
        let suspect = self.hosts[host].disk_suspect;
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        for (write, ops) in unseen(&process.out.disk, process.seen_disk) {
            if let Some(group) = process.by_handle.get(&write.handle) {
                self.oracle.wrote(*group, host, ops)?;
            }
        }
        process.seen_disk =
            (process.out.disk.len(), process.out.disk.last().map_or(0, |write| write.ops.len()));
        for task in process.out.fsm[0].iter().skip(process.seen_fsm) {
            let (FsmTask::Committed { handle, .. } | FsmTask::Event { handle, .. }) = task else { continue };
            if let Some(group) = process.by_handle.get(handle) {
                self.oracle.delivered(*group, host, task)?;
            }
        }
        process.seen_fsm = process.out.fsm[0].len();
        let mut hash = self.report.trace_hash;
        for group in touched {
            let Some(handle) = process.handles[*group] else { continue };
            let Some(node) = process.lane.node(handle) else {
                if process.stopping.is_some() {
                    continue;
                }
                let why = process.out.fsm[0].iter().rev().find_map(|task| match task {
                    FsmTask::Event { event: FsmEvent::Error(status), .. } => Some(status.to_string()),
                    _ => None,
                });
                let what = format!("the node of group {group} at host {host} is gone: {why:?}");
                return Err(broken("no panic", what));
            };
            if node.state() == NodeState::Error && !suspect {
                let what =
                    format!("group {group} at host {host} failed without a fault: {:?}", node.last_error());
                return Err(broken("no failure without a fault", what));
            }
            for number in [node.term(), node.committed_index(), node.last_log_id().index, node.stable_index()]
            {
                hash = (hash ^ number).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
            }
            self.oracle.stepped(*group, host, node)?;
        }
        self.report.trace_hash = hash;
        Ok(())
    }

    /// Hands the output of a lane on as far as the next stages take it.
    fn hand_on(&mut self, host: usize) -> Result<(), Violation> {
        let Some(mut process) = self.hosts[host].process.take() else { return Ok(()) };
        let p = &mut *process;
        self.check_leaving(host, p, LaneOrDisk::Lane)?;
        p.lane_dispatcher.dispatch(&mut p.out.sends, &mut p.out.replies, &mut p.failed);
        let disk_taken = p.out.disk.is_empty() || p.disk_ring.len() < self.plan.disk_ring;
        if disk_taken {
            if !p.out.disk.is_empty() {
                p.disk_ring.push_back(std::mem::take(&mut p.out.disk));
                p.seen_disk = (0, 0);
            }
            if !p.out.fsm[0].is_empty() {
                if p.fsm_ring.len() < self.plan.fsm_ring {
                    p.fsm_ring.push_back(std::mem::take(&mut p.out.fsm[0]));
                    p.seen_fsm = 0;
                } else {
                    *self.report.marks.entry("full state-machine ring").or_default() += 1;
                }
            }
            while p.read_ring.len() < self.plan.read_ring
                && let Some(read) = p.out.reads.pop()
            {
                p.read_ring.push_back(read);
            }
        } else {
            *self.report.marks.entry("full disk ring").or_default() += 1;
        }
        self.hosts[host].process = Some(process);
        self.carry(host)?;
        self.start_stages(host);
        Ok(())
    }

    /// Starts the later stages where they are idle and have something to do.
    fn start_stages(&mut self, host: usize) {
        let life = self.hosts[host].life;
        let step = self.plan.stage_delay;
        let delays = [self.random.below(step), self.random.below(step), self.random.below(step)];
        let pause = self.hosts[host].paused_until.saturating_sub(self.now);
        let Some(p) = &mut self.hosts[host].process else { return };
        let disk = p.writing.is_none() && !p.disk_ring.is_empty();
        let fsm = !p.fsm_busy && !p.fsm_ring.is_empty();
        let read = !p.read_busy && !p.read_ring.is_empty();
        p.fsm_busy |= fsm;
        p.read_busy |= read;
        if disk {
            // The place is taken, so that no second start is armed.
            p.writing = Some((Default::default(), false));
            self.after(pause + delays[0], Event::Write(host, life));
        }
        if fsm {
            self.after(pause + delays[1], Event::Apply(host, life));
        }
        if read {
            self.after(pause + delays[2], Event::Read(host, life));
        }
    }

    /// Plans the next turn.
    fn rest(&mut self, host: usize) -> Result<(), Violation> {
        let Some(p) = &self.hosts[host].process else { return Ok(()) };
        let blocked = !p.out.is_empty();
        let more = !p.failed.is_empty()
            || p.board.is_marked()
            || (!blocked && p.lane.has_deferred())
            || (!p.ring.is_empty() && (!blocked || p.lane.room() > 0))
            || (!self.hosts[host].arrivals.is_empty() && (!blocked || p.lane.room() > 0));
        let deadline = p.lane.next_deadline();
        if more {
            self.wake(host, 1);
        } else if let Some(deadline) = deadline {
            let at = self.hosts[host].clock.world_time(deadline);
            let delay = at.saturating_sub(self.now);
            self.wake(host, delay);
        }
        self.end_if_stopped(host)
    }

    // --- disk ---

    /// The disk stage takes a batch and starts its write.
    pub(super) fn write(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        self.report.events += 1;
        let slow = self.hosts[host].slow_disk.filter(|(until, _)| *until > self.now).map(|(_, delay)| delay);
        let (low, high) = self.plan.disk_delay;
        let delay = slow.unwrap_or_else(|| self.random.range(low, high));
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let mut writes = Vec::new();
        for _ in 0..self.plan.disk_batch {
            writes.extend(p.disk_ring.pop_front().into_iter().flatten());
        }
        let batch = p.disk.on_batch(&mut writes);
        let mut failure = None;
        let submitted = !batch.is_empty() && p.disk.failed().is_none();
        if submitted {
            failure = p.store.as_log().submit(&batch).err();
        }
        p.writing = Some((batch, submitted));
        self.wake(host, 0);
        if self.hosts[host].power_is_off() {
            return self.power_went(host);
        }
        if let Some(error) = failure {
            return self.synced(host, Err(error));
        }
        self.after(if submitted { delay } else { 1 }, Event::Synced(host, life));
        Ok(())
    }

    /// The write is over.
    pub(super) fn write_done(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        if self.hosts[host].paused_until > self.now {
            let at = self.hosts[host].paused_until;
            self.at(at, Event::Synced(host, life));
            return Ok(());
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let submitted = p.writing.as_ref().is_some_and(|(_, submitted)| *submitted);
        let result = if submitted { p.store.as_log().complete() } else { Ok(()) };
        if self.hosts[host].power_is_off() {
            return self.power_went(host);
        }
        self.synced(host, result)?;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        p.batches += 1;
        if p.batches.is_multiple_of(BATCHES_PER_MAINTENANCE)
            && p.disk.failed().is_none()
            && p.writing.is_none()
        {
            let kept = p.store.as_log().maintain();
            if self.hosts[host].power_is_off() {
                return self.power_went(host);
            }
            if let Err(error) = kept
                && let Some(p) = &mut self.hosts[host].process
            {
                p.disk.on_batch(&mut Vec::new());
                self.release(host, Err(error))?;
            }
        }
        self.start_stages(host);
        Ok(())
    }

    fn synced(
        &mut self,
        host: usize,
        result: Result<(), ringraft_storage::StorageError>,
    ) -> Result<(), Violation> {
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        if let Some((batch, true)) = p.writing.take() {
            match &result {
                Ok(()) => self.oracle.synced(host, &batch, &p.by_key),
                Err(_) => self.oracle.crashed(host, Some(&batch), &p.by_key),
            }
        }
        self.release(host, result)?;
        self.start_stages(host);
        Ok(())
    }

    /// Lets go of what waited for a write, answers first.
    fn release(
        &mut self,
        host: usize,
        result: Result<(), ringraft_storage::StorageError>,
    ) -> Result<(), Violation> {
        let Some(mut process) = self.hosts[host].process.take() else { return Ok(()) };
        let p = &mut *process;
        let mut stable = StableOutput::default();
        p.disk.on_synced(result, &mut stable);
        self.check_leaving(host, p, LaneOrDisk::Disk(&stable.sends, &stable.replies))?;
        let mut failed = Vec::new();
        p.disk_dispatcher.dispatch(&mut stable.sends, &mut stable.replies, &mut failed);
        for (context, status) in failed {
            if p.ring.len() < self.plan.apply_ring {
                p.ring
                    .push_back(LaneEvent::Response(Box::new(ResponseEvent { context, result: Err(status) })));
            }
        }
        let mut wake = false;
        for (handle, progress, sequence) in stable.stable {
            wake |= p.board.stable(handle, &progress, sequence);
        }
        if let Some(status) = &stable.failed {
            p.board.store_failed(status.clone());
            wake = true;
        }
        // A lane that waits for room is woken by every drain.
        wake |= !p.out.is_empty() || !p.ring.is_empty();
        self.hosts[host].process = Some(process);
        if wake {
            self.wake(host, 0);
        }
        self.carry(host)?;
        match stable.failed {
            Some(status) => self.store_failed(host, &status),
            None => Ok(()),
        }
    }

    /// The power went in the middle of an operation of the disk: the whole host is gone.
    fn power_went(&mut self, host: usize) -> Result<(), Violation> {
        let mut r = self.random.fork(self.now ^ 0xD15C);
        let (seed, away) = (r.next(), r.sized(1, 4 * self.plan.election_timeout_ms * super::plan::MS));
        self.crash(host, Some(seed), away, &mut r);
        self.drain_outcomes()
    }

    // --- state machines and reads ---

    pub(super) fn apply(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(mut tasks) = p.fsm_ring.pop_front() else { return Ok(()) };
        p.fsm_busy = false;
        let mut applied = ApplyOutput::default();
        p.fsm.on_batch(&mut tasks, &mut applied);
        let mut wake = !p.out.is_empty();
        for (handle, progress, index) in applied.applied {
            wake |= p.board.applied(handle, &progress, index);
        }
        for (handle, progress, status) in applied.failed {
            p.board.fsm_failed(handle, &progress, status);
            wake = true;
        }
        if wake {
            self.wake(host, 0);
        }
        self.start_stages(host);
        self.drain_outcomes()?;
        self.end_if_stopped(host)
    }

    pub(super) fn read(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(ReadTask { handle, key, read }) = p.read_ring.pop_front() else { return Ok(()) };
        p.read_busy = false;
        let result = p.reader.read(key, read.from, read.to, read.max_bytes);
        let result = result.map_err(|error| Status::new(RaftError::Io, error.to_string()));
        p.ring.push_back(LaneEvent::LogRead { handle, ticket: read.ticket, result: Box::new(result) });
        self.mark("entries read back for a peer");
        self.wake(host, 0);
        self.start_stages(host);
        Ok(())
    }

    /// Checks what is about to leave a host against what its disk holds, and that each request is answered once.
    fn check_leaving(&mut self, host: usize, p: &mut Process, from: LaneOrDisk<'_>) -> Result<(), Violation> {
        let (sends, replies) = match from {
            LaneOrDisk::Lane => (&p.out.sends[..], &p.out.replies[..]),
            LaneOrDisk::Disk(sends, replies) => (sends, replies),
        };
        for send in sends {
            let handle = ringraft::handler::GroupHandle {
                lane: 0,
                slot: send.context.slot,
                generation: send.context.generation,
            };
            if let Some(group) = p.by_handle.get(&handle) {
                self.oracle.sending(*group, host, send)?;
            }
        }
        for reply in replies {
            let open = p.requests.get_mut(&reply.handle);
            let Some(request) = open.and_then(Vec::pop) else {
                let what = format!("host {host} answers {:?} once too often", reply.handle);
                return Err(broken("one answer a request", what));
            };
            if p.requests.get(&reply.handle).is_some_and(Vec::is_empty) {
                p.requests.remove(&reply.handle);
            }
            self.oracle.answering(host, &request, reply)?;
        }
        Ok(())
    }
}

/// Which stage's output leaves.
enum LaneOrDisk<'a> {
    Lane,
    Disk(&'a [OutSend], &'a [OutReply]),
}
