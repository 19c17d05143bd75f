//! The owner of a lane's groups (SOFAJRaft's `LogEntryAndClosureHandler`, and everything that runs under its node lock).

mod calls;
mod campaigns;
mod effects;
mod group;
mod inspect;
mod life;
mod peer_table;
mod reply_table;
mod room;
mod silent_peers;
mod tails;
mod timer_queue;
mod waiting_calls;

use std::fmt;
use std::sync::Arc;

use ringraft_core::{
    AppendKind, ConfigurationEntry, Effects, EntryChunk, Extensions, Input, PeerId, RaftError, RaftRequest,
    RaftResponse, Status, Ticket, Time,
};
use ringraft_net::{Endpoint, RequestContext, Transport};
use ringraft_proto::{IncomingResponse, RequestKind};
use ringraft_storage::StorageError;
use rustc_hash::FxHashSet;

use crate::handler::log_entry_and_closure::campaigns::{Campaigns, Gap};
use crate::handler::log_entry_and_closure::group::Group;
use crate::handler::log_entry_and_closure::peer_table::{PeerTable, unpack};
use crate::handler::log_entry_and_closure::reply_table::{ReplyTable, Waiting};
use crate::handler::log_entry_and_closure::room::Rooms;
use crate::handler::log_entry_and_closure::silent_peers::SilentPeers;
use crate::handler::log_entry_and_closure::tails::Tails;
use crate::handler::log_entry_and_closure::timer_queue::TimerQueue;
use crate::handler::{
    ApplyEvent, GroupHandle, GroupProgress, LaneEvent, LaneOutput, OutReply, RequestEvent, ResponseEvent,
};
use crate::identity::creation;
use crate::task::completion::ApplyError;
use crate::task::credit::cost;

/// Bounds of one lane's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Tasks in one proposal at most. Proposals of one group in one turn are as many as it takes.
    pub chunk_entries: usize,
    /// Bytes after which a proposal takes no further task.
    pub chunk_bytes: usize,
    /// A task of so many bytes stands alone in its chunk and is not copied.
    pub alone_bytes: usize,
    /// Tasks of one group in one turn at most; more wait for the next turn. Less than what a turn takes, so that a hot group leaves the
    /// rest of a turn to others.
    pub group_turn_tasks: usize,
    /// Campaigns that the lane begins in a second at most, those of groups whose clients wait first.
    pub campaigns_a_second: u64,
    /// Tasks over their groups' share that the groups of one worker hold at most; more wait in the ring.
    pub group_backlog: usize,
    /// Bytes of entries (memory of their chunks) that the lane's groups of one worker may have handed to it and not applied, together;
    /// one entry crosses it. What does not fit stays with the nodes, and they get it in turn.
    pub worker_bytes: usize,
    /// Bytes after which a group's write of a turn takes no further step: the next is one of its own, and the disk stage may put
    /// other groups between.
    pub write_bytes: usize,
    /// Bytes of log that all groups together keep in memory, for peers that lag and for state machines, when it is durable; who has kept
    /// it for longest lets go first.
    pub tail_bytes: usize,
}

impl Default for LaneLimits {
    fn default() -> LaneLimits {
        LaneLimits {
            chunk_entries: 1024,
            chunk_bytes: 256 * 1024,
            alone_bytes: 64 * 1024,
            group_turn_tasks: 1024,
            campaigns_a_second: 200,
            group_backlog: 16_384,
            worker_bytes: 128 << 20,
            write_bytes: 1 << 20,
            tail_bytes: 256 << 20,
        }
    }
}

