//! The owner of a lane's groups (SOFAJRaft's `LogEntryAndClosureHandler`, and everything that runs under its node lock).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ringraft_core::{
    AppendKind, ConfigurationEntry, Effects, FsmEvent, Input, NodeImpl, ProposeError, RaftError, RaftRequest,
    RaftResponse, Status, Ticket, Time,
};
use ringraft_net::{Endpoint, RequestContext, Transport};
use ringraft_proto::RequestKind;

use crate::completion::{ApplyError, Completion};
use crate::future::Promise;
use crate::handler::group::Group;
use crate::handler::peer_table::{PeerTable, pack, unpack};
use crate::handler::reply_table::{ReplyTable, Waiting};
use crate::handler::timer_queue::TimerQueue;
use crate::handler::{
    ApplyEvent, Control, DiskWrite, FsmTask, GroupHandle, GroupProgress, LaneEvent, LaneOutput, OpenGroup,
    OutReply, OutSend, ReadTask, RequestEvent, ResponseEvent,
};

/// Bounds of one lane's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Tasks in one proposal at most. Proposals of one group in one turn are as many as it takes.
    pub chunk_entries: usize,
    /// Bytes after which a proposal takes no further task.
    pub chunk_bytes: usize,
    /// A task of so many bytes stands alone in its chunk and is not copied.
    pub alone_bytes: usize,
    /// Tasks of one group in one turn at most; more wait for the next turn.
    pub group_turn_tasks: usize,
    /// Tasks of one group that wait for their turn at most; more are refused as busy.
    pub group_backlog: usize,
    /// Events held back at most while the next stages are full.
    pub deferred: usize,
}

