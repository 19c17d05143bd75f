//! The loop around a lane, as `ringraft`'s threads run it, one turn at a time on virtual time.

use ringraft::handler::{FsmTask, GroupHandle, LaneEvent, OutReply, OutSend};
use ringraft_core::{AppendKind, FsmEvent, NodeState, RaftRequest};
use ringraft_net::{Accept, Inbound, ReplyHandle};

use super::World;
use super::event::Event;
use super::patience::heard_terms;
use super::strangers;
use crate::checkers::Violation;
use crate::cluster::checks::OpenRequest;
use crate::cluster::checks::broken;
use crate::cluster::host::Arrival;
use crate::cluster::host::{Process, WORKERS, Worker, worker_of};
use crate::cluster::oracle::unseen;
use crate::script::What;

/// Microseconds between two requests that a slow reader takes.
const SLOW_READ: u64 = 300;

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
        let before = self.report.events;
        let p = &mut *process;
        let stopping = p.stopping.is_some();
        let room = if stopping || p.lane.takes_entries(&p.out) { self.plan.turn_events } else { 0 };
        let mut events = std::mem::take(&mut self.scratch_events);
        let mut entries = Vec::new();
        p.processors.set_room(room);
        self.take_arrivals(host, p, &mut events, &mut entries);
        events.extend(p.control.drain(..));
        let mut heard = heard_terms(p, &events, &self.lives, self.plan.operators.lease_reads);
        heard.extend(heard_terms(p, &entries, &self.lives, self.plan.operators.lease_reads));
        let mut progress = Vec::new();
        let store_failed = p.board.take(&mut progress);
        p.lane.begin_turn(host_now, &mut p.out);
        if let Some(status) = store_failed {
            p.lane.on_store_failed(host_now, &status, &mut p.out);
        }
        for (context, status) in std::mem::take(&mut p.failed) {
            p.lane.on_send_failed(host_now, context, status, &mut p.out);
        }
        let (lane, out) = (&mut p.lane, &mut p.out);
        lane.on_progress(host_now, &mut progress, out);
        lane.on_batch(host_now, &mut events, out);
        lane.on_batch(host_now, &mut entries, out);
        for (worker, tasks) in p.tasks.iter_mut().enumerate() {
            let room = lane.task_room(worker as u16).min((self.plan.turn_events / WORKERS).max(1));
            let room = if stopping { tasks.len() } else { room.min(tasks.len()) };
            if room == 0 && !tasks.is_empty() {
                *self.report.marks.entry("request held back").or_default() += 1;
            }
            events.extend(tasks.drain(..room));
            lane.on_tasks(host_now, worker as u16, &mut events, out);
        }
        lane.on_tick(host_now, out);
        lane.end_turn(host_now, out);
        p.board.set_starved(lane.is_starved());
        for worker in 0..WORKERS {
            let (held, bound) = (lane.unapplied_bytes(worker as u16), self.plan.worker_bytes());
            if held > bound {
                let what = format!(
                    "worker {worker} of host {host} holds {held} bytes that are not applied, {bound} are allowed"
                );
                return Err(broken("bounded memory", what));
            }
            if lane.is_starved() {
                *self.report.marks.entry("groups stand in line for a worker's bytes").or_default() += 1;
            }
        }
        self.scratch_events = events;
        // Each step of a node counts, and the turn as one call more, unless it found nothing to do.
        self.report.events += std::mem::take(&mut p.out.steps);
        self.report.events += u64::from(self.report.events > before);
        self.core_marks(std::mem::take(&mut p.out.marks));
        self.hosts[host].process = Some(process);
        self.terms_are_learnt(host, &heard)?;
        self.observe_turn(host)?;
        self.hand_on(host)?;
        self.rest(host)
    }

    /// Gives what has arrived to the processors, as far as they take it, and the events that they make to the lane.
    fn take_arrivals(
        &mut self,
        host: usize,
        p: &mut Process,
        control: &mut Vec<LaneEvent>,
        entries: &mut Vec<LaneEvent>,
    ) {
        let mut busy = Vec::new();
        let mut arrivals = std::mem::take(&mut self.hosts[host].arrivals);
        let slow = self.hosts[host].slow_reader > self.now;
        let mut reads = if slow { 1 } else { usize::MAX };
        for _ in 0..arrivals.len() {
            let Some(arrival) = arrivals.pop_front() else { break };
            if reads == 0 && matches!(arrival, Arrival::Request(..)) {
                arrivals.push_back(arrival);
                continue;
            }
            self.report.events += 1;
            match arrival {
                Arrival::Request(connection, frame) => {
                    if busy.contains(&connection) {
                        self.report.events -= 1;
                        arrivals.push_back(Arrival::Request(connection, frame));
                        continue;
                    }
                    let handle = ReplyHandle { connection, generation: 1, request: frame.id };
                    reads -= 1;
                    if strangers::answers(&self.lives, host, &p.transport, handle, &frame) {
                        self.mark("answer without a creation number");
                        self.frame_read(connection, 0);
                        continue;
                    }
                    if let Accept::Busy(frame) | Accept::Later(frame) = p.processors.on_request(handle, frame)
                    {
                        *self.report.marks.entry("request held back").or_default() += 1;
                        busy.push(connection);
                        arrivals.push_back(Arrival::Request(connection, frame));
                    } else {
                        self.frame_read(connection, 0);
                    }
                }
                Arrival::Response(context, frame) => p.processors.on_response(context, frame),
                Arrival::Failed(context, reason) => {
                    let handle = GroupHandle {
                        lane: context.lane,
                        slot: context.slot,
                        generation: context.generation,
                    };
                    let group = p.by_handle.get(&handle).copied();
                    self.note_answer(group, host, &context, None);
                    p.processors.on_request_failed(context, reason);
                }
                Arrival::Connected(link, endpoint, class) => {
                    p.processors.on_connected(link, &endpoint, class);
                }
            }
        }
        self.hosts[host].arrivals = arrivals;
        for (link, endpoint, class) in p.transport.take_rooms() {
            p.processors.on_room(link, &endpoint, class);
        }
        p.processors.on_turn_end();
        p.processors.take_local(control, entries);
        for lane_event in control.iter().chain(entries.iter()) {
            let LaneEvent::Request(event) = lane_event else { continue };
            let Some(group) = p.by_handle.get(&event.handle) else { continue };
            self.note_request(*group, host, lane_event);
            let vote = matches!(&event.request, RaftRequest::RequestVote(vote) if !vote.pre_vote);
            let entries = match &event.request {
                RaftRequest::AppendEntries(append) => {
                    append.entries.last().map(|c| (c.last_index(), c.term()))
                }
                _ => None,
            };
            let (from, what) = (event.from.clone(), What::of(&event.request));
            let open = OpenRequest { group: *group, from, what, vote, entries };
            p.answers.taken(event.reply, open);
        }
    }

    /// Shows the checkers what a turn has emitted.
    pub(super) fn observe_turn(&mut self, host: usize) -> Result<(), Violation> {
        let suspect = self.hosts[host].disk_suspect || self.is_damaged(host);
        let mut failed = false;
        let Some(mut process) = self.hosts[host].process.take() else { return Ok(()) };
        let result = self.observe_process(host, &mut process, suspect, &mut failed);
        let stopping = process.stopping.is_some();
        self.hosts[host].process = Some(process);
        result?;
        if failed && !stopping {
            self.replace_soon(host);
        }
        Ok(())
    }

    fn observe_process(
        &mut self,
        host: usize,
        process: &mut Process,
        suspect: bool,
        failed: &mut bool,
    ) -> Result<(), Violation> {
        for (write, ops) in unseen(&process.out.disk, process.seen_disk) {
            if let Some(group) = process.by_handle.get(&write.handle) {
                self.note_write(*group, host, write, ops);
                self.oracle.wrote(*group, host, ops)?;
            }
        }
        process.seen_disk =
            (process.out.disk.len(), process.out.disk.last().map_or(0, |write| write.ops.len()));
        for worker in 0..WORKERS {
            for task in process.out.fsm[worker].iter().skip(process.seen_fsm[worker]) {
                let (FsmTask::Committed { handle, .. } | FsmTask::Event { handle, .. }) = task else {
                    continue;
                };
                if let Some(group) = process.by_handle.get(handle) {
                    self.note_fsm(*group, host, task);
                    self.oracle.delivered(*group, host, task)?;
                }
            }
            process.seen_fsm[worker] = process.out.fsm[worker].len();
        }
        let mut hash = self.report.trace_hash;
        for slot in process.lane.touched_slots() {
            let Some(group) = process.by_slot.get(*slot as usize).copied().flatten() else { continue };
            let Some(handle) = process.handles[group] else { continue };
            let Some(node) = process.lane.node(handle) else {
                if process.stopping.is_some() {
                    continue;
                }
                let why = process.out.fsm[worker_of(group)].iter().rev().find_map(|task| match task {
                    FsmTask::Event { event: FsmEvent::Error(status), .. } => Some(status.to_string()),
                    _ => None,
                });
                let what = format!("the node of group {group} at host {host} is gone: {why:?}");
                return Err(broken("no panic", what));
            };
            *failed |= node.state() == NodeState::Error;
            if node.state() == NodeState::Error && !suspect {
                let what =
                    format!("group {group} at host {host} failed without a fault: {:?}", node.last_error());
                return Err(broken("no failure without a fault", what));
            }
            for number in [node.term(), node.committed_index(), node.last_log_id().index, node.stable_index()]
            {
                hash = (hash ^ number).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
            }
            if self.trace.on {
                self.note_role(group, host, node);
            }
            self.oracle.stepped(group, host, node, self.now)?;
            self.leader_can_write(group, host, node)?;
            self.lease_stands(group, host, node)?;
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
            for (number, worker) in p.workers.iter_mut().enumerate() {
                if p.out.fsm[number].is_empty() {
                    continue;
                }
                if worker.ring.len() < self.plan.fsm_ring {
                    worker.ring.push_back(std::mem::take(&mut p.out.fsm[number]));
                    p.seen_fsm[number] = 0;
                } else {
                    *self.report.marks.entry("full state-machine ring").or_default() += 1;
                }
            }
            while p.read_ring.len() < self.plan.read_ring
                && let Some(read) = p.out.reads[0].pop_front()
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
    pub(super) fn start_stages(&mut self, host: usize) {
        let life = self.hosts[host].life;
        let step = self.plan.stage_delay;
        let delays = [(); 2].map(|()| self.random.below(step));
        let fsm_delays = [(); WORKERS].map(|()| self.random.below(step));
        let pause = self.hosts[host].paused_until.saturating_sub(self.now);
        let still = self.hosts[host].still_until.map(|until| until.saturating_sub(self.now));
        let Some(p) = &mut self.hosts[host].process else { return };
        let disk = p.writing.is_none() && p.telling.is_none() && !p.disk_is_idle();
        let read = !p.read_busy && !p.read_ring.is_empty();
        let start = |worker: &mut Worker| {
            let starts = !worker.busy && !worker.ring.is_empty();
            worker.busy |= starts;
            starts
        };
        let fsm = p.workers.each_mut().map(start);
        p.read_busy |= read;
        if disk {
            // The place is taken, so that no second start is armed.
            p.writing = Some((Default::default(), false));
            self.after(pause + delays[0], Event::Write(host, life));
        }
        for worker in (0..WORKERS).filter(|worker| fsm[*worker]) {
            let delay = pause.max(still[worker]) + fsm_delays[worker];
            self.after(delay, Event::Apply(host, life, worker));
        }
        if read {
            self.after(pause + delays[1], Event::Read(host, life));
        }
    }

    /// Plans the next turn.
    fn rest(&mut self, host: usize) -> Result<(), Violation> {
        let Some(p) = &self.hosts[host].process else { return Ok(()) };
        let stopping = p.stopping.is_some();
        let room = |worker: usize| stopping || p.out.worker_has_room(worker);
        // What was handed back as busy waits for the disk, which wakes the lane; a slow reader has not looked at all of it.
        let slow = self.hosts[host].slow_reader > self.now;
        let takes = stopping || slow || p.lane.takes_entries(&p.out);
        let arrived = takes && !self.hosts[host].arrivals.is_empty();
        let more = !p.failed.is_empty()
            || p.board.is_marked()
            || p.lane.can_go_on(&p.out)
            || !p.control.is_empty()
            || p.tasks.iter().enumerate().any(|(worker, tasks)| !tasks.is_empty() && room(worker))
            || arrived;
        let deadline = p.lane.next_deadline();
        if more {
            self.wake(host, if slow { SLOW_READ } else { 1 });
        } else if let Some(deadline) = deadline {
            let at = self.hosts[host].clock.world_time(deadline);
            let delay = at.saturating_sub(self.now);
            self.wake(host, delay);
        }
        self.end_if_stopped(host)
    }

    /// Checks what is about to leave a host against what its disk holds, and that each request is answered once.
    pub(super) fn check_leaving(
        &mut self,
        host: usize,
        p: &mut Process,
        from: LaneOrDisk<'_>,
    ) -> Result<(), Violation> {
        let (sends, replies) = match from {
            LaneOrDisk::Lane => (&p.out.sends[..], &p.out.replies[..]),
            LaneOrDisk::Disk(sends, replies) => (sends, replies),
        };
        for send in sends {
            let handle =
                GroupHandle { lane: 0, slot: send.context.slot, generation: send.context.generation };
            if let Some(group) = p.by_handle.get(&handle) {
                self.note_send(*group, host, send);
                self.oracle.sending(*group, host, send)?;
                match (&send.request, p.lane.node(handle)) {
                    (RaftRequest::TimeoutNow(_), Some(node)) => {
                        self.order_waits_for_log(*group, node, &send.to)?;
                    }
                    (RaftRequest::AppendEntries(request), Some(node))
                        if request.kind == AppendKind::Heartbeat =>
                    {
                        self.heartbeats_pause(*group, host, node, &send.to)?;
                    }
                    _ => {}
                }
            }
        }
        for reply in replies {
            let request = p
                .answers
                .answered(&reply.handle)
                .map_err(|what| broken("one answer a request", format!("host {host} {what}")))?;
            self.note_reply(host, &request, reply);
            self.oracle.answering(host, &request, reply)?;
        }
        Ok(())
    }
}

/// Which stage's output leaves.
pub(super) enum LaneOrDisk<'a> {
    Lane,
    Disk(&'a [OutSend], &'a [OutReply]),
}