impl LaneLimits {
    /// The defaults, for turns that take so many tasks of one worker's groups: a quarter of them may be one group's.
    pub fn for_turns_of(tasks: usize) -> LaneLimits {
        let limits = LaneLimits::default();
        LaneLimits { group_turn_tasks: (tasks / 4).clamp(1, limits.group_turn_tasks), ..limits }
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
/// A turn begins with [`begin_turn`](LogEntryAndClosureHandler::begin_turn). After any of its inputs, call [`end_turn`](LogEntryAndClosureHandler::end_turn) once, then hand the output on in this order:
/// replies and sends, flush, then disk, state-machine tasks and reads.
pub struct LogEntryAndClosureHandler {
    lane: u16,
    limits: LaneLimits,
    transport: Arc<dyn Transport>,
    /// Rule O1: nobody else reaches these nodes, so that no lock stands between a question and the step that follows from it.
    slots: Vec<Slot>,
    free: Vec<u32>,
    peers: PeerTable,
    replies: ReplyTable,
    silent_peers: SilentPeers,
    timers: TimerQueue,
    campaigns: Campaigns,
    gap: Gap,
    /// Groups and peers (by number) whose entries wait for room on the link to a host.
    waiting_for_links: FxHashSet<(GroupHandle, u16)>,
    /// Slots of groups that something happened to in this turn, each once.
    touched: Vec<u32>,
    /// Those of the turn before.
    touched_before: Vec<u32>,
    /// Room of the workers, and what waits for it.
    rooms: Rooms,
    /// What the groups keep of their logs in memory.
    tails: Tails,
    /// The effects of one step; reused.
    fx: Effects,
    /// Why the log store takes nothing any more.
    store_failed: Option<Status>,
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
            silent_peers: SilentPeers::default(),
            timers: TimerQueue::default(),
            campaigns: Campaigns::default(),
            gap: Gap::default(),
            waiting_for_links: FxHashSet::default(),
            touched: Vec::new(),
            touched_before: Vec::new(),
            rooms: Rooms::default(),
            tails: Tails::default(),
            fx: Effects::new(),
            store_failed: None,
            stopping: false,
        }
    }

    /// Whether [`Control::Stop`](crate::handler::Control::Stop) has been handled: every group is closed, and nothing more comes out after this turn.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    // --- inputs ---

    /// Takes control, or entries and what goes with them, oldest first. All of it is taken, whatever room there is: give it control
    /// always, and entries while the disk has room ([`LaneOutput::disk_has_room`]). Tasks and reads come by
    /// [`on_tasks`](Self::on_tasks).
    pub fn on_batch(&mut self, now: Time, events: &mut Vec<LaneEvent>, out: &mut LaneOutput) {
        for event in events.drain(..) {
            self.on_event(now, 0, event, out);
        }
    }