impl Default for LaneLimits {
    fn default() -> LaneLimits {
        LaneLimits {
            chunk_entries: 1024,
            chunk_bytes: 256 * 1024,
            alone_bytes: 64 * 1024,
            group_turn_tasks: 4096,
            group_backlog: 16_384,
            deferred: 4096,
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    group: Option<Box<Group>>,
}

/// Owns every node of one lane. The loop (or the simulator) gives it events, progress and ticks, and carries out its
/// [`LaneOutput`]; it has no thread, no clock, no socket and no file.
///
/// After any of its inputs, call [`end_turn`](LogEntryAndClosureHandler::end_turn) once, then hand the output on in this order:
/// replies and sends, flush, then disk, state-machine tasks and reads.
pub struct LogEntryAndClosureHandler {
    lane: u16,
    limits: LaneLimits,
    transport: Arc<dyn Transport>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    peers: PeerTable,
    replies: ReplyTable,
    timers: TimerQueue,
    /// Slots of groups that something happened to in this turn, each once.
    touched: Vec<u32>,
    /// Bulk that came while the next stages were full.
    deferred: VecDeque<LaneEvent>,
    /// Groups with tasks over their share of a turn.
    backlogged: Vec<GroupHandle>,
    /// The effects of one step; reused.
    fx: Effects,
    stopping: bool,
}

impl LogEntryAndClosureHandler {
    /// A lane without groups. The transport is used to resolve paths only.
    pub fn new(lane: u16, limits: LaneLimits, transport: Arc<dyn Transport>) -> LogEntryAndClosureHandler {
        LogEntryAndClosureHandler {
            lane,
            limits,
            transport,
            slots: Vec::new(),
            free: Vec::new(),
            peers: PeerTable::default(),
            replies: ReplyTable::default(),
            timers: TimerQueue::default(),
            touched: Vec::new(),
            deferred: VecDeque::new(),
            backlogged: Vec::new(),
            fx: Effects::new(),
            stopping: false,
        }
    }

    /// Whether [`Control::Stop`] has been handled: every group is closed, and nothing more comes out after this turn.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// How many more events it can hold back while the next stages are full.
    pub fn room(&self) -> usize {
        self.limits.deferred.saturating_sub(self.deferred.len())
    }

    /// Whether events are held back that the next turn can take.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty() || !self.backlogged.is_empty()
    }

    /// When [`on_tick`](LogEntryAndClosureHandler::on_tick) is wanted next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    // --- inputs ---

    /// Takes events, oldest first. While `accept` is false the next stages are full: tasks and entries of leaders are held
    /// back (the caller gives no more than [`room`](LogEntryAndClosureHandler::room) events), all else goes on.
    pub fn on_batch(&mut self, now: Time, events: &mut Vec<LaneEvent>, accept: bool, out: &mut LaneOutput) {
        if accept {
            self.serve_backlogs(now, out);
            for event in std::mem::take(&mut self.deferred) {
                self.on_event(now, event, out);
            }
        }
        for event in events.drain(..) {
            if !accept && is_bulk(&event) {
                self.deferred.push_back(event);
            } else {
                self.on_event(now, event, out);
            }
        }
    }

    /// Disk or state machine are further than before with these groups.
    pub fn on_progress(
        &mut self,
        now: Time,
        groups: &mut Vec<(GroupHandle, Arc<GroupProgress>)>,
        out: &mut LaneOutput,
    ) {
        for (handle, _) in groups.drain(..) {
            let Some(group) = self.group(handle) else { continue };
            let (persisted, applied) = group.take_progress();
            let error = group.progress.take_error();
            for input in
                [persisted, applied, error.map(|status| Input::Failed { status })].into_iter().flatten()
            {
                self.step(now, handle, input, out);
            }
        }
    }

    /// The log store has failed: every group stops taking part.
    pub fn on_store_failed(&mut self, now: Time, status: &Status, out: &mut LaneOutput) {
        for handle in self.handles() {
            self.step(now, handle, Input::Failed { status: status.clone() }, out);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Time, out: &mut LaneOutput) {
        while let Some((at, slot, generation)) = self.timers.pop_due(now) {
            let handle = GroupHandle { lane: self.lane, slot, generation };
            let Some(group) = self.group(handle) else { continue };
            if group.armed != Some(at) {
                continue; // an earlier deadline was armed meanwhile, and has its own entry
            }
            group.armed = None;
            let due = group.node().deadline().is_some_and(|deadline| deadline <= now);
            if due {
                self.step(now, handle, Input::Tick, out);
            }
            self.touch(handle);
        }
    }

    /// A request of this lane could not be queued.
    pub fn on_send_failed(
        &mut self,
        now: Time,
        context: RequestContext,
        status: Status,
        out: &mut LaneOutput,
    ) {
        self.on_response(now, ResponseEvent { context, result: Err(status) }, out);
    }

    /// Proposes the tasks that were taken, arms timers, and tells callers what has changed.
    pub fn end_turn(&mut self, now: Time, out: &mut LaneOutput) {
        let mut position = 0;
        while position < self.touched.len() {
            let slot = self.touched[position];
            position += 1;
            let Some(handle) = self.handle_at(slot) else { continue };
            self.propose(now, handle, out);
        }
        for position in 0..self.touched.len() {
            let slot = self.touched[position];
            let Slot { generation, group: Some(group) } = &mut self.slots[slot as usize] else { continue };
            group.touched = false;
            group.turn_tasks = 0;
            group.publish_status();
            group.tell_what_it_waits_for();
            let deadline = if group.panicked().is_some() { None } else { group.node().deadline() };
            if let Some(at) = deadline
                && group.armed.is_none_or(|armed| at < armed)
            {
                group.armed = Some(at);
                self.timers.arm(at, slot, *generation);
            }
        }
        self.touched.clear();
    }

    // --- events ---

    #[inline]
    fn on_event(&mut self, now: Time, event: LaneEvent, out: &mut LaneOutput) {
        match event {
            LaneEvent::Apply(task) => self.on_apply(now, task, out),
            LaneEvent::Request(request) => self.on_request(now, *request, out),
            LaneEvent::Response(response) => self.on_response(now, *response, out),
            LaneEvent::LogRead { handle, ticket, result } => {
                self.step(now, handle, Input::LogRead { ticket, result: *result }, out);
            }
            LaneEvent::Connected(endpoint) => self.on_connected(now, &endpoint, out),
            LaneEvent::Control(control) => self.on_control(now, *control, out),
        }
    }

    #[inline]
    fn on_apply(&mut self, now: Time, task: ApplyEvent, out: &mut LaneOutput) {
        let handle = task.handle;
        let limits = self.limits;
        let Some(group) = self.group(handle) else {
            // No worker knows the group any more: any of them can say so.
            fail(out, 0, handle, vec![task.done], ApplyError::Shutdown);
            return;
        };
        if task.expected_term != 0 && task.expected_term != group.node().term() {
            let error =
                ApplyError::TermMismatch { expected: task.expected_term, actual: group.node().term() };
            fail(out, group.worker, handle, vec![task.done], error);
            return;
        }
        if group.turn_tasks >= limits.group_turn_tasks {
            self.hold_back(task, out);
            return;
        }
        group.turn_tasks += 1;
        let (size, alone) = (task.data.len(), task.data.len() >= limits.alone_bytes);
        let pending = &group.tasks;
        let full = pending.len() >= limits.chunk_entries || pending.bytes() + size > limits.chunk_bytes;
        if !pending.is_empty() && (alone || full) {
            self.propose(now, handle, out);
        }
        let Some(group) = self.group(handle) else { return };
        if alone {
            group.tasks.push_alone(task);
            self.touch(handle);
            self.propose(now, handle, out);
        } else {
            group.tasks.push(task);
            if !group.touched {
                self.touch(handle);
            }
        }
    }

    /// The group has had its share of this turn: the task waits for the next, or is refused.
    #[cold]
    fn hold_back(&mut self, task: ApplyEvent, out: &mut LaneOutput) {
        let (handle, limit) = (task.handle, self.limits.group_backlog);
        let Some(group) = self.group(handle) else { return };
        if group.backlog.len() >= limit {
            metrics::counter!("apply-task-overload-times").increment(1);
            fail(out, group.worker, handle, vec![task.done], ApplyError::Busy);
            return;
        }
        group.backlog.push_back(task);
        if group.backlog.len() == 1 {
            self.backlogged.push(handle);
        }
    }

    /// Gives the groups that were held back their share of this turn.
    fn serve_backlogs(&mut self, now: Time, out: &mut LaneOutput) {
        for handle in std::mem::take(&mut self.backlogged) {
            for _ in 0..self.limits.group_turn_tasks {
                let Some(task) = self.group(handle).and_then(|group| group.backlog.pop_front()) else {
                    break;
                };
                self.on_apply(now, task, out);
            }
            if self.group(handle).is_some_and(|group| !group.backlog.is_empty()) {
                self.backlogged.push(handle);
            }
        }
    }

    fn on_request(&mut self, now: Time, request: RequestEvent, out: &mut LaneOutput) {
        let RequestEvent { handle, from, reply, codec, request } = request;
        let refused = match self.group(handle) {
            None => Some(Status::new(RaftError::NotFound, "the group was stopped on this host")),
            Some(group) => group.panicked().cloned(),
        };
        if let Some(status) = refused {
            out.replies.push(OutReply { handle: reply, codec, response: RaftResponse::Error(status) });
            return;
        }
        let token = self.replies.insert(Waiting { group: handle, handle: reply, codec });
        self.step(now, handle, Input::Request { from, reply: token, request }, out);
    }

    fn on_response(&mut self, now: Time, response: ResponseEvent, out: &mut LaneOutput) {
        let context = response.context;
        let handle = GroupHandle { lane: self.lane, slot: context.slot, generation: context.generation };
        let (peer, ticket) = unpack(context.ticket);
        let Some(from) = self.peers.get(peer).map(|peer| peer.id.clone()) else { return };
        let input = Input::Response { from, ticket: Ticket(ticket), result: response.result };
        self.step(now, handle, input, out);
    }

    fn on_connected(&mut self, now: Time, endpoint: &Endpoint, out: &mut LaneOutput) {
        let peers: Vec<_> = self.peers.at(&endpoint.0).cloned().collect();
        for handle in self.handles() {
            for peer in &peers {
                let Some(group) = self.group(handle) else { break };
                if group.panicked().is_none() && is_member(group.node().configuration(), peer) {
                    self.step(now, handle, Input::PeerConnected { peer: peer.clone() }, out);
                }
            }
        }
    }

    // --- life of groups ---

    fn on_control(&mut self, now: Time, control: Control, out: &mut LaneOutput) {
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
                    if let Some(status) = group.panicked() {
                        description.state = ringraft_core::NodeState::Error;
                        description.last_error = Some(status.clone());
                    }
                    description
                });
                answer.fulfil(description);
            }
            Control::Stop => self.stop(now, out),
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
                fail(
                    out,
                    worker,
                    handle,
                    held.into_iter().map(|task| task.done).collect(),
                    ApplyError::Shutdown,
                );
            }
        }
        self.step(now, handle, Input::Shutdown, out);
        for waiting in self.replies.take_group(handle) {
            let status = Status::new(RaftError::NodeShutdown, "the node was shut down");
            let response = RaftResponse::Error(status);
            out.replies.push(OutReply { handle: waiting.handle, codec: waiting.codec, response });
        }
        let slot = &mut self.slots[handle.slot as usize];
        if let Some(mut group) = slot.group.take() {
            let left = group.closures.take_all();
            if !left.is_empty() {
                let status = Status::new(RaftError::NodeShutdown, "the node was shut down");
                fail(out, group.worker, handle, left, ApplyError::Unknown(status));
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
        for event in std::mem::take(&mut self.deferred) {
            self.on_event(now, event, out);
        }
        for handle in self.handles() {
            self.close(now, handle, None, out);
        }
    }

    // --- steps and their effects ---

    fn step(&mut self, now: Time, handle: GroupHandle, input: Input, out: &mut LaneOutput) {
        let Some(group) = self.group(handle) else { return };
        if group.tasks.expects_term() {
            // The term may change with this input: tasks that were checked against the old one go first.
            self.propose(now, handle, out);
        }
        let mut fx = std::mem::take(&mut self.fx);
        if let Some(group) = self.group(handle) {
            group.step(now, input, &mut fx);
        }
        self.absorb(handle, &mut fx, out);
        self.fx = fx;
    }

    /// Proposes the tasks that wait, as one chunk.
    fn propose(&mut self, now: Time, handle: GroupHandle, out: &mut LaneOutput) {
        let mut fx = std::mem::take(&mut self.fx);
        if let Some(group) = self.group(handle)
            && !group.tasks.is_empty()
            && let Err((error, completions)) = group.propose(now, &mut fx)
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
            fail(out, worker, handle, completions, error);
        }
        self.absorb(handle, &mut fx, out);
        self.fx = fx;
    }

    /// Moves the effects of one step into the output of the turn.
    fn absorb(&mut self, handle: GroupHandle, fx: &mut Effects, out: &mut LaneOutput) {
        self.touch(handle);
        let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut() else {
            fx.clear();
            return;
        };
        if group.panicked().is_some() {
            fx.clear();
            self.fail_group(handle, out);
            return;
        }
        let waits = !fx.log.is_empty()
            || fx.sends.iter().any(|send| send.after_durable)
            || fx.replies.iter().any(|reply| reply.after_durable);
        let mut write = waits.then(|| take_write(&mut out.disk, group));
        if let Some(write) = &mut write
            && !fx.log.is_empty()
        {
            write.ops.append(&mut fx.log);
            write.sequence = fx.write_sequence;
        }
        for reply in fx.replies.drain(..) {
            let Some(waiting) = self.replies.take(reply.token) else {
                debug_assert!(false, "a request is answered once");
                continue;
            };
            let answer = OutReply { handle: waiting.handle, codec: waiting.codec, response: reply.response };
            match &mut write {
                Some(write) if reply.after_durable => write.replies.push(answer),
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
                RaftRequest::AppendEntries(request) if request.kind != AppendKind::Heartbeat => peer.log,
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
                Some(write) if send.after_durable => write.sends.push(request),
                _ => out.sends.push(request),
            }
        }
        out.disk.extend(write);
        let key = group.key;
        out.reads.extend(fx.reads.drain(..).map(|read| ReadTask { handle, key, read }));
        let tasks = &mut out.fsm[usize::from(group.worker)];
        for event in fx.fsm.drain(..) {
            tasks.push(match event {
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
        if let Some(status) = fx.abandoned.take() {
            let completions = group.closures.take_all();
            if !completions.is_empty() {
                tasks.push(FsmTask::Fail { handle, completions, error: ApplyError::Unknown(status) });
            }
        }
        fx.clear();
    }

    /// A step panicked: whoever waits is told, and the state machine hears that the node has failed.
    fn fail_group(&mut self, handle: GroupHandle, out: &mut LaneOutput) {
        let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut() else { return };
        let Some(status) = group.panicked().cloned() else { return };
        let waiting = self.replies.take_group(handle);
        let (worker, completions) = (group.worker, group.closures.take_all());
        for waiting in waiting {
            let response = RaftResponse::Error(status.clone());
            out.replies.push(OutReply { handle: waiting.handle, codec: waiting.codec, response });
        }
        if !completions.is_empty() {
            fail(out, worker, handle, completions, ApplyError::Unknown(status.clone()));
        }
        if group.report_panic() {
            out.fsm[usize::from(worker)].push(FsmTask::Event { handle, event: FsmEvent::Error(status) });
        }
    }

    // --- slots ---

    #[inline]
    fn group(&mut self, handle: GroupHandle) -> Option<&mut Group> {
        let slot = self.slots.get_mut(handle.slot as usize)?;
        if slot.generation != handle.generation || handle.lane != self.lane {
            return None;
        }
        slot.group.as_deref_mut()
    }

    fn handle_at(&self, slot: u32) -> Option<GroupHandle> {
        let entry = self.slots.get(slot as usize)?;
        entry.group.as_ref().map(|group| group.handle)
    }

    fn handles(&self) -> Vec<GroupHandle> {
        self.slots.iter().filter_map(|slot| slot.group.as_ref().map(|group| group.handle)).collect()
    }

    #[inline]
    fn touch(&mut self, handle: GroupHandle) {
        if let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut()
            && !group.touched
        {
            group.touched = true;
            self.touched.push(handle.slot);
        }
    }
}

impl fmt::Debug for LogEntryAndClosureHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogEntryAndClosureHandler")
            .field("lane", &self.lane)
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// Whether the event brings work for the disk in bulk, which waits while the disk is behind.
fn is_bulk(event: &LaneEvent) -> bool {
    match event {
        LaneEvent::Apply(_) => true,
        LaneEvent::Request(request) => {
            matches!(&request.request, RaftRequest::AppendEntries(append) if append.kind == AppendKind::Entries)
        }
        _ => false,
    }
}

fn is_member(entry: &ConfigurationEntry, peer: &ringraft_core::PeerId) -> bool {
    entry.is_voter(peer) || entry.is_learner(peer)
}

fn fail(
    out: &mut LaneOutput,
    worker: u16,
    handle: GroupHandle,
    completions: Vec<Completion>,
    error: ApplyError,
) {
    if let Some(tasks) = out.fsm.get_mut(usize::from(worker)) {
        // Refusals of one turn often come in a row.
        if let Some(FsmTask::Fail { handle: last, completions: before, error: same }) = tasks.last_mut()
            && *last == handle
            && *same == error
        {
            before.extend(completions);
            return;
        }
        tasks.push(FsmTask::Fail { handle, completions, error });
    }
}

/// The group's write of this turn: the last one, if nothing of another group stands behind it.
fn take_write(writes: &mut Vec<DiskWrite>, group: &Group) -> DiskWrite {
    match writes.pop_if(|write| write.handle == group.handle) {
        Some(write) => write,
        None => DiskWrite {
            handle: group.handle,
            key: group.key,
            progress: Arc::clone(&group.progress),
            sequence: 0,
            ops: Vec::new(),
            sends: Vec::new(),
            replies: Vec::new(),
        },
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