    /// Takes tasks and reads of groups of one worker, oldest first: no more than [`task_room`](Self::task_room).
    pub fn on_tasks(&mut self, now: Time, worker: u16, events: &mut Vec<LaneEvent>, out: &mut LaneOutput) {
        for event in events.drain(..) {
            self.on_event(now, worker, event, out);
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

    /// The log store has failed: every group stops taking part, and none is started any more.
    pub fn on_store_failed(&mut self, now: Time, status: &Status, out: &mut LaneOutput) {
        self.store_failed.get_or_insert_with(|| status.clone());
        for handle in self.handles() {
            self.step(now, handle, Input::Failed { status: status.clone() }, out);
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
        if status.error == RaftError::Again {
            let handle = GroupHandle { lane: self.lane, slot: context.slot, generation: context.generation };
            self.waiting_for_links.insert((handle, unpack(context.ticket).0));
        }
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
            self.begin_reads(now, handle, out);
        }
        for position in 0..self.touched.len() {
            let slot = self.touched[position];
            let Slot { generation, group: Some(group) } = &mut self.slots[slot as usize] else { continue };
            group.touched = false;
            group.turn_tasks = 0;
            group.publish_status();
            group.tell_what_it_waits_for();
            if let Some(at) = group.deadline()
                && group.armed.is_none_or(|armed| at < armed)
            {
                group.armed = Some(at);
                self.timers.arm(at, slot, *generation);
            }
        }
        self.shrink_tails();
        self.touched_before.clear();
        std::mem::swap(&mut self.touched, &mut self.touched_before);
    }

    /// The bytes, as tasks of a worker's groups count with them before a lane, that need no more room there: their tasks were taken into
    /// proposals or refused since this was last asked. Ask at the end of a turn.
    pub(crate) fn take_task_bytes(&mut self, worker: u16) -> usize {
        self.rooms.take_task_bytes(worker)
    }

    /// Slots of the groups that something happened to in the turn that has ended, each once; for simulations.
    pub fn touched_slots(&self) -> &[u32] {
        &self.touched_before
    }

    // --- events ---

    #[inline]
    fn on_event(&mut self, now: Time, worker: u16, event: LaneEvent, out: &mut LaneOutput) {
        match event {
            LaneEvent::Apply(task) => self.on_apply(now, worker, task, out),
            LaneEvent::Read(read) => self.on_read(worker, read, out),
            LaneEvent::Request(request) => self.on_request(now, *request, out),
            LaneEvent::Response(response) => self.on_response(now, *response, out),
            LaneEvent::LogRead { handle, ticket, result } => {
                self.step(now, handle, read_input(ticket, *result), out);
            }
            LaneEvent::Connected(endpoint) => self.on_connected(now, &endpoint, out),
            LaneEvent::LinkHasRoom(endpoint) => self.on_link_room(now, &endpoint, out),
            LaneEvent::Control(control) => self.on_control(now, *control, out),
        }
    }

    /// A task from the ring of `worker`, which is its group's. It tells the caller when the group is gone.
    #[inline]
    fn on_apply(&mut self, now: Time, worker: u16, task: ApplyEvent, out: &mut LaneOutput) {
        let handle = task.handle;
        let limits = self.limits;
        let Some(group) = self.group(handle) else {
            // No worker knows the group any more: any that has room can say so.
            self.rooms.count_task(worker, cost(task.data.len()));
            out.fail(worker, handle, vec![task.done], ApplyError::Shutdown);
            return;
        };
        if task.expected_term != 0 && task.expected_term != group.node().term() {
            let error =
                ApplyError::TermMismatch { expected: task.expected_term, actual: group.node().term() };
            let worker = group.worker;
            self.rooms.count_task(worker, cost(task.data.len()));
            out.fail(worker, handle, vec![task.done], error);
            return;
        }
        if group.turn_tasks >= limits.group_turn_tasks {
            self.hold_back(task, out);
            return;
        }
        group.turn_tasks += 1;
        let worker = group.worker;
        if !group.asked && !group.node().is_leader() {
            self.note_asked(handle);
        }
        self.rooms.count_task(worker, cost(task.data.len()));
        let Some(group) = self.group(handle) else { return };
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

    fn on_request(&mut self, now: Time, request: RequestEvent, out: &mut LaneOutput) {
        let RequestEvent { handle, from, reply, codec, request } = request;
        let refused = match self.group(handle) {
            None => Some(Status::new(RaftError::NotFound, "the group was stopped on this host")),
            Some(group) => group.panicked().cloned(),
        };
        if let Some(status) = refused {
            let response = RaftResponse::Error(status);
            out.replies.push(OutReply { handle: reply, codec, creation: 0, response });
            return;
        }
        let announced = match &request {
            RaftRequest::AppendEntries(append) => Some(append.extensions != Extensions::NONE),
            _ => None,
        };
        let slots = &self.slots;
        self.transport.member_spoke(reply, announced, &mut || {
            let group = slots.get(handle.slot as usize)?.group.as_deref()?;
            let member = is_member(group.node().configuration(), &from);
            member.then(|| Endpoint(from.endpoint().into()))
        });
        if let RaftRequest::AppendEntries(append) = &request
            && append.kind == AppendKind::Entries
        {
            metrics::histogram!("handle-append-entries-count").record(append.entry_count() as f64);
        }
        let token = self.replies.insert(Waiting { group: handle, handle: reply, codec });
        self.step(now, handle, Input::Request { from, reply: token, request }, out);
    }

    fn on_response(&mut self, now: Time, response: ResponseEvent, out: &mut LaneOutput) {
        let context = response.context;
        let handle = GroupHandle { lane: self.lane, slot: context.slot, generation: context.generation };
        let (peer, ticket) = unpack(context.ticket);
        let Some(from) = self.peers.get(peer).map(|peer| peer.id.clone()) else { return };
        let result = response.result.and_then(|answer| self.of_same_life(now, handle, &from, answer));
        if let Ok(RaftResponse::AppendEntries(answer)) = &result {
            self.peers.announced(peer, answer.extensions != Extensions::NONE, &self.transport);
        }
        if let Err(status) | Ok(RaftResponse::Error(status)) = &result
            && status.error == RaftError::Invalid
            && RequestKind::try_from(context.kind) == Ok(RequestKind::AppendEntries)
            && let Some(group) = self.group(handle).map(|group| Arc::clone(&group.names))
        {
            self.silent_peers.tell_refusal(now, &from.endpoint(), &group.group_id, status);
        }
        let input = Input::Response { from, ticket: Ticket(ticket), result };
        self.step(now, handle, input, out);
    }

    /// Lets an answer of the life that asked pass, before its term, its grant or its acknowledgement are looked at. To the node any other is
    /// a request that has failed.
    fn of_same_life(
        &mut self,
        now: Time,
        handle: GroupHandle,
        from: &PeerId,
        answer: IncomingResponse,
    ) -> Result<RaftResponse, Status> {
        let Some(names) = self.group(handle).map(|group| Arc::clone(&group.names)) else {
            return Ok(answer.response);
        };
        let checked = creation::check_answer(&names.group_id, from, &answer, names.creation);
        if let Err(status) = &checked {
            self.silent_peers.tell_of_another_life(now, from, &names.group_id, status);
        }
        checked.map(|()| answer.response)
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

    /// The link to a host has sent much of what it held: groups whose entries wait for that go on.
    fn on_link_room(&mut self, now: Time, endpoint: &Endpoint, out: &mut LaneOutput) {
        let peers = &self.peers;
        let reached = |number: u16| peers.get(number).is_some_and(|peer| peer.id.endpoint() == *endpoint.0);
        let mut ready: Vec<_> = self.waiting_for_links.extract_if(|(_, number)| reached(*number)).collect();
        ready.sort_unstable();
        for (handle, number) in ready {
            let Some(peer) = self.peers.get(number).map(|peer| peer.id.clone()) else { continue };
            self.step(now, handle, Input::PeerConnected { peer }, out);
        }
    }

    // --- slots ---

    #[inline]
    fn group(&mut self, handle: GroupHandle) -> Option<&mut Group> {
        let slot = self.slots.get_mut(handle.slot as usize)?;
        // Rule O2: what was meant for an earlier life of the slot finds no group; it would speak of another log.
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

/// What a node is told of a log read. Damage is final for the group, whoever the entries were for: a leader that cannot read its log
/// must not keep others from leading.
fn read_input(ticket: Ticket, result: Result<Vec<Arc<EntryChunk>>, StorageError>) -> Input {
    let status = |error: StorageError| Status::new(RaftError::Io, error.to_string());
    match result {
        Err(error) => match damage_of(&error) {
            Some(damage) => Input::Failed { status: damage },
            None => Input::LogRead { ticket, result: Err(status(error)) },
        },
        Ok(entries) => Input::LogRead { ticket, result: Ok(entries) },
    }
}

/// Why a replica takes part no more when this is what became of a record of its log; `None` for what may pass.
pub(crate) fn damage_of(error: &StorageError) -> Option<Status> {
    let StorageError::Damaged { path, offset, what } = error else { return None };
    let message = format!(
        "{path} is damaged at byte {offset}: {what}; drop this replica's log and let it rejoin the group"
    );
    Some(Status::new(RaftError::Io, message))
}

fn is_member(entry: &ConfigurationEntry, peer: &ringraft_core::PeerId) -> bool {
    entry.is_voter(peer) || entry.is_learner(peer)
}
